"""Heads that the tests of the registration share."""

import os

# ITK reads it when its first filter is made
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from registration_scene import Scene, make_scene

Head = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def head() -> Head:
    """The template that nilearn carries: T1w contrast, brain mask and affine at 4 mm."""
    image = load_mni152_template(resolution=4)
    mask = load_mni152_brain_mask(resolution=4).get_fdata() > 0.5
    return image.get_fdata().astype(np.float32), mask, image.affine


@pytest.fixture(scope="session")
def scene() -> Scene:
    """See `make_scene`; 2 mm and 3.5 mm."""
    return make_scene()
