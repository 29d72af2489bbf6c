"""Names that BIDS allows: as the BIDS validator says, and fast also for those that it does not."""

import time
from pathlib import Path

import pytest

from brainlm_bids.bids.valid_names import is_valid, validator

PATHS = [
    "/README",
    "/dataset_description.json",
    "/participants.tsv",
    "/task-rest_bold.json",
    "/notes.txt",
    "/sub-01/sub-01_scans.tsv",
    "/sub-01/anat/sub-01_T1w.nii.gz",
    "/sub-01/anat/sub-01_T1w.mgz",
    "/sub-01/func/sub-01_task-rest_bold.nii",
    "/sub-01/func/sub-01_task-rest_run-1_echo-2_part-mag_bold.nii.gz",
    "/sub-01/func/sub-01_run-1_task-rest_bold.nii.gz",
    "/sub-01/func/sub-01_task-n-back_bold.nii.gz",
    "/sub-01/func/sub-02_task-rest_bold.nii.gz",
    "/sub-01/ses-a/func/sub-01_ses-a_task-rest_events.tsv",
    "/sub-01/ses-a/func/sub-01_task-rest_bold.nii.gz",
    "/sub-01/fmap/sub-01_dir-AP_epi.nii.gz",
    "/sub-01/sub-01_task-rest_bold.nii.gz",
    "/derivatives/anything.txt",
    "no/leading/slash.txt",
]


@pytest.mark.parametrize("path", PATHS)
def test_as_the_package_says(path: str) -> None:
    from bids_validator import BIDSValidator

    assert validator().is_bids(path) == BIDSValidator(index_associated=True).is_bids(path)


def test_a_thousand_invalid_names_take_no_time() -> None:
    """The package takes 0.1 s and more for each."""
    validator()
    started = time.process_time()
    paths = (Path(f"/data/sub-01/func/sub-01_task-n-{k}_bold.nii.gz") for k in range(1000))
    assert not any(is_valid(path, Path("/data")) for path in paths)
    assert time.process_time() - started < 5
