"""Decoding across a cohort: confounds, several classes, and what is refused."""

import numpy as np
import pytest

from brainlm_bids.cohort.decoding import decode, decode_by, linear_predictions
from brainlm_bids.cohort.folds import repeated_folds
from brainlm_bids.errors import UserError


def test_a_confound_is_not_decoded_once_it_is_regressed_out() -> None:
    """Features know of the target only what the confound knows."""
    rng = np.random.default_rng(2)
    people = [f"s{k:02d}" for k in range(60)]
    motion = rng.standard_normal(60)
    target = motion + 0.3 * rng.standard_normal(60)
    features = motion[:, None] * rng.uniform(0.5, 1, 40) + 0.5 * rng.standard_normal((60, 40))
    plain = decode(features, target, people, n_permutations=99, seed=1)
    clean = decode(features, target, people, confounds=motion[:, None], n_permutations=99, seed=1)
    assert plain.scores["r2"].value > 0.7
    assert plain.p == pytest.approx(0.01)
    assert clean.scores["r2"].high < 0.2
    assert clean.p > 0.05


def test_three_classes_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], 8)
    features = rng.standard_normal((24, 30)) + 3 * np.eye(3)[labels].repeat(10, axis=1)
    people = [f"s{k:02d}" for k in rng.permutation(24)]
    found = decode(features, labels, people, n_classes=3, n_permutations=9, seed=0)
    assert found.predictions.shape == (24, 3)
    np.testing.assert_allclose(found.predictions.sum(axis=1), 1)
    assert found.scores["accuracy"].value > 0.9
    assert found.p == pytest.approx(0.1)


def test_too_many_confounds_are_refused() -> None:
    rng = np.random.default_rng(0)
    people = [f"s{k}" for k in range(12)]
    with pytest.raises(UserError, match="9 columns of confounds"):
        decode(
            rng.standard_normal((12, 4)),
            rng.standard_normal(12),
            people,
            confounds=rng.standard_normal((12, 9)),
        )


def _cohort(seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((40, 6))
    return (
        features,
        features[:, 0] + 0.3 * rng.standard_normal(40),
        [f"s{k:02d}" for k in range(40)],
    )


@pytest.mark.parametrize("n_classes", [0, 2])
def test_a_trained_predictor_is_tested_on_the_folds_of_the_linear_readouts(n_classes: int) -> None:
    """A predictor that is the linear readout itself gives the first repeat of the latter."""
    features, target, people = _cohort(0)
    if n_classes:
        target = (target > 0).astype(float)

    def predict(values, subjects, split, n_classes, seed):
        shared = {"n_classes": n_classes, "seed": seed}
        return linear_predictions(features, values, subjects, split, **shared)

    shared = {"n_classes": n_classes, "n_permutations": 99, "seed": 4}
    trained = decode_by(predict, target, people, **shared)
    linear = decode(features, target, people, folds=repeated_folds(people, 1, 4), **shared)
    np.testing.assert_allclose(trained.predictions, linear.predictions, atol=1e-4)
    assert (trained.n_folds, trained.n_repeats) == (5, 1)
    # both tests find what is there
    assert trained.p == pytest.approx(0.01) == linear.p


def test_given_folds_are_used() -> None:
    """A second half that says the opposite of the first is predicted wrongly from it."""
    features, target, people = _cohort(1)
    half = np.arange(40) < 20
    target = np.where(half, target, -target)
    folds = [[(np.flatnonzero(half != k), np.flatnonzero(half == k)) for k in (True, False)]]
    found = decode(features, target, people, folds=folds)
    assert (found.n_folds, found.n_repeats) == (2, 1)
    assert found.scores["pearson_r"].value < -0.5
