"""How long people's data is kept, how it is erased, and how it comes back from a copy."""
