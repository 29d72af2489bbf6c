"""`brainlm forecast --causal`: what is cleaned of the past is what a run that ended there gives."""

from pathlib import Path

import numpy as np
import pytest
from simulated_series import autoregressive_process, write_run

from brainlm_bids import files, resources
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.commands import brainlm as tools
from brainlm_bids.experiments.causal import PastAlone
from brainlm_bids.preproc.steps.denoising import denoise

TR, T, K = 2.0, 120, 12
NOISE = np.arange(K) < 5


def simulated(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Raw series with components in them, and the components' time courses."""
    rng = np.random.default_rng(seed)
    courses = autoregressive_process(0.5, (T, K), seed)
    drift = np.linspace(-1, 1, T)[:, None] ** 2 * rng.normal(size=424) * 3
    signal = autoregressive_process(0.6, (T, 424), seed + 1)
    raw = 10000 + 40 * (signal + courses @ rng.normal(size=(K, 424)) + drift)
    return raw, courses


def cleaned(raw: np.ndarray, courses: np.ndarray, good: np.ndarray | None = None) -> np.ndarray:
    return denoise(raw, TR, components=(courses, NOISE), good=good).series


def past_alone(raw: np.ndarray, courses: np.ndarray, origin: int, good: np.ndarray) -> np.ndarray:
    series = cleaned(raw, courses, good)
    how = {"high_pass": 100.0, "mode": "nonaggr"}
    return PastAlone(raw, series, TR, (courses, NOISE), **how)(origin)


def test_the_past_is_that_of_a_run_which_ends_there() -> None:
    raw, courses = simulated(0)
    raw[:, 3] = np.nan
    good = np.ones(T, dtype=bool)
    good[[20, 95]] = False
    found = past_alone(raw, courses, 80, good)
    expected = cleaned(raw[:80], courses[:80], good[:80])
    shift = np.median(found[good[:80]], axis=0) - np.median(expected[good[:80]], axis=0)
    known = np.arange(424) != 3
    assert np.allclose((found - expected - shift)[good[:80]][:, known], 0, atol=1e-6)
    assert np.isnan(found[:, 3]).all() and np.isnan(found[20]).all()


def test_only_the_level_depends_on_what_follows() -> None:
    raw, courses = simulated(0)
    later = raw.copy()
    later[80:] += 500 * np.random.default_rng(5).normal(size=(T - 80, 424))
    good = np.ones(T, dtype=bool)
    pasts = [past_alone(one, courses, 80, good) for one in (raw, later)]
    shapes = [past - np.median(past, axis=0) for past in pasts]
    assert np.allclose(*shapes, atol=1e-6)
    # that of the denoised series does
    whole = [cleaned(one, courses)[:80] for one in (raw, later)]
    shapes = [past - np.median(past, axis=0) for past in whole]
    assert np.abs(shapes[0] - shapes[1]).max() > 1


def write_causal(out: Path, stem: str, seed: int) -> Naming:
    """What the participant level writes with --save-parcels."""
    raw, courses = simulated(seed)
    naming = write_run(out, stem, cleaned(raw, courses), TR)
    names = list(resources.parcels().names)
    files.write_tsv(naming.path("preproc_series"), names, raw.T.tolist())
    labels = [f"ic_{k + 1:02d}" for k in range(K)]
    files.write_tsv(naming.path("aroma_mixing"), labels, courses.T.tolist())
    decisions = ["noise" if bad else "signal" for bad in NOISE]
    columns = [labels, decisions]
    files.write_tsv(naming.path("aroma_metrics"), ["component", "classification"], columns)
    return naming


def call(*arguments: object) -> int:
    words = [*(str(one) for one in arguments), "--model", "random:tiny", "--offline"]
    return tools.main(["forecast", *words, "--origins", "3", "--volumes", "12"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    naming = write_causal(out, "sub-01_task-rest", seed=2)
    write_run(out, "sub-02_task-rest", simulated(4)[0], TR)
    write_run(out, "sub-03_task-rest", simulated(4)[0], TR, RegressedConfounds=["trans_x"])
    others = {"RegressedConfounds": ["trans_x"], "Denoising": "by XCP-D"}
    write_run(out, "sub-04_task-rest", simulated(4)[0], TR, **others)
    assert call(out, tmp_path / "causal", "--causal") == 1
    said = capsys.readouterr().err
    assert "run the participant level with --save-parcels" in said
    assert "the regression of fMRIPrep's confounds cannot be fitted to the past" in said
    assert "was denoised by XCP-D as a whole" in said
    assert call(out, tmp_path / "whole", "--participant-label", "01") == 0
    rows, notes = {}, {}
    for name in ("causal", "whole"):
        path = next((tmp_path / name).glob("sub-01/func/*desc-forecast_metrics.tsv"))
        notes[name] = files.read_json(path.with_suffix(".json"))
        rows[name] = {
            (row["predictor"], int(row["horizon"])): float(row["r2"])
            for row in files.read_rows(path)
            if row["r2"] != "n/a"
        }
    fitted = notes["causal"]["FittedToWholeRecording"]
    assert fitted == ["maps of the independent components and their classification"]
    assert notes["whole"]["FittedToWholeRecording"] != fitted
    first = ("autoregressive", 1)
    # the cost is small, and the two are not the same
    assert 0.1 < rows["causal"][first] < rows["whole"][first] + 0.03
    assert rows["causal"][first] != rows["whole"][first]
    naming.path("aroma_mixing").unlink()
    assert call(out, tmp_path / "no", "--causal", "--participant-label", "01") == 1
    assert "_mixing.tsv: is not there" in capsys.readouterr().err
    np.save(tmp_path / "series.npy", simulated(4)[0])
    assert call(tmp_path / "series.npy", tmp_path / "one", "--tr", 2, "--causal") == 1
    assert "how" in capsys.readouterr().err
