"""Recordings in files: what is read, and what is refused in one line."""

from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from brainlm_bids import BrainLM, resources

NAMES = list(resources.parcels().names)


@pytest.fixture(scope="module")
def model() -> BrainLM:
    return BrainLM.from_pretrained("random:tiny", device="cpu")


@pytest.fixture
def series() -> np.ndarray:
    return np.random.default_rng(3).normal(100, 1, size=(60, 424))


def test_a_file_and_its_sidecar(model: BrainLM, series: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "sub-01_task-rest_timeseries.tsv"
    pd.DataFrame(series, columns=NAMES).to_csv(path, sep="\t", index=False)
    with pytest.raises(ValueError, match="not recorded"):
        model.embed(path)
    path.with_suffix(".json").write_text('{"RepetitionTime": 0.735}')
    out = model.embed(path)
    np.testing.assert_allclose(out.recording, model.embed(series, tr=0.735).recording, atol=1e-6)
    assert out.provenance["source"] == path.name
    assert not any("0.735" in note for note in out.provenance["notes"])
    other = model.embed(path, tr=0.8).provenance
    assert other["source_repetition_time"] == 0.8
    assert any("is 0.735 s; the 0.8 s of tr= are used" in note for note in other["notes"])
    with pytest.raises(ValueError, match=r"tr=0\.01; expected at least 0\.05 seconds"):
        model.embed(path, tr=0.01)


def test_a_cifti_parcel_series(model: BrainLM, series: np.ndarray, tmp_path: Path) -> None:
    parcels = nb.cifti2.ParcelsAxis(
        [f"{name}_ROI" for name in NAMES],
        [[] for _ in NAMES],
        [{"CIFTI_STRUCTURE_CORTEX_LEFT": np.array([k])} for k in range(424)],
        np.eye(4),
        (2, 2, 2),
        {"CIFTI_STRUCTURE_CORTEX_LEFT": 424},
    )
    image = nb.Cifti2Image(series, header=(nb.cifti2.SeriesAxis(0, 0.735, 60), parcels))
    path = tmp_path / "sub-01_task-rest_atlas-A424.ptseries.nii"
    image.to_filename(path)
    expected = model.embed(series, tr=0.735).recording
    np.testing.assert_allclose(model.embed(path).recording, expected, atol=1e-4)
    with pytest.raises(ValueError, match="wb_command -cifti-parcellate"):
        model.embed(tmp_path / "sub-01_bold.dtseries.nii")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", b"", "empty"),
        ("a.tsv", b"\xff\xfe\x00", "damaged UTF-16 text"),
        ("a.csv", b"5,2\n3\n", "cannot be read"),
        ("a.npy", b"\x93NUMPY", "cannot be read"),
        ("a.ptseries.nii", b"no image", "cannot be read"),
        ("a.mat", b"", "expected one of .tsv"),
        ("a.dat", b"7 2 3\n4 5 6\n", r"\(2, 3\)"),
    ],
)
def test_damaged_files_are_refused(
    model: BrainLM, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        model.embed(path, tr=0.735)
    text = str(refused.value)
    assert name in text and "\n" not in text and "--timeseries" not in text


def test_a_sidecar_in_milliseconds(model: BrainLM, series: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, series)
    path.with_suffix(".json").write_text('{"RepetitionTime": 735}')
    with pytest.raises(ValueError, match=r"sidecar has a repetition time of 735.*0\.735"):
        model.embed(path)
    assert model.embed(path, tr=0.735).provenance["repetition_time"] == 0.735
