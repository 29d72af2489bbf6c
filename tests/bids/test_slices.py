"""Slice times of sidecars: read in the order of the stored slices, or refused with the reason."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids import files
from brainlm_bids.app.context import _slice_timing_corrected, start_of
from brainlm_bids.bids import inputs
from brainlm_bids.bids.runs import Run
from brainlm_bids.bids.slices import read_slice_table, start_of_volumes
from brainlm_bids.commands.bids_app import parse
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings

SHAPE = (10, 11, 12, 30)
TIMES = [round(0.15 * k, 3) for k in range(12)]
STEM = "sub-01_task-rest"


@pytest.mark.parametrize(
    ("direction", "axis", "n_slices", "reverse"),
    [
        (None, 2, 12, False),
        ("k", 2, 12, False),
        ("k-", 2, 12, True),
        ("i", 0, 10, False),
        ("i-", 0, 10, True),
        ("j", 1, 11, False),
        ("j-", 1, 11, True),
    ],
)
def test_times_in_the_order_of_the_stored_slices(
    direction: str | None, axis: int, n_slices: int, reverse: bool
) -> None:
    fields: dict[str, Any] = {"SliceTiming": TIMES[:n_slices]}
    if direction is not None:
        fields["SliceEncodingDirection"] = direction
    table = read_slice_table(fields | {"RepetitionTime": 2.0}, SHAPE)
    expected = TIMES[:n_slices]
    assert (table.axis, list(table.times)) == (axis, expected[::-1] if reverse else expected)
    assert table.reference == pytest.approx(expected[-1] / 2)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "there is no SliceTiming"),
        ({"SliceTiming": []}, "not a list of times"),
        ({"SliceTiming": 0.5}, "not a list of times"),
        ({"SliceTiming": TIMES[:-1]}, "11 times for 12 slices along k"),
        ({"SliceTiming": TIMES, "SliceEncodingDirection": "j"}, "12 times for 11 slices along j"),
        ({"SliceTiming": TIMES, "SliceEncodingDirection": "z"}, "is none of i, j, k"),
        ({"SliceTiming": TIMES, "SliceEncodingDirection": 2}, "is none of i, j, k"),
        ({"SliceTiming": TIMES, "SliceEncodingDirection": ["k"]}, "is none of i, j, k"),
        ({"SliceTiming": [1000 * t for t in TIMES]}, "in milliseconds, and 1650 ms are 1.65 s"),
        ({"SliceTiming": [2 * t for t in TIMES]}, "3.3 s, beyond the repetition time of 2 s"),
        ({"SliceTiming": [t - 0.1 for t in TIMES]}, "a negative time, -0.1"),
        ({"SliceTiming": [0.0] * 12}, "the same time, 0, for every slice"),
        ({"SliceTiming": [*TIMES[:-1], float("nan")]}, "nan, which is not a time"),
        ({"SliceTiming": [*TIMES[:-1], "1.65"]}, "'1.65', which is not a number"),
        ({"SliceTiming": [*TIMES[:-1], None]}, "None, which is not a number"),
        ({"SliceTiming": [*TIMES[:-1], True]}, "True, which is not a number"),
        ({"SliceTiming": TIMES, "SliceTimingCorrected": True}, "was corrected before"),
    ],
)
def test_tables_that_are_refused(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        read_slice_table(fields | {"RepetitionTime": 2.0}, SHAPE)


def _run(folder: Path, fields: Mapping[str, Any], **values: Any) -> Run:
    bids = folder / "bids"
    files.write_json(bids / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    path = bids / "sub-01" / "func" / f"{STEM}_bold.nii.gz"
    path.parent.mkdir(parents=True)
    bold = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    nb.Nifti1Image(bold, np.diag([9.0, 9.0, 9.0, 1.0])).to_filename(path)
    sidecar = {"RepetitionTime": 2.0, "TaskName": "rest", **fields}
    path.with_name(f"{STEM}_bold.json").write_text(json.dumps(sidecar))
    settings = Settings(bids, folder / "out", folder / "work", model=("none",), **values)
    return inputs.find_runs(settings)[0]


def test_a_run_knows_its_slices_where_they_are_to_be_corrected(tmp_path: Path) -> None:
    run = _run(tmp_path, {"SliceTiming": TIMES}, slice_timing=True)
    assert run.problem is None and run.slices is not None
    assert run.slices.times == tuple(TIMES)
    assert (_slice_timing_corrected(run), start_of(run)) == (True, 0.825)
    plain = replace(run, slices=None)
    assert (_slice_timing_corrected(plain), start_of(plain)) == (False, 0.0)


def test_slices_are_left_alone_unless_they_are_asked_for(tmp_path: Path) -> None:
    run = _run(tmp_path, {"SliceTiming": [1000 * t for t in TIMES]})
    assert run.slices is None
    assert not [one for one in run.warnings if "slice" in one.kind]


def test_a_run_with_a_wrong_table_is_processed_without_and_says_so(tmp_path: Path) -> None:
    run = _run(tmp_path, {"SliceTiming": TIMES[:3]}, slice_timing=True)
    assert run.problem is None and run.slices is None
    found = [one.text for one in run.warnings if one.kind == "slice_timing_not_corrected"]
    assert found == [
        f"{STEM}_bold.nii.gz: slice timing was not corrected: SliceTiming has 3 times for 12 "
        "slices along k."
    ]


@pytest.mark.parametrize(
    ("metadata", "start"),
    [
        ({"SliceTimingCorrected": True, "StartTime": 0.975}, 0.975),
        ({"SliceTimingCorrected": False, "StartTime": 0.975}, 0.0),
        ({"StartTime": 0.975}, 0.0),
        ({"SliceTimingCorrected": True}, 0.0),
        ({"SliceTimingCorrected": True, "StartTime": "late"}, 0.0),
        ({"SliceTimingCorrected": True, "StartTime": float("nan")}, 0.0),
    ],
)
def test_the_time_of_fmripreps_volumes(metadata: dict[str, Any], start: float) -> None:
    assert start_of_volumes(metadata) == start


def test_slice_timing_that_cannot_be_is_an_error_of_usage(tmp_path: Path) -> None:
    (tmp_path / "bids").mkdir()
    (tmp_path / "fmriprep").mkdir()
    words = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant", "--slice-timing"]
    with pytest.raises(UserError, match="--slice-timing has an effect on raw images only"):
        parse([*words, "-d", f"fmriprep={tmp_path / 'fmriprep'}"])
    with pytest.raises(UserError, match="--slice-timing and --ignore slicetiming contradict"):
        parse([*words, "--ignore", "fieldmaps", "slicetiming"])
