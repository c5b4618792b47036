"""The operator's door: `cohort-sync …`.

`main` assembles the commands, each module is one noun of them. A command reads what was typed, asks `models`
(or a vendor through `worker`), and prints; it holds no rule of the domain and no SQL.
"""

import gc

# Python looks for cycles after 700 new objects (`gc`, Python 3.11 to 3.13), and imports and parsed answers are many
# objects without any: it took four fifths of parsing a page of 2,500 rows, and a tenth of `status`.
gc.set_threshold(50_000)
