"""What the Python API raises: ValueError, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from brainlm_bids.errors import UserError


@contextmanager
def value_errors() -> Iterator[None]:
    """Raise what kernels and readers refuse as ValueError, which Python users expect."""
    try:
        yield
    except UserError as error:
        raise ValueError(str(error)) from error
