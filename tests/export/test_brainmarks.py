"""Brainmarks' own evaluation runs on an export: it finds what was planted, and not what was not."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulated_cohort import simulated_series, write_recording

from brainlm_bids.commands.brainlm import main
from brainlm_bids.files import read_rows

# Without its other dependencies: they bring cloud storage, surfaces and setuptools < 67.
PACKAGES = (
    *("brainmarks==0.1.1", "omegaconf==2.3.0", "antlr4-python3-runtime==4.9.3"),
    *("cloudpathlib==0.23.0", "tabulate==0.9.0"),
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own beside ours, from which it takes torch and scikit-learn."""
    folder = tmp_path_factory.mktemp("brainmarks")
    venv.create(folder, with_pip=False)
    ours = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    theirs = folder / "lib" / ours.parent.name / "site-packages"
    (theirs / "ours.pth").write_text("\n".join(p for p in sys.path if p.endswith("-packages")))
    call = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(theirs)]
    made = subprocess.run([*call, *PACKAGES], capture_output=True, text=True, timeout=300)
    if made.returncode:
        pytest.skip(f"brainmarks cannot be installed here: {made.stderr.strip()[-300:]}")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty people; the default mode network of every second one is stronger."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    for k in range(30):
        series = simulated_series(rng, (0.2, 2.0)[k % 2])
        write_recording(folder / "out", f"sub-{k:02d}_task-rest", series)
    arrow = folder / "abide.schaefer400.arrow"
    call = ["export", str(folder / "out"), str(arrow), "--tr", "2", "--frames", "20"]
    assert main(call) == 0
    (folder / "targets").mkdir()
    return folder


def _accuracy(python: Path, folder: Path, planted: bool) -> float:
    """Of logistic regression on connectomes, over random splits."""
    rng = np.random.default_rng(1)
    labels = [k % 2 for k in range(30)]
    if not planted:
        rng.shuffle(labels)
    target = {f"{k:02d}": f"group{label}" for k, label in enumerate(labels)}
    (folder / "targets" / "abide_target_map_dx.json").write_text(json.dumps(target))
    name = "planted" if planted else "shuffled"
    script = (
        "from omegaconf import OmegaConf; import brainmarks.main_logistic as m;"
        "args = OmegaConf.load(m.DEFAULT_CONFIG);"
        "args.merge_with(dict(dataset='abide_dx', model='connectome_schaefer400',"
        f"representation='cls', device='cpu', num_workers=1, amp=False, n_trials=3, Cs=1,"
        "cv_folds=2, metrics=['acc'], cv_metric='acc',"
        f"output_root={str(folder)!r}, name={name!r}));"
        "m.main(args)"
    )
    environment = {**os.environ, "ABIDE_ROOT": str(folder), "HF_HOME": str(folder / "hf")}
    done = subprocess.run(
        [python, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    table = pd.read_csv(folder / name / "eval_table.csv")
    return float(table[(table["split"] == "test") & table["trial"].notna()]["acc"].mean())


def test_the_connectome_baseline_finds_what_was_planted(python: Path, exported: Path) -> None:
    rows = read_rows(exported / "abide.schaefer400.arrow" / "recordings.tsv")
    assert {row["n_frames"] for row in rows} == {"20"} and {row["tr"] for row in rows} == {"2"}
    assert _accuracy(python, exported, planted=True) >= 0.9
    assert _accuracy(python, exported, planted=False) <= 0.75
