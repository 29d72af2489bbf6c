"""What is done about a run's distortion is told before, and recorded for each way in."""

import json
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids.app.context import distortion_info
from brainlm_bids.app.plan import run_inputs
from brainlm_bids.app.resources import Resources, find_resources
from brainlm_bids.bids import inputs
from brainlm_bids.bids.distortion import in_one_line
from brainlm_bids.bids.fmriprep import FMRIPREP
from brainlm_bids.bids.preprocessed import Preprocessed
from brainlm_bids.bids.runs import Run
from brainlm_bids.commands import bids_app as cli
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings

HEAD = (10, 11, 12)
RUN = {
    "RepetitionTime": 2.0,
    "TaskName": "rest",
    "PhaseEncodingDirection": "j-",
    "TotalReadoutTime": 0.05,
}
TIMES = {
    "EchoTime1": 0.00492,
    "EchoTime2": 0.00738,
    "IntendedFor": "bids::sub-01/func/sub-01_task-rest_bold.nii.gz",
}


def _write(path: Path, sidecar: Any = None, *, volumes: int = 0, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*HEAD, volumes) if volumes else HEAD
    image = nb.Nifti1Image(np.full(shape, value, np.uint8), np.diag([9.0, 9.0, 9.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    if volumes:
        image.header.set_zooms((9.0, 9.0, 9.0, 2.0))
    image.to_filename(path)
    if sidecar is not None:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run with a phase difference and a single-band reference, and one of another subject."""
    folder = tmp_path / "bids"
    folder.mkdir()
    (folder / "dataset_description.json").write_text('{"Name": "a", "BIDSVersion": "1.10.0"}')
    for label in ("01", "02"):
        func = folder / f"sub-{label}" / "func"
        _write(func / f"sub-{label}_task-rest_bold.nii.gz", RUN, volumes=30)
    _write(folder / "sub-01/func/sub-01_task-rest_sbref.nii.gz")
    _write(folder / "sub-01/fmap/sub-01_phasediff.nii.gz", TIMES)
    _write(folder / "sub-01/fmap/sub-01_magnitude1.nii.gz")
    return folder


def _settings(root: Path, **values: Any) -> Settings:
    work = {"model": ("none",), "atlas": "A424approx", "offline": True}
    return Settings(root, root.parent / "out", root.parent / "work", **work, **values)


def test_a_dry_run_tells_the_correction_of_each_run(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = root.parent / "out"
    arguments = [str(root), str(out), "participant", "--model", "none", "--atlas", "A424approx"]
    arguments += ["--offline", "--dry-run", "-w", str(root.parent / "work")]
    assert cli.main(arguments) == 0
    head, *lines = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    rows = [dict(zip(*(filter(None, one) for one in (head, line)))) for line in lines]
    rows = [{key.strip(): cell.strip() for key, cell in row.items()} for row in rows]
    assert {row["file"]: (row["to_do"], row["field_map"], row["note"]) for row in rows} == {
        "sub-01/func/sub-01_task-rest_bold.nii.gz": (
            "series",
            "phase difference",
            "distortion correction: phase difference: sub-01_phasediff.nii.gz",
        ),
        "sub-02/func/sub-02_task-rest_bold.nii.gz": (
            "series",
            "none",
            "distortion correction: none: the data set has no field map of the subject",
        ),
    }
    assert cli.main([*arguments, "--ignore", "fieldmaps", "sbref"]) == 0
    assert "none: --ignore fieldmaps\n" in capsys.readouterr().out


def test_the_record_of_a_raw_run(root: Path) -> None:
    with_map, without = inputs.find_runs(_settings(root))
    assert distortion_info(with_map).sidecar({"MaximumShift": 3.2}) == {
        "Method": "phase difference",
        "FieldMap": [
            "bids:raw:sub-01/fmap/sub-01_phasediff.nii.gz",
            "bids:raw:sub-01/fmap/sub-01_magnitude1.nii.gz",
        ],
        "PhaseEncodingDirection": "j-",
        "TotalReadoutTime": 0.05,
        "MaximumShift": 3.2,
    }
    assert distortion_info(without).sidecar() == {
        "Method": "none",
        "PhaseEncodingDirection": "j-",
        "TotalReadoutTime": 0.05,
        "Reason": "the data set has no field map of the subject",
    }
    refused = distortion_info(with_map).refused("it does not fit")
    assert not refused.corrects and "none: it does not fit" in str(refused)


def test_a_direction_without_a_readout_time_is_recorded(root: Path) -> None:
    sidecar = {key: value for key, value in RUN.items() if key != "TotalReadoutTime"}
    _write(root / "sub-01/func/sub-01_task-rest_bold.nii.gz", sidecar, volumes=30)
    info = distortion_info(inputs.find_runs(_settings(root))[0])
    assert (info.direction, info.readout) == ("j-", None)
    assert "no TotalReadoutTime" in str(info)


def _with_t1w(root: Path, sidecar: dict[str, Any]) -> Run:
    """The run without a field map, with a T1w image."""
    _write(root / "sub-02/anat/sub-02_T1w.nii.gz")
    _write(root / "sub-02/func/sub-02_task-rest_bold.nii.gz", sidecar, volumes=30)
    return inputs.find_runs(_settings(root))[1]


def test_without_a_field_map_the_distortion_is_estimated_if_asked_for(root: Path) -> None:
    run = _with_t1w(root, RUN)
    assert not distortion_info(run).corrects
    info = distortion_info(run, "error")
    assert info.corrects and info.estimated
    assert info.sidecar()["Method"] == "estimated from the T1w image"
    with_map = inputs.find_runs(_settings(root))[0]
    assert str(distortion_info(with_map, "error")).startswith("phase difference")
    # neither polarity nor read-out time is needed
    axis_alone = {"RepetitionTime": 2.0, "TaskName": "rest", "PhaseEncodingAxis": "j"}
    assert distortion_info(_with_t1w(root, axis_alone), "error").estimated


def test_where_nothing_can_be_estimated_a_run_fails_or_goes_on(root: Path) -> None:
    no_t1w = inputs.find_runs(_settings(root))[1]
    nameless = _with_t1w(root, {"RepetitionTime": 2.0, "TaskName": "rest"})
    for run, obstacle in ((no_t1w, "no T1w image"), (nameless, "no PhaseEncodingDirection")):
        with pytest.raises(UserError, match=rf"bold.nii.gz: --use-syn-sdc: .*{obstacle}.*warn"):
            distortion_info(run, "error")
        info = distortion_info(run, "warn")
        assert not info.corrects and obstacle in str(info)


def test_the_axis_of_an_estimate_makes_a_run_new(root: Path, resources: Resources) -> None:
    def values(run: Run, use_syn_sdc: str | None) -> dict[str, object]:
        return run_inputs(_settings(root, use_syn_sdc=use_syn_sdc), run, resources)

    sidecar = {key: value for key, value in RUN.items() if key != "TotalReadoutTime"}
    run = _with_t1w(root, sidecar)
    assert values(run, "warn") == values(run, "error") != values(run, None)
    other = _with_t1w(root, sidecar | {"PhaseEncodingDirection": "i"})
    assert values(other, "warn") != values(run, "warn")
    with_map = inputs.find_runs(_settings(root))[0]
    assert values(with_map, "warn") == values(with_map, None)


def test_what_is_not_known_is_not_claimed(tmp_path: Path) -> None:
    given = Run(tmp_path / "a.tsv", tmp_path, {"RepetitionTime": 2.0}, timeseries=True)
    assert str(distortion_info(given)) == "unknown: a parcel series that was given"
    assert in_one_line({}) == ""  # an older version's sidecar


def _of_fmriprep(root: Path, sources: Any = None) -> str:
    bold = root / "sub-01/func/sub-01_task-rest_space-T1w_desc-preproc_bold.nii.gz"
    bold.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"RepetitionTime": 2.0} | ({} if sources is None else {"Sources": sources})
    files = Preprocessed(FMRIPREP, "sub-01_task-rest", bold, "T1w", bold.with_name("confounds.tsv"))
    return str(distortion_info(Run(bold, root, metadata, preprocessed=files)))


def test_fmriprep_is_believed_where_its_files_tell_it(tmp_path: Path) -> None:
    func = tmp_path / "sub-01/func"
    unknown = "unknown: fMRIPrep's files beside the run do not tell it"
    assert _of_fmriprep(tmp_path) == unknown
    # neither the registration to the T1w nor another run's transform tells it
    (func / "sub-01_task-rest_from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt").write_text("")
    (func / "sub-01_task-rest_run-2_from-boldref_to-auto00000_mode-image_xfm.txt").write_text("")
    assert _of_fmriprep(tmp_path, ["bids:raw:sub-01/func/a_bold.nii.gz"]) == unknown
    used = "bids:raw:sub-01/fmap/sub-01_dir-AP_epi.nii.gz"
    assert _of_fmriprep(tmp_path, [used]) == "by fMRIPrep: sub-01_dir-AP_epi.nii.gz"
    name = "sub-01_task-rest_from-boldref_to-auto00000_mode-image_xfm.txt"
    (func / name).write_text("")
    assert _of_fmriprep(tmp_path) == f"by fMRIPrep: {name}"


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Resources:
    return find_resources(_settings(tmp_path_factory.mktemp("a") / "bids"))


@pytest.mark.parametrize(
    "name",
    ["fmap/sub-01_phasediff", "fmap/sub-01_magnitude1", "func/sub-01_task-rest_sbref"],
)
def test_a_changed_image_makes_a_run_new(root: Path, resources: Resources, name: str) -> None:
    settings = _settings(root)

    def keys() -> list[dict[str, object]]:
        return [run_inputs(settings, run, resources) for run in inputs.find_runs(settings)]

    before = keys()
    assert keys() == before
    _write(root / f"sub-01/{name}.nii.gz", value=1)
    after = keys()
    assert after[0] != before[0] and after[1] == before[1]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("fmap/sub-01_phasediff", TIMES | {"EchoTime2": 0.008}),
        ("func/sub-01_task-rest_bold", RUN | {"TotalReadoutTime": 0.06}),
        ("func/sub-01_task-rest_bold", RUN | {"PhaseEncodingDirection": "j"}),
    ],
)
def test_a_changed_sidecar_makes_a_run_new(
    root: Path, resources: Resources, name: str, values: dict[str, Any]
) -> None:
    settings = _settings(root)
    before = run_inputs(settings, inputs.find_runs(settings)[0], resources)
    (root / f"sub-01/{name}.json").write_text(json.dumps(values))
    after = run_inputs(settings, inputs.find_runs(settings)[0], resources)
    assert after != before
