"""The sentence under a table of decoding says what the table shows."""

import numpy as np
import pytest

from brainlm_bids.cohort.comparison import difference, metric_of
from brainlm_bids.report.verdict import verdict

Row = dict[str, str]


def _rows(r2: tuple[str, str, str], p: str = "0.002") -> list[Row]:
    """Scores of embedding, connectivity, random weights; Pearson's r in the opposite order."""
    names = ("embedding", "connectivity", "random_weights")
    r = dict(zip(names, ("0.96", "0.97", "0.98"), strict=True))
    score: Row = dict(zip(names, r2, strict=True))
    for name, value in zip(names, r2, strict=True):
        score |= {f"{name}_low": str(float(value) - 0.02), f"{name}_high": str(float(value) + 0.02)}
    return [
        {"metric": "r2", **score},
        {"metric": "pearson_r", **r},
        {"metric": "permutation_p", "embedding": p, "connectivity": "0.002"},
    ]


def _compared(connectivity: tuple[float, float], random: tuple[float, float]) -> dict[str, object]:
    found = {"connectivity": connectivity, "random_weights": random}
    return {
        "Metric": "r2",
        **{
            name: {"Difference": (low + high) / 2, "Low": low, "High": high}
            for name, (low, high) in found.items()
        },
    }


def test_better_is_called_better() -> None:
    text = verdict(_rows((".95", ".89", ".80")), _compared((0.02, 0.1), (0.1, 0.2)))
    assert "better than chance (p = 0.002)" in text
    assert "Its R² (0.95) is better than functional connectivity (0.89; difference 0.06" in text
    assert "worse" not in text and "uncertainty" not in text


def test_worse_and_undecided_are_not_better() -> None:
    text = verdict(_rows((".80", ".89", ".79")), _compared((-0.12, -0.06), (-0.03, 0.05)))
    assert "worse than functional connectivity (0.89" in text
    assert "The difference from random weights (0.79" in text and "within its uncertainty" in text
    assert "better than functional" not in text and "better than random" not in text
    both = verdict(_rows((".80", ".80", ".79")), _compared((-0.1, 0.1), (-0.03, 0.05)))
    assert both.count("within its uncertainty") == 1 and "worse" not in both
    assert "functional connectivity (0.8; difference 0 [-0.1, 0.1]) and random weights" in both


@pytest.mark.parametrize(
    ("p", "words"),
    [
        ("0.3", "does not predict this target better than chance (p = 0.3"),
        ("n/a", "Without a permutation test"),
        ("0.05", "does not predict"),
    ],
)
def test_chance_is_told_by_the_permutation_test(p: str, words: str) -> None:
    assert words in verdict(_rows((".1", ".2", ".3"), p), {})


def test_tables_without_differences_are_read_by_their_intervals() -> None:
    text = verdict(_rows((".95", ".89", ".94")), {})
    assert "better than functional connectivity (0.89 [0.87, 0.91])" in text
    assert "random weights (0.94 [0.92, 0.96]) is within its uncertainty" in text


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
