"""What a call imports before there is something to compute: a cluster starts thousands of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids.app.planning import make_plan
from brainlm_bids.app.resources import find_resources
from brainlm_bids.bids.inputs import find_runs
from brainlm_bids.bids.outputs import write_record
from brainlm_bids.commands import bids_app
from brainlm_bids.resources.atlas import approximate_atlas
from brainlm_bids.resources.images import MNI_2MM_AFFINE
from brainlm_bids.resources.packaged import embedded_template
from brainlm_bids.settings import Settings

HEAVY = ("torch", "nipype", "nilearn", "sklearn", "pandas", "matplotlib", "bids", "ants", "h5py")
SCRIPT = """
import sys
from brainlm_bids.commands.bids_app import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
heavy = [name for name in {heavy!r} if name in sys.modules]
print("heavy:", *heavy)
sys.exit(code)
"""


def _start(*words: str, home: Path) -> tuple[list[str], str]:
    """Run the command in a process of its own; (heavy modules that it imported, standard error)."""
    environment = {**os.environ, "TEMPLATEFLOW_HOME": str(home), "BRAINLM_BIDS_HOME": str(home)}
    command = [sys.executable, "-c", SCRIPT.format(heavy=HEAVY), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:], done.stderr


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_nothing_heavy_is_imported_to_tell_about_the_program(word: str, tmp_path: Path) -> None:
    assert _start(word, home=tmp_path)[0] == []


def _saved(path: Path, data: np.ndarray, affine: np.ndarray, tr: float | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nb.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    image.to_filename(path)
    return path


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A call about a data set of two runs, with an atlas and a template that are files."""
    root, templates = tmp_path / "bids", tmp_path / "tpl-MNI152NLin6Asym"
    affine = np.diag([9.0, 9.0, 9.0, 1.0])
    for subject in ("sub-01", "sub-02"):
        bold = root / subject / "func" / f"{subject}_task-rest_bold.nii.gz"
        _saved(bold, np.zeros((20, 20, 20, 30), np.uint8), affine, 2.0)
        _saved(root / subject / "anat" / f"{subject}_T1w.nii", np.zeros((20,) * 3, "i2"), affine)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (root / "bold.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    t1w, mask, place = embedded_template()
    stem = "tpl-MNI152NLin6Asym_res-02"
    _saved(templates / f"{stem}_T1w.nii.gz", t1w, place)
    _saved(templates / f"{stem}_desc-brain_mask.nii.gz", mask.astype(np.uint8), place)
    atlas = _saved(tmp_path / "atlas.nii.gz", approximate_atlas()[0], MNI_2MM_AFFINE)
    call = [str(root), str(tmp_path / "out"), "participant", "--model", "none", "--offline"]
    return [*call, "--atlas", str(atlas), "-w", str(tmp_path / "work"), "--nprocs", "1"]


def test_nothing_heavy_is_imported_to_plan_or_to_find_all_complete(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a dry run, or with every stage complete, there is nothing to compute."""
    assert _start(*words, "--dry-run", home=tmp_path)[0] == []
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("BRAINLM_BIDS_HOME", str(tmp_path))
    _complete(bids_app.parse(words))
    _start(*words, home=tmp_path)  # writes pages
    for _ in range(2):  # methods text and index are written again
        heavy, told = _start(*words, home=tmp_path)
        assert heavy == []
        assert "2 cached" in told


def _complete(settings: Settings) -> None:
    """Write the records of all runs, as if they had been computed."""
    resources = find_resources(settings)
    for run in find_runs(settings):
        series = make_plan(settings, run, resources).stages.series
        write_record(settings.output_dir, *series.stage, series.configuration, [])
