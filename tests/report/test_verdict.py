"""The sentence under a table of decoding says what the table shows."""

import numpy as np
import pytest

from brainlm_bids.cohort.comparison import difference, metric_of
from brainlm_bids.cohort.sources import DEFAULT, find
from brainlm_bids.report.verdict import verdict

Row = dict[str, str]
EMBEDDING, OTHER = ("embedding", *DEFAULT), ("embedding", "mean", "recording")
CONNECTIVITY, MOTION = ("connectivity", "linear", "n/a"), ("motion", "linear", "n/a")
UNTRAINED, COORDINATES = ("untrained", *DEFAULT), ("coordinates", "linear", "n/a")
Key = tuple[str, str, str]


def _rows(r2: dict[Key, float], p: str = "0.002") -> list[Row]:
    """Scores of sources; Pearson's r in the opposite order."""
    rows = []
    for (features, readout, scaling), value in r2.items():
        row = {"features": features, "readout": readout, "scaling": scaling, "permutation_p": p}
        interval = {"low": str(value - 0.02), "high": str(value + 0.02)}
        rows.append({**row, "metric": "r2", "value": str(value), **interval})
        rows.append({**row, "metric": "pearson_r", "value": str(1 - value)})
    return rows


def _compared(intervals: dict[Key, tuple[float, float]]) -> dict[str, object]:
    return {
        "Metric": "r2",
        **{
            find(*key).name: {"Difference": (low + high) / 2, "Low": low, "High": high}
            for key, (low, high) in intervals.items()
        },
    }


def test_better_is_called_better() -> None:
    rows = _rows({EMBEDDING: 0.95, CONNECTIVITY: 0.89, MOTION: 0.1, UNTRAINED: 0.8})
    compared = _compared({CONNECTIVITY: (0.02, 0.1), MOTION: (0.8, 0.9), UNTRAINED: (0.1, 0.2)})
    text = verdict(rows, compared)
    assert "better than chance (p = 0.002)" in text
    assert (
        "Its R² (0.950) is better than that of the best baseline, functional connectivity (0.890; "
        "difference 0.06" in text
    )
    assert "better than that of the control, untrained" in text and "motion" not in text
    assert "worse" not in text and "distinguishable" not in text and "largest" not in text


def test_worse_and_undecided_are_not_better() -> None:
    rows = _rows({EMBEDDING: 0.8, CONNECTIVITY: 0.89, UNTRAINED: 0.79, COORDINATES: 0.0})
    intervals = {CONNECTIVITY: (-0.12, -0.06), UNTRAINED: (-0.03, 0.05), COORDINATES: (0.7, 0.9)}
    text = verdict(rows, _compared(intervals))
    assert "worse than that of the best baseline, functional connectivity (0.89" in text
    assert "better than that of the control, coordinates of the parcels (0.000; difference" in text
    assert "; and not distinguishable from that of the control, untrained" in text
    assert "better than that of the best" not in text
    assert "The largest R² in the table is that of functional connectivity (0.890)" in text


def test_the_best_baseline_is_chosen_and_so_is_the_best_row() -> None:
    scores = {EMBEDDING: 0.3, OTHER: 0.6, CONNECTIVITY: 0.1, MOTION: 0.5}
    text = verdict(_rows(scores), _compared({MOTION: (-0.3, -0.1)}))
    assert "worse than that of the best baseline, motion and coverage (0.5" in text
    assert f"that of {find(*OTHER).label} (0.600); a readout that is chosen by this table" in text


@pytest.mark.parametrize(
    ("p", "words"),
    [
        ("0.3", "does not predict this target better than chance (p = 0.3"),
        ("n/a", "Without a permutation test"),
        ("0.05", "does not predict"),
    ],
)
def test_chance_is_told_by_the_permutation_test(p: str, words: str) -> None:
    assert words in verdict(_rows({EMBEDDING: 0.1, CONNECTIVITY: 0.2}, p), {})


def test_tables_without_differences_are_read_by_their_intervals() -> None:
    text = verdict(_rows({EMBEDDING: 0.95, CONNECTIVITY: 0.89, UNTRAINED: 0.94}), {})
    assert (
        "better than that of the best baseline, functional connectivity (0.890 [0.870, 0.910])"
        in text
    )
    assert "not distinguishable from that of the control, untrained" in text


def _predicted(rng: np.random.Generator, truth: np.ndarray, noise: float) -> np.ndarray:
    guess = truth + noise * rng.normal(size=truth.size)
    return np.stack([guess, np.full(truth.size, truth.mean())], axis=1)


def test_differences_and_their_intervals() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=150)
    people = [f"s{k // 2}" for k in range(150)]
    good, poor = _predicted(rng, truth, 0.3), _predicted(rng, truth, 0.8)
    better = difference(truth, good, poor, people, seed=1)
    r2 = [1 - ((truth - p[:, 0]) ** 2).sum() / ((truth - p[:, 1]) ** 2).sum() for p in (good, poor)]
    assert better.value == pytest.approx(r2[0] - r2[1]) and better.low > 0
    worse = difference(truth, poor, good, people, seed=1)
    assert (worse.low, worse.high) == pytest.approx((-better.high, -better.low))
    same = difference(truth, good, _predicted(rng, truth, 0.3), people, seed=1)
    assert same.low < 0 < same.high
    # errors in common: the difference is known better than either score
    shared = poor.copy()
    shared[:, 0] = 0.9 * poor[:, 0] + 0.1 * truth
    assert difference(truth, shared, poor, people, seed=1).low > 0


def test_classes_are_compared_by_the_area_under_the_curve() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0.0, 1.0], 40)
    chance = 1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(size=80))))
    good = np.stack([1 - chance, chance], axis=1)
    noise = np.full_like(good, 0.5)
    found = difference(labels, good, noise, [str(k) for k in range(80)], n_classes=2)
    assert metric_of(2) == "auc" and found.low > 0.1 and found.value < 0.5
