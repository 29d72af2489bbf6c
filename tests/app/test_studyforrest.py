"""The main job on a real person's scan: files, motion, and biology that is known in advance."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from studyforrest_task import STEM, VISUAL, t_of_the_task

from brainlm_bids import resources
from brainlm_bids.files import read_tsv

SPACE = f"{STEM}_space-MNI152NLin6Asym_atlas-A424"
MODELS = ("brainlmtiny", "vitmaetinyp16")
pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def func(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The derivatives of sub-02's run by both golden models in one call."""
    folder = tmp_path_factory.mktemp("studyforrest")
    shutil.copytree(shared / "templateflow", folder / "templateflow")
    command = [
        sys.executable,
        "-m",
        "brainlm_bids",
        str(shared / "data" / "studyforrest"),
    ]
    command += [str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "2"]
    command += ["--atlas", str(shared / "atlas" / "A424+2mm.nii.gz"), "--model"]
    command += [str(shared / "golden" / name) for name in ("brainlm_tiny", "vitmae_tiny_p16")]
    environment = {"TEMPLATEFLOW_HOME": str(folder / "templateflow"), "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out" / "sub-02" / "func"


def test_every_promised_file_is_there(func: Path) -> None:
    plain = ("desc-confounds_timeseries", "desc-aroma_mixing", "desc-aroma_metrics")
    tables = [f"{STEM}_{name}" for name in plain]
    tables += [f"{SPACE}_desc-{name}_timeseries" for name in ("denoised", "robust")]
    tables += [f"{SPACE}_stat-pearsoncorrelation_relmat", f"{SPACE}_desc-coverage_metrics"]
    for model in MODELS:
        names = ("windows_embeddings", "recording_embeddings", "reconstruction_timeseries")
        names += ("reconstruction_metrics", "parcels_metrics")
        tables += [f"{SPACE}_model-{model}_desc-{name}" for name in names]
        assert (func / f"{SPACE}_model-{model}_desc-networks_dseg.nii.gz").is_file()
    missing = [n for n in tables for e in (".tsv", ".json") if not (func / f"{n}{e}").is_file()]
    assert missing == []
    out = func.parents[1]
    assert (out / "sub-02.html").is_file()
    assert list((out / "logs").glob("*_status.tsv"))


def test_the_visual_task_is_seen_in_visual_parcels(func: Path, shared: Path) -> None:
    names, series = read_tsv(func / f"{SPACE}_desc-denoised_timeseries.tsv")
    assert tuple(names) == resources.parcels().names
    t = t_of_the_task(series, shared)
    strongest = np.argsort(-np.abs(np.nan_to_num(t)))[:20]
    visual = resources.parcels().network_index[strongest] == VISUAL
    assert visual.sum() >= 18
    # a plain chain of library calls reaches 15.5
    assert np.nanmax(t) > 15.5


def test_the_head_moved_as_little_as_another_tool_found(func: Path) -> None:
    sidecar = json.loads((func / f"{STEM}_desc-confounds_timeseries.json").read_text())
    # 0.27 mm and 0.41 degrees by an independent tool
    assert sidecar["MaximumTranslation"] < 0.45
    assert sidecar["MaximumRotation"] < 0.5
    assert sidecar["DummyVolumes"] == 0


def test_embeddings_have_a_row_per_window_of_the_resampled_run(func: Path) -> None:
    for model, width in zip(MODELS, (16, 32), strict=True):
        names, table = read_tsv(func / f"{SPACE}_model-{model}_desc-windows_embeddings.tsv")
        assert names[:3] == ["onset", "duration", "cls_0000"]
        assert len(names) == 2 + width
        # 156 volumes of 2 s are 422 of 0.735 s: two windows of 200 and a right-aligned one
        np.testing.assert_allclose(table[:, 0], [0, 200 * 0.735, 222 * 0.735], rtol=1e-6)
        assert np.isfinite(table).all()


def test_the_scale_is_that_of_the_training_data(func: Path) -> None:
    sidecar = json.loads((func / f"{SPACE}_desc-robust_timeseries.json").read_text())
    assert 41.44 / 2 < sidecar["StandardDeviationDemeaned"] < 41.44 * 2
    assert 0.6 < sidecar["StandardDeviationRobust"] < 1.0


def test_networks_are_painted_on_the_atlas(func: Path, shared: Path) -> None:
    atlas = np.asarray(nb.load(shared / "atlas" / "A424+2mm.nii.gz").dataobj).astype(int)
    for model in MODELS:
        image = nb.load(func / f"{SPACE}_model-{model}_desc-networks_dseg.nii.gz")
        painted = np.asarray(image.dataobj)
        assert set(np.unique(painted[atlas > 0])) <= set(range(1, 8))
        assert not painted[atlas == 0].any()
