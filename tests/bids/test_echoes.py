"""Echoes are one run with times that can be trusted, or none: each fault is one line."""

import doctest
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids.bids import echoes, inputs
from brainlm_bids.bids.events import find_events
from brainlm_bids.settings import Settings

TIMES = {1: 0.014, 2: 0.030, 3: 0.046}
STEM = "sub-01_task-rest"


def _image(path: Path, shape: tuple[int, ...] = (10, 10, 10, 30), shift: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([9.0, 9.0, 9.0, 1.0])
    affine[0, 3] = shift
    image = nb.Nifti1Image(np.zeros(shape, np.uint8), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((9.0, 9.0, 9.0, 2.0)[: len(shape)])
    image.to_filename(path)


def _path(root: Path, echo: object, part: str = "") -> Path:
    number = f"_echo-{echo}" if echo else ""
    return root / "sub-01" / "func" / f"{STEM}{number}{part}_bold.nii.gz"


def _sidecar(root: Path, echo: int, **values: Any) -> None:
    path = _path(root, echo)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(values))


def _set_time(root: Path, echo: int, value: Any) -> None:
    _sidecar(root, echo, **({} if value is None else {"EchoTime": value}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set with one run of three echoes."""
    folder = tmp_path / "bids"
    for echo, time in TIMES.items():
        _image(_path(folder, echo))
        _set_time(folder, echo, time)
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (folder / "task-rest_bold.json").write_text('{"RepetitionTime": 2.0, "TaskName": "rest"}')
    return folder


def _runs(root: Path, **values: Any) -> list[inputs.Run]:
    return inputs.find_runs(Settings(root, root.parent / "out", root.parent / "work", **values))


def _filtered(root: Path, **bold: Any) -> dict[str, Path]:
    path = root.parent / "filter.json"
    path.write_text(json.dumps({"bold": bold}))
    return {"bids_filter_file": path}


def test_doctests() -> None:
    assert doctest.testmod(echoes).failed == 0


@pytest.mark.parametrize("part", ["", "_part-mag"])
def test_echoes_are_one_run(root: Path, part: str) -> None:
    for echo in TIMES:
        if part:
            old, new = _path(root, echo), _path(root, echo, part)
            old.rename(new)
            sidecar = old.with_name(old.name.replace(".nii.gz", ".json"))
            sidecar.rename(new.with_name(new.name.replace(".nii.gz", ".json")))
            _image(_path(root, echo, "_part-phase"))
    runs = _runs(root)
    (run,) = [one for one in runs if not one.skip]
    assert (run.stem, run.problem, run.warnings[1:]) == (STEM, None, ())  # the first: no T1w
    assert [path.name for path in run.echoes] == [
        f"{STEM}_echo-{echo}{part}_bold.nii.gz" for echo in TIMES
    ]
    assert run.echo_times == (0.014, 0.030, 0.046)
    assert run.source == run.echoes[0]
    assert set(run.echoes) <= set(run.reads)
    assert run.metadata["EchoTime"] == 0.014
    phases = [one.skip or "" for one in runs if one.skip]
    assert len(phases) == (3 if part else 0)
    assert all("is the phase part of a complex image" in text for text in phases)


def test_a_combined_image_is_used_in_place_of_its_echoes(root: Path) -> None:
    _image(_path(root, ""))
    runs = {one.source.name: one for one in _runs(root)}
    assert runs.pop(f"{STEM}_bold.nii.gz").skip is None
    assert len(runs) == 3
    assert all(f"is a part of {STEM}, which is used" in (one.skip or "") for one in runs.values())


def test_a_magnitude_alone_loses_its_part(root: Path) -> None:
    for part in ("_part-mag", "_part-phase"):
        _image(root / f"sub-02/func/sub-02_task-rest{part}_bold.nii.gz")
    runs = {one.source.name: one for one in _runs(root) if one.subject == "02"}
    assert runs["sub-02_task-rest_part-mag_bold.nii.gz"].stem == "sub-02_task-rest"
    assert runs["sub-02_task-rest_part-mag_bold.nii.gz"].problem is None
    assert "is a part of sub-02_task-rest" in runs["sub-02_task-rest_part-phase_bold.nii.gz"].skip


def test_one_echo_twice(root: Path) -> None:
    _image(_path(root, 2, "_part-mag"))
    runs = _runs(root)
    (run,) = [one for one in runs if not one.skip]
    assert len(run.echoes) == 3
    (other,) = [one for one in runs if one.skip]
    assert other.skip.endswith(f"is a part of {STEM}_echo-2, which is used")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda root: _set_time(root, 2, None), "echo-2_bold.nii.gz: no EchoTime in its"),
    "milliseconds": (
        lambda root: _set_time(root, 3, 46),
        "echo-3_bold.nii.gz: EchoTime 46 in its sidecars is no echo time in s; 46 ms are 0.046 s",
    ),
    "a word": (lambda root: _set_time(root, 1, "0.014"), "EchoTime '0.014' in its sidecars is no"),
    "not finite": (lambda root: _set_time(root, 1, float("nan")), "EchoTime nan in its sidecars"),
    "equal": (
        lambda root: _set_time(root, 3, 0.030),
        "echo-2_bold.nii.gz and sub-01_task-rest_echo-3_bold.nii.gz: both have the EchoTime 0.03 s",
    ),
    "volumes": (
        lambda root: _image(_path(root, 2), (10, 10, 10, 28)),
        "echo-2_bold.nii.gz: has 28 volumes, and sub-01_task-rest_echo-1_bold.nii.gz 30",
    ),
    "grid": (lambda root: _image(_path(root, 3), (10, 10, 9, 30)), "echo-3_bold.nii.gz: is on ano"),
    "place": (lambda root: _image(_path(root, 3), shift=3.0), "echo-3_bold.nii.gz: is on another"),
    "one volume": (lambda root: _image(_path(root, 2), (10, 10, 10)), "echo-2_bold.nii.gz: is 3-D"),
    "damaged": (lambda root: _cut(_path(root, 2)), "echo-2_bold.nii.gz: cannot be read as an im"),
    "empty": (lambda root: _path(root, 2).write_bytes(b""), "echo-2_bold.nii.gz: "),
    "another TR": (
        lambda root: _sidecar(root, 2, EchoTime=0.03, RepetitionTime=3.0),
        "echo-2_bold.nii.gz: RepetitionTime is 3 s, and that of sub-01_task-rest_echo-1",
    ),
}


@pytest.mark.parametrize(("spoil", "says"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_one_echo_is_one_line(
    root: Path, spoil: Callable[[Path], Any], says: str
) -> None:
    """Its run fails, the others go on, and the line says how to go on without that echo."""
    spoil(root)
    _image(root / "sub-02/func/sub-02_task-rest_bold.nii.gz")
    run, other = _runs(root)
    assert run.problem is not None
    assert says in run.problem
    assert "\n" not in run.problem
    assert run.problem.endswith('such as {"bold": {"echo": [1, 2]}}')
    assert (run.stem, other.problem) == (STEM, None)


def test_the_rest_of_the_echoes_on_request(root: Path) -> None:
    _cut(_path(root, 1))
    (run,) = _runs(root, **_filtered(root, echo=[2, 3]))
    assert (run.problem, run.stem, run.echo_times) == (None, STEM, (0.030, 0.046))
    kinds = [one.kind for one in run.warnings]
    assert {"missing_echoes", "two_echoes"} <= set(kinds)
    assert any("combined without echo 1, not in the selection" in str(one) for one in run.warnings)


def test_one_echo_on_request_keeps_its_number(root: Path) -> None:
    (run,) = _runs(root, **_filtered(root, echo=2))
    assert (run.problem, run.stem, run.echoes) == (None, f"{STEM}_echo-2", ())
    assert "only echo 2 of a multi-echo run" in run.warnings[0].text
    (root / "sub-01/func" / f"{STEM}_events.tsv").write_text("onset\tduration\n")
    assert find_events(run.stem, root) is not None


def test_echoes_are_put_in_the_order_of_their_times(root: Path) -> None:
    _set_time(root, 1, 0.046)
    _set_time(root, 3, 0.014)
    (run,) = _runs(root)
    assert [path.name for path in run.echoes] == [
        f"{STEM}_echo-{echo}_bold.nii.gz" for echo in (3, 2, 1)
    ]
    assert run.echo_times == (0.014, 0.030, 0.046)
    assert "echo_order" in [one.kind for one in run.warnings]


def test_ten_echoes_are_in_the_order_of_their_numbers(root: Path) -> None:
    for echo in range(1, 12):
        _image(_path(root, echo))
        _set_time(root, echo, 0.005 * echo)
    (run,) = _runs(root)
    assert len(run.echoes) == 11
    assert not [one for one in run.warnings if one.kind in ("echo_order", "missing_echoes")]


def test_short_echoes_are_skipped(root: Path) -> None:
    for echo in TIMES:
        _image(_path(root, echo), (10, 10, 10, 12))
    (run,) = _runs(root)
    assert run.problem is None
    assert "12 volumes, fewer than 20" in (run.skip or "")
