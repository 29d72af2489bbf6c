"""Decoding across a cohort: confounds, several classes, and what is refused."""

import numpy as np
import pytest

from brainlm_bids.cohort.decoding import decode
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
