"""`--figures`: what is drawn at once, and what is drawn when somebody looks."""

from pathlib import Path

import numpy as np
import pytest

from brainlm_bids.commands import bids_app
from brainlm_bids.parcels import N_PARCELS

OF_SERIES = {"series", "connectivity"}
OF_MODEL = {"embeddings", "reconstruction", "networks"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings; volumes of the second are not usable."""
    folder = tmp_path_factory.mktemp("figures")
    (folder / "bids").mkdir()
    for label in "12":
        rng = np.random.default_rng(int(label))
        series = 10000 + 40 * rng.normal(size=(220, N_PARCELS))
        if label == "2":
            series[60:64] = np.nan
        np.save(folder / f"sub-{label}_task-rest_timeseries.npy", series)
    return folder


def _call(inputs: Path, out: str, *flags: str) -> dict[str, dict[str, bytes]]:
    """Figures of each subject by their keys, after a call."""
    words = [str(inputs / "bids"), str(inputs / out), "participant", "--timeseries"]
    words += [str(path) for path in sorted(inputs.glob("*.npy"))]
    words += ["--timeseries-tr", "0.735", "--atlas", "A424approx", "--offline"]
    words += ["--mask-ratio", "0.5", "--template", "MNI152NLin2009aSym"]
    words += ["--nprocs", "1", "-w", str(inputs / f"work-{out}")]
    words += [] if "--model" in flags else ["--model", "random:tiny"]
    assert bids_app.main([*words, *flags]) == 0
    return {
        label: {
            path.name.partition("desc-")[2].partition("_")[0]: path.read_bytes()
            for path in (inputs / out / f"sub-{label}" / "figures").glob("*.svg")
        }
        for label in "12"
    }


def test_figures_are_drawn_when_somebody_looks_with_the_same_bytes(inputs: Path) -> None:
    everything = _call(inputs, "all")
    assert set(everything["1"]) == set(everything["2"]) == OF_SERIES | OF_MODEL
    suspect = _call(inputs, "suspect", "--figures", "suspect")
    assert suspect == {"1": {}, "2": everything["2"]}
    page = (inputs / "suspect" / "sub-1.html").read_text()
    assert "were not drawn" in page and "--reports-only" in page
    assert "were not drawn" not in (inputs / "suspect" / "sub-2.html").read_text()
    assert _call(inputs, "suspect", "--reports-only") == everything
    assert "were not drawn" not in (inputs / "suspect" / "sub-1.html").read_text()


def test_none_draws_none_until_asked(inputs: Path) -> None:
    without = ("--model", "none", "--figures")
    assert _call(inputs, "none", *without, "none") == {"1": {}, "2": {}}
    again = _call(inputs, "none", *without, "none", "--reports-only")
    assert again == {"1": {}, "2": {}}
    later = _call(inputs, "none", *without, "suspect", "--reports-only")
    assert later["1"] == {} and set(later["2"]) == OF_SERIES
    # those of earlier settings would be taken for figures of the new results
    assert _call(inputs, "none", *without, "none", "--model-tr", "0.8") == {"1": {}, "2": {}}
