"""The operator's door: `cohort-sync …`.

`main` assembles the commands, each module is one noun of them. A command reads what was typed, asks `models`
(or a vendor through `worker`), and prints; it holds no rule of the domain and no SQL.
"""
