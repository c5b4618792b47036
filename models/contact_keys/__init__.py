"""Contact keys as values: when two are one contact, and how columns of them are held, stored and written into JSON.

Nothing here knows a vendor, a run or SQL. It may be used from every package above; it imports nothing of the project.
"""
