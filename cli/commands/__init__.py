"""The commands, by what a person does: `setup` what is synced, make and look at `runs`, and `operations` of the stack.

A command reads what was typed, calls `models` or `worker`, and prints. No rule of the domain and no SQL is here.
"""
