"""The scheduler: when bindings are due, and the ticks that make their runs and publish them.

It never imports the worker; the two meet in the database and in a task's name. The cron stepping is our own because
its rules for clock changes, its `H`, and its bound on what was missed are the product; croniter parses and is checked
against (`docs/scheduling.md`).
"""
