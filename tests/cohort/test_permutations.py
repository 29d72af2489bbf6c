"""Permutation tests keep their error rate, and the recordings of a person together."""

import numpy as np

from brainlm_bids.cohort.decoding import decode
from brainlm_bids.cohort.folds import repeated_folds
from brainlm_bids.cohort.permutations import (
    permuted_targets,
    within_group_p,
)


def test_p_is_uniform_without_an_effect() -> None:
    """Of 60 data sets of noise, with two recordings of everybody, few are 'significant'.

    Recordings of a person are alike, and so are their targets: a shuffle of recordings instead of
    people would call most of these significant.
    """
    rng = np.random.default_rng(8)
    people = np.repeat([f"s{k:02d}" for k in range(15)], 2).tolist()
    found = []
    for _ in range(60):
        features = np.repeat(rng.standard_normal((15, 5)), 2, axis=0)
        features += 0.1 * rng.standard_normal((30, 5))
        target = np.repeat(rng.standard_normal(15), 2)
        folds = repeated_folds(people, 1, 0)
        found.append(decode(features, target, people, n_permutations=39, folds=folds).p)
    # binomial(60, 0.05): more than 8 has a probability of 0.3 %
    assert sum(p <= 0.05 for p in found) <= 8
    assert 0.35 < np.mean(found) < 0.65


def test_shuffled_targets_stay_with_their_persons() -> None:
    people = np.repeat(["a", "b", "c", "d"], [1, 2, 3, 2])
    constant = np.repeat([10.0, 20.0, 30.0, 40.0], [1, 2, 3, 2])
    for row in permuted_targets(constant, people, 20, 0):
        per_person = [set(row[people == name]) for name in "abcd"]
        assert all(len(values) == 1 for values in per_person)
        assert sorted(v for one in per_person for v in one) == [10, 20, 30, 40]
    blocks = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    for row in permuted_targets(blocks, people, 20, 0):
        # only b and d have as many recordings as one another
        assert row[[0, 3, 4, 5]].tolist() == [1, 4, 5, 6]
        assert row[1:3].tolist() in ([2, 3], [7, 8])


def test_p_within_groups_is_uniform_where_predictions_know_the_group_alone() -> None:
    """Predictions that tell runs apart, and runs that differ in their states, are no finding."""
    rng = np.random.default_rng(3)
    runs = np.repeat([f"run-{k}" for k in range(6)], 10)
    found = []
    for _ in range(100):
        rates = rng.uniform(0.1, 0.9, size=6)
        truth = rng.random(60) < np.repeat(rates, 10)
        guess = np.clip(np.repeat(rates, 10) + rng.normal(0, 0.05, size=60), 0, 1)
        predictions = np.stack([1 - guess, guess], axis=1)
        found.append(
            within_group_p(
                truth.astype(float), predictions, runs, n_classes=2, n_permutations=49, seed=0
            )
        )
    # binomial(100, 0.06): more than 14 has a probability of 0.1 %
    assert sum(p <= 0.06 for p in found) <= 14
    assert 0.4 < np.mean(found) < 0.65


def test_p_within_groups_finds_what_differs_within_runs() -> None:
    rng = np.random.default_rng(4)
    truth = np.tile([0.0, 1.0, 2.0], 12)
    predictions = rng.dirichlet([1, 1, 1], size=36)
    predictions[np.arange(36), truth.astype(int)] += 1
    runs = np.repeat(["a", "b"], 18)
    p = within_group_p(truth, predictions, runs, n_classes=3, n_permutations=199, seed=0)
    assert p == 1 / 200
