"""What a raw run has: phase encoding and single-band reference, and why not."""

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids.bids import inputs
from brainlm_bids.bids.runs import Run
from brainlm_bids.settings import Settings

HEAD = (10, 11, 12)
RUN = "sub-01_task-rest"
SIDECAR = {
    "RepetitionTime": 2.0,
    "TaskName": "rest",
    "PhaseEncodingDirection": "j-",
    "TotalReadoutTime": 0.05,
}


def write_image(path: Path, shape: tuple[int, ...] = HEAD, sidecar: Any = None) -> Path:
    """An empty image, and its sidecar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nb.Nifti1Image(np.zeros(shape, np.uint8), np.diag([9.0, 9.0, 9.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    if len(shape) == 4:
        image.header.set_zooms((9.0, 9.0, 9.0, 2.0))
    image.to_filename(path)
    if sidecar is not None:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "bids"
    folder.mkdir()
    (folder / "dataset_description.json").write_text('{"Name": "a", "BIDSVersion": "1.10.0"}')
    return folder


def found(root: Path, **values: Any) -> dict[str, Run]:
    settings = Settings(root, root.parent / "out", root.parent / "work", **values)
    return {run.stem: run for run in inputs.find_runs(settings)}


def write_run(root: Path, **sidecar: Any) -> Path:
    path = root / f"sub-01/func/{RUN}_bold.nii.gz"
    values = {key: value for key, value in (SIDECAR | sidecar).items() if value is not None}
    return write_image(path, (*HEAD, 30), values)


def test_phase_encoding(root: Path) -> None:
    write_run(root)
    assert found(root)[RUN].phase_encoding == ("j-", 0.05)
    write_run(root, TotalReadoutTime=None, EffectiveEchoSpacing=0.004)
    assert found(root)[RUN].phase_encoding == ("j-", pytest.approx(0.04))
    write_run(root, TotalReadoutTime=None)
    assert found(root)[RUN].phase_encoding is None
    assert found(root, fallback_total_readout_time=0.03)[RUN].phase_encoding == ("j-", 0.03)
    write_run(root, PhaseEncodingDirection=None)
    assert found(root, fallback_total_readout_time=0.03)[RUN].phase_encoding is None
    write_run(root, TotalReadoutTime=50)
    run = found(root)[RUN]
    assert run.phase_encoding is None and run.problem is None


def test_doubts_about_the_readout_are_warnings(root: Path) -> None:
    write_run(root, TotalReadoutTime=0.02, EffectiveEchoSpacing=0.004)
    (warning,) = found(root)[RUN].warnings
    assert warning.kind == "readout_doubtful"
    assert warning.text.startswith(f"{RUN}_bold.nii.gz: TotalReadoutTime gives")


def test_sbref(root: Path) -> None:
    bold = write_run(root)
    sbref = write_image(
        bold.with_name(f"{RUN}_sbref.nii.gz"), sidecar={"PhaseEncodingDirection": "j-"}
    )
    write_image(bold.with_name(f"{RUN}_run-2_sbref.nii.gz"))
    write_image(bold.with_name("sub-01_task-nback_sbref.nii.gz"))
    run = found(root)[RUN]
    assert run.sbref == sbref and run.warnings == ()
    assert run.reads == (bold, sbref)
    # phase is no reference
    magnitude = sbref.rename(sbref.with_name(f"{RUN}_part-mag_sbref.nii.gz"))
    write_image(bold.with_name(f"{RUN}_part-phase_sbref.nii.gz"))
    assert found(root)[RUN].sbref == magnitude
    magnitude.unlink()
    assert found(root)[RUN].sbref is None
    write_image(sbref, sidecar={"PhaseEncodingDirection": "j-"})
    ignoring = found(root, ignore=("sbref",))[RUN]
    assert ignoring.sbref is None and ignoring.reads == (bold,)
    filters = root.parent / "filters.json"
    filters.write_text(json.dumps({"sbref": {"task": "nback"}}))
    assert found(root, bids_filter_file=filters)[RUN].sbref is None
    (root / ".bidsignore").write_text("*_task-rest_sbref*\n")
    assert found(root)[RUN].sbref is None


@pytest.mark.parametrize(
    ("shape", "sidecar", "said"),
    [
        ((10, 11, 13), {}, "has 10 × 11 × 13 voxels, and the run 10 × 11 × 12"),
        (HEAD, {"PhaseEncodingDirection": "j"}, "is j, and that of the run j-"),
    ],
)
def test_a_reference_that_does_not_fit_is_said(
    root: Path, shape: tuple[int, ...], sidecar: dict[str, str], said: str
) -> None:
    write_image(write_run(root).with_name(f"{RUN}_sbref.nii.gz"), shape, sidecar)
    run = found(root)[RUN]
    assert run.sbref is None and run.problem is None
    (warning,) = run.warnings
    assert warning.kind == "sbref_not_used" and said in warning.text


@pytest.mark.parametrize("content", [b"", b"no image", "cut", "no sidecar"])
def test_a_damaged_reference_stops_nothing(root: Path, content: bytes | str) -> None:
    sbref = write_image(write_run(root).with_name(f"{RUN}_sbref.nii.gz"))
    if content == "cut":
        noise = np.random.default_rng(0).bytes(10_000)
        sbref.write_bytes(gzip.compress(noise)[:5_000])
    elif isinstance(content, bytes):
        sbref.write_bytes(content)
    else:
        sbref.with_name(f"{RUN}_sbref.json").write_text("{broken")
    run = found(root)[RUN]
    assert run.sbref is None and run.problem is None
    (warning,) = run.warnings
    assert warning.kind == "sbref_not_used" and f"{RUN}_sbref" in warning.text
    assert "\n" not in warning.text
