"""What the scan of a data set finds is what a full index of PyBIDS finds, filters included."""

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from bids import BIDSLayout, BIDSLayoutIndexer
from bids_validator import BIDSValidator

from brainlm_bids.bids.filtered import Scanned
from brainlm_bids.bids.layout import BOLD, OTHERS, find_files
from brainlm_bids.bids.tree import look_around
from brainlm_bids.bids.valid_names import is_ordinary, is_valid, validator
from brainlm_bids.settings import Settings

FILES = (
    "README",
    "participants.tsv",
    "task-rest_bold.json",
    "T1w.json",
    # sessions, inheritance at each level, several runs
    "sub-01/sub-01_sessions.tsv",
    "sub-01/sub-01_task-rest_bold.json",
    "sub-01/ses-a/sub-01_ses-a_scans.tsv",
    "sub-01/ses-a/sub-01_ses-a_task-rest_bold.json",
    "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
    "sub-01/ses-a/anat/sub-01_ses-a_acq-mp2rage_run-02_T1w.nii",
    "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
    "sub-01/ses-a/func/sub-01_ses-a_task-rest_run-1_bold.nii.gz",
    "sub-01/ses-a/func/sub-01_ses-a_task-rest_run-02_bold.nii.gz",
    "sub-01/ses-a/func/sub-01_ses-a_task-rest_run-02_bold.json",
    "sub-01/ses-a/func/sub-01_ses-a_task-rest_run-02_events.tsv",
    "sub-01/ses-a/func/sub-01_ses-a_task-rest_run-02_sbref.nii.gz",
    "sub-01/ses-b/func/sub-01_ses-b_task-nback_dir-PA_bold.nii",
    "sub-01/ses-b/func/sub-01_ses-b_task-nback_dir-PA_bold.nii.gz",
    # echoes and parts
    "sub-02/func/sub-02_task-rest_echo-1_bold.nii.gz",
    "sub-02/func/sub-02_task-rest_echo-2_bold.nii.gz",
    "sub-02/func/sub-02_task-rest_echo-2_part-phase_bold.nii.gz",
    "sub-02/func/sub-02_task-rest_echo-1_sbref.nii.gz",
    # field maps
    "sub-02/fmap/sub-02_phasediff.nii.gz",
    "sub-02/fmap/sub-02_phasediff.json",
    "sub-02/fmap/sub-02_magnitude1.nii.gz",
    "sub-02/fmap/sub-02_dir-AP_epi.nii.gz",
    "sub-02/fmap/sub-02_acq-x_dir-PA_run-1_epi.nii",
    "sub-02/dwi/sub-02_dir-AP_sbref.nii.gz",
    "sub-02/dwi/sub-02_dir-AP_dwi.nii.gz",
    # not valid, hidden, ignored, and no raw data
    "sub-02/func/sub-02_task-n-back_bold.nii.gz",
    "sub-02/func/sub-02_bold.nii.gz",
    "sub-02/func/extra/sub-02_task-rest_bold.nii.gz",
    "sub-02/func/sub-02_task-other_bold.img",
    "sub-02/.git/annex/sub-02_task-rest_bold.nii.gz",
    "sub-02/func/.sub-02_task-hidden_bold.nii.gz",
    "sub-03/func/sub-03_task-rest_bold.nii.gz",
    "sub-03/dataset_description.json",
    "sub-3x/anat/sub-3x_T1w.nii.gz",
    "sub-3x/func/sub-3x_task-rest_desc-preproc_bold.nii.gz",
    "derivatives/fmriprep/sub-01/func/sub-01_task-rest_bold.nii.gz",
    "sourcedata/sub-01/func/sub-01_task-rest_bold.nii.gz",
    "code/sub-01_task-rest_bold.nii.gz",
    "01/func/sub-01_task-rest_bold.nii.gz",
)
FILTERS: tuple[dict[str, dict[str, Any]], ...] = (
    {},
    {"bold": {"task": "rest"}},
    {"bold": {"task": ["rest", "nback"], "run": 2}},
    {"bold": {"run": [1, 2]}, "t1w": {"acquisition": None}},
    {"bold": {"session": None}, "t1w": {"session": "*"}},
    {"bold": {"echo": [2]}, "sbref": {"echo": 1}},
    {"t1w": {"suffix": "T2w"}, "fmap": {"suffix": "epi", "direction": "AP"}},
    {"bold": {"extension": ".nii"}, "fmap": {"acquisition": "x", "extension": "nii"}},
    {"bold": {"regex_search": True, "task": "^n"}, "t1w": {"session": ["a", "b"]}},
    {"bold": {"datatype": "func", "part": "phase"}, "sbref": {"datatype": "dwi"}},
    {"bold": {"nonsense": "x"}, "t1w": {"acquisition": "mp2rage", "run": 2}},
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of empty files."""
    folder = tmp_path / "bids"
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    description = {"Name": "x", "BIDSVersion": "1.10.0"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    (folder / ".bidsignore").write_text("sub-01/ses-b/\n")
    (folder / "sub-04").symlink_to(folder / "elsewhere", target_is_directory=True)
    elsewhere = folder / "elsewhere" / "func"
    elsewhere.mkdir(parents=True)
    (elsewhere / "sub-04_task-rest_bold.nii.gz").symlink_to("/nowhere")  # never fetched
    return folder


def _settings(root: Path, **values: Any) -> Settings:
    return Settings(root, root / "derivatives" / "out", root.parent / "work", **values)


def _full_index(root: Path, *, valid: bool) -> BIDSLayout:
    """PyBIDS' own index, with the package's own validator."""
    ignored = [f"{name}/" for name in ("code", "stimuli", "sourcedata", "models", "derivatives")]
    patterns = [re.compile(f"^/{name}") for name in ignored] + [re.compile(r"/\.")]
    indexer = BIDSLayoutIndexer(ignore=patterns, index_metadata=False)
    if valid:
        indexer.validator = BIDSValidator(index_associated=True)
    return BIDSLayout(root, validate=False, indexer=indexer)


@pytest.mark.parametrize("valid", [True, False])
def test_a_scan_finds_what_a_full_index_finds(root: Path, valid: bool) -> None:
    settings = _settings(root, skip_bids_validation=not valid)
    layout = _full_index(root, valid=valid)
    images = look_around(root, settings.output_dir, ()).images
    index = Scanned([path for path in images if not valid or is_valid(path, root)], settings)
    kinds = {"bold": BOLD, **OTHERS}
    found = 0
    for filters, (name, query) in itertools.product(FILTERS, kinds.items()):
        merged = {"extension": [".nii.gz", ".nii"], **query, **filters.get(name, {})}
        expected = layout.get(return_type="filename", invalid_filters="allow", **merged)
        ours = index.get(query, filters.get(name))
        assert ours == sorted(map(Path, expected)), (filters, name)
        found += len(ours)
    assert found > 100


@pytest.mark.parametrize("values", [{}, {"participant_label": ("02",)}])
@pytest.mark.parametrize("number", range(len(FILTERS)))
def test_a_call_selects_what_it_selects_from_a_kept_index(
    root: Path, number: int, values: dict[str, Any]
) -> None:
    path = root.parent / "filters.json"
    path.write_text(json.dumps(FILTERS[number]))
    settings = _settings(root, bids_filter_file=path, **values)
    kept = _settings(root, bids_filter_file=path, bids_database_dir=root.parent / "index", **values)
    ours, theirs = find_files(settings), find_files(kept)
    assert ours == theirs
    assert ours.every_bold


def test_a_folder_above_the_data_set_is_no_data_type(tmp_path: Path) -> None:
    """PyBIDS searches its patterns in whole paths: below `func/`, nothing is a field map."""
    root = tmp_path / "func" / "bids"
    image = root / "sub-01" / "fmap" / "sub-01_dir-AP_epi.nii.gz"
    image.parent.mkdir(parents=True)
    image.touch()
    settings = _settings(root)
    index = Scanned([image], settings)
    assert index.get(OTHERS["fmap"], None) == [image]
    assert index.get(OTHERS["fmap"], {"direction": "AP"}) == [image]


def test_of_one_participant_only_its_folder_is_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    scandir = os.scandir

    def noting(folder: Any) -> Any:
        listed.append(Path(folder).relative_to(root).as_posix())
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", noting)
    files = find_files(_settings(root, participant_label=("02",)))
    assert len(files.bold) == 3
    assert listed
    assert all(name.split("/")[0] == "sub-02" for name in listed)


def test_ordinary_names_are_valid() -> None:
    """The names that need no validator are names that the validator accepts."""
    entities = ("task-x", "acq-A1", "ce-x", "rec-y", "dir-AP", "run-01", "echo-2", "part-mag")
    suffixes = ("bold", "sbref", "T1w", "phasediff", "phase1", "magnitude1", "fieldmap", "epi")
    ordinary = 0
    for n in range(5):
        for chosen in itertools.combinations(entities, n):
            for folder, suffix in itertools.product(("func", "anat", "fmap"), suffixes):
                name = "_".join(("sub-01", "ses-a", *chosen, suffix))
                place = f"/sub-01/ses-a/{folder}/{name}.nii.gz"
                if is_ordinary(place):
                    ordinary += 1
                    assert validator().is_bids(place), place
    assert ordinary > 150
    for odd in ("/sub-01/func/sub-01_task-a-b_bold.nii.gz", "/sub-01/sub-01_task-a_bold.nii.gz"):
        assert not is_ordinary(odd)
