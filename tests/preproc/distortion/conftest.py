"""The head that the tests of distortion share."""

import pytest
from registration_scene import Scene, make_scene


@pytest.fixture(scope="session")
def scene() -> Scene:
    """See `make_scene`; 2 mm and 3.5 mm."""
    return make_scene()
