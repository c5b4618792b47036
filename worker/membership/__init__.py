"""The membership engine: from two sets of contact keys to batches of changes, in bounded memory.

It knows no vendor, run or SQL, and an import contract keeps it so. An own engine, because it was measured against
DuckDB and polars: at five million keys it peaks at 120 MB, they at 773 and 1,534 MB (`docs/performance.md`).
"""
