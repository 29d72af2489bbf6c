"""Fixtures of the tests of calls and clusters."""

import shutil
from pathlib import Path

import pytest

from brainlm_bids.phantom import write_phantom


@pytest.fixture(scope="session")
def three_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw data set of three subjects, without T1w images for speed. Copy it: others read it."""
    folder = tmp_path_factory.mktemp("three_phantoms") / "bids"
    write_phantom(folder, n_subjects=3, n_volumes=60, tr=2.0, voxel=5.0, seed=5)
    for anat in folder.glob("sub-*/anat"):
        shutil.rmtree(anat)
    return folder
