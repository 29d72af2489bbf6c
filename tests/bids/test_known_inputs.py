"""A call that resumes reads no image, and still notices every change of one."""

import gzip
import json
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids.app.planning import make_plan
from brainlm_bids.app.resources import find_resources
from brainlm_bids.bids import known_inputs
from brainlm_bids.bids.inputs import find_runs
from brainlm_bids.bids.known_inputs import Identity, Known, KnownInputs
from brainlm_bids.bids.outputs import record_path, write_record
from brainlm_bids.bids.runs import Run
from brainlm_bids.bids.source_files import Head, SourceFiles
from brainlm_bids.commands import bids_app
from brainlm_bids.settings import Settings

STEM = "sub-01_task-rest"
BOLD, T1W = f"sub-01/func/{STEM}_bold.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz"
_OPENED: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _OPENED is not None:
        _OPENED.append(str(arguments[0]))


sys.addaudithook(_hook)  # for the life of the process: it cannot be taken away


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are opened from now on."""
    found: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "_OPENED", found)
    return found


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files were written a minute before they are looked at."""
    clock = SimpleNamespace(time_ns=lambda: time.time_ns() + 60 * 10**9)
    monkeypatch.setattr(known_inputs, "time", clock)


def _image(path: Path, shape: tuple[int, ...], value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nb.Nifti1Image(np.full(shape, value, np.uint8), np.diag([9.0, 9.0, 9.0, 1.0]))
    if len(shape) == 4:
        image.header.set_zooms((9.0, 9.0, 9.0, 2.0))
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(path)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "bids"
    _image(root / BOLD, (20, 20, 20, 30))
    _image(root / f"sub-01/func/{STEM}_sbref.nii.gz", (20, 20, 20))
    _image(root / T1W, (20, 20, 20))
    description = {"Name": "x", "BIDSVersion": "1.10.0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / "task-rest_bold.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    return Settings(
        root,
        tmp_path / "out",
        tmp_path / "work",
        model=("none",),
        atlas="A424approx",
        template="MNI152NLin2009aSym",
        offline=True,
    )


def _records(settings: Settings, **values: bool) -> KnownInputs:
    return KnownInputs(settings.output_dir, {"raw": settings.bids_dir}, **values)


def _planned(settings: Settings, **values: bool) -> tuple[Run, str, bool]:
    """Plan the run as a call does; (run, configuration, whether its series are complete)."""
    sources = SourceFiles(_records(settings, **values))
    (run,) = find_runs(settings, sources)
    series = make_plan(settings, run, find_resources(settings), sources).stages.series
    sources.note(run.stem, run.inputs)
    return run, series.configuration, series.complete


def _complete(settings: Settings) -> tuple[Run, str]:
    run, configuration, _ = _planned(settings)
    out = settings.output_dir / "sub-01" / "func" / "series.tsv"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("x\n")
    write_record(settings.output_dir, STEM, "series", configuration, [out])
    return run, configuration


@pytest.mark.usefixtures("later")
def test_what_is_recorded_is_not_read_again(settings: Settings, opened: list[str]) -> None:
    run, configuration = _complete(settings)
    assert any(path.endswith(".nii.gz") for path in opened)
    opened.clear()
    again, same, complete = _planned(settings)
    assert (same, complete) == (configuration, True)
    assert again == run  # the same warnings, T1w image, reference
    assert [path for path in opened if ".nii" in path] == []


@pytest.mark.usefixtures("later")
def test_a_whole_call_reads_no_image(
    settings: Settings, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _complete(settings)
    words = [str(settings.bids_dir), str(settings.output_dir), "participant", "--offline"]
    words += ["-w", str(settings.work_dir), "--model", "none", "--atlas", "A424approx"]
    words += ["--template", "MNI152NLin2009aSym", "--nprocs", "1"]
    opened.clear()
    assert bids_app.main(words) == 0
    assert "1 cached" in capsys.readouterr().err
    raw = str(settings.bids_dir)
    assert [path for path in opened if path.startswith(raw) and ".nii" in path] == []
    assert bids_app.main([*words, "--verify-inputs"]) == 0
    assert {Path(path).name for path in opened if path.startswith(raw) and ".nii" in path} == {
        Path(name).name for name in (BOLD, T1W, f"{STEM}_sbref.nii.gz")
    }


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("name", [BOLD, T1W])
def test_a_content_of_the_same_size_and_time_is_noticed(settings: Settings, name: str) -> None:
    """As `rsync --inplace -t` and `touch -r` leave it: the time of change betrays it."""
    _, configuration = _complete(settings)
    path = settings.bids_dir / name
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[4] ^= 1  # the time in the header of gzip, which no reader looks at
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    _, other, complete = _planned(settings)
    assert other != configuration
    assert not complete


@pytest.mark.usefixtures("later")
def test_a_copy_is_read_once_and_not_computed_again(settings: Settings, opened: list[str]) -> None:
    _, configuration = _complete(settings)
    path = settings.bids_dir / BOLD
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    copy.replace(path)  # the same content, size and time, and another number on the disk
    opened.clear()
    assert _planned(settings)[1:] == (configuration, True)
    assert str(path) in opened
    opened.clear()
    assert _planned(settings)[1:] == (configuration, True)
    assert str(path) not in opened


def test_times_that_are_not_older_than_the_look_prove_nothing(
    settings: Settings, opened: list[str]
) -> None:
    _, configuration = _complete(settings)  # files that were written just now
    opened.clear()
    assert _planned(settings)[1:] == (configuration, True)
    assert str(settings.bids_dir / BOLD) in opened


@pytest.mark.parametrize("ahead", [0, 3600])
def test_files_of_a_clock_that_is_ahead_are_read(ahead: int) -> None:
    now = Identity(10, 10**18 + ahead * 10**9, 10**18, 7)
    assert not Known(now, 10**18, "").vouches_for(now)
    assert Known(now, now.modified + known_inputs.RESOLUTION_NS + 1, "").vouches_for(now)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"Files": 3}',
        '{"Files": {"bids:raw:a": {"Size": 1}}}',
        '{"Files": {"bids:x:a": 1}}',
    ],
)
def test_a_damaged_record_counts_as_none(settings: Settings, text: str) -> None:
    _, configuration = _complete(settings)
    record_path(settings.output_dir, STEM, known_inputs.RECORD).write_text(text)
    assert _planned(settings)[1:] == (configuration, True)


@pytest.mark.usefixtures("later")
def test_verify_inputs_finds_what_the_disk_has_changed(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A record of another checksum stands for a content that has changed without a trace."""
    _, configuration = _complete(settings)
    path = record_path(settings.output_dir, STEM, known_inputs.RECORD)
    record = json.loads(path.read_text())
    record["Files"][f"bids:raw:{BOLD}"]["SHA256"] = "0" * 64
    path.write_text(json.dumps(record))
    assert not _planned(settings)[2]  # believed
    assert not caplog.records
    assert _planned(settings, verify=True)[1:] == (configuration, True)
    assert "its content is not what it was, although its size and times are" in caplog.text
    caplog.clear()
    assert _planned(settings)[1:] == (configuration, True)
    assert not caplog.records


@pytest.mark.usefixtures("later")
def test_a_recorded_header_is_that_of_the_file(settings: Settings) -> None:
    path = settings.bids_dir / BOLD
    sources = SourceFiles(_records(settings))
    sources.sha256(path)
    sources.note(STEM, [path])
    again = SourceFiles(_records(settings))
    again.recall(STEM)
    assert again.knows(path)
    head, image = again.head(path), nb.load(path)
    assert isinstance(head, Head)
    assert head.shape == image.shape
    np.testing.assert_array_equal(head.affine, image.affine)
    with gzip.open(path) as file:
        assert head.header == nb.Nifti1Header.from_fileobj(file)
    assert head.least_bytes == 352 + np.prod(image.shape)


def test_a_file_that_has_vanished_is_not_known(settings: Settings) -> None:
    _complete(settings)
    (settings.bids_dir / BOLD).unlink()
    sources = SourceFiles(_records(settings))
    sources.recall(STEM)
    assert not sources.knows(settings.bids_dir / BOLD)
