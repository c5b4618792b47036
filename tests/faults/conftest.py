"""A running product, see `tests/products.py`."""

from tests.products import (  # noqa: F401 - fixtures
    embedded,
    on_postgresql,
    on_sqlite,
    product,
    short_path,
    two_workers,
    vendors,
)
