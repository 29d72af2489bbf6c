"""The first node of a multi-echo run: one echo at a time in memory; errors name its file."""

from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from benchmarks.multi_echo import MultiEcho, simulate
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.derivatives.echoes import echo_fields, echo_warnings
from brainlm_bids.interfaces.echoes import RealignEchoes
from brainlm_bids.interfaces.images import load_image
from brainlm_bids.preproc import steps

TIMES = (0.014, 0.030, 0.046)


@pytest.fixture(scope="module")
def run() -> MultiEcho:
    return simulate(TIMES, shape=(24, 30, 16), n_volumes=24)


@pytest.fixture
def files(run: MultiEcho, tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"sub-01_task-rest_echo-{k}_bold.nii.gz" for k in (1, 2, 3)]
    for path, echo in zip(paths, run.echoes):
        nb.Nifti1Image(echo.round().astype(np.int16), run.affine).to_filename(path)
    return paths


def _node(files: list[Path], folder: Path, **values: Any) -> Any:
    folder.mkdir()
    paths = [str(path) for path in files]
    node = RealignEchoes(echoes=paths, echo_times=list(TIMES), dummy_scans=0, **values)
    return node.run(cwd=str(folder)).outputs


def test_the_node_does_what_the_step_does(
    run: MultiEcho, files: list[Path], tmp_path: Path
) -> None:
    outputs = _node(files, tmp_path / "node")
    rounded = (echo.round().astype(np.float32, order="F") for echo in run.echoes)
    expected = steps.realign_echoes(rounded, run.affine, TIMES, n_dummy=0)
    bold, affine = load_image(outputs.bold)
    assert np.allclose(affine, run.affine)
    assert np.abs(bold - expected.bold)[expected.brain_mask].max() < 1
    summary = payloads.load(steps.EchoSummary, outputs.combination)
    assert summary.t2star == pytest.approx(expected.summary.t2star, rel=1e-6)
    assert summary.plausible
    motion = payloads.load(steps.Motion, outputs.motion)
    assert np.allclose(motion.matrices, expected.motion.matrices, atol=1e-5)
    # what was put aside is gone
    assert {path.name.split(".")[0] for path in (tmp_path / "node").iterdir()} == {
        *("bold", "boldref", "brain_mask", "seen", "motion", "combination", "resources"),
    }
    fields = echo_fields(TIMES, summary)
    assert fields["EchoTimes"] == [0.014, 0.030, 0.046]
    assert fields["MedianT2star"] == pytest.approx(0.044, rel=0.05)
    assert sum(fields["SharesByEchoesWithSignal"]) == pytest.approx(1)
    assert not echo_warnings(summary)


def test_a_damaged_echo_is_named(files: list[Path], tmp_path: Path) -> None:
    files[1].write_bytes(files[1].read_bytes()[:-20000])
    with pytest.raises(UserError) as caught:
        _node(files, tmp_path / "node")
    assert str(caught.value).startswith(str(files[1]))
    assert str(caught.value).count(".nii.gz") == 1


def test_too_many_bad_volumes_name_the_flag(
    run: MultiEcho, files: list[Path], tmp_path: Path
) -> None:
    echo = run.echoes[2].astype(np.int16)
    echo[..., 3:12] = 0
    nb.Nifti1Image(echo, run.affine).to_filename(files[2])
    with pytest.raises(UserError, match=r"9 of 24 volumes cannot be used .* --max-bad-volumes"):
        _node(files, tmp_path / "node")


def test_echo_times_of_other_echoes_are_a_danger(files: list[Path], tmp_path: Path) -> None:
    """Sidecars that were exchanged: the signal grows with what they call the echo time."""
    outputs = _node(files[::-1], tmp_path / "node")
    summary = payloads.load(steps.EchoSummary, outputs.combination)
    (warning,) = echo_warnings(summary)
    assert (warning.kind, warning.level) == ("echo_times_suspect", "danger")
    assert "it does not fall" in warning.text
