"""Geometry against the phantom's truth: motion, registration, parcels."""

from collections.abc import Iterator

from benchmarks.table import Row


def rows(seed: int, quick: bool) -> Iterator[Row]:
    """Measure the geometry rows of the accuracy table."""
    yield from ()
