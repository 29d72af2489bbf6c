"""Folds that spread sites, and folds that leave one out."""

import numpy as np

from brainlm_bids.cohort.folds import leave_one_site_out, rows_of_each, splits
from brainlm_bids.cohort.permutations import permuted_targets

PEOPLE = np.repeat([f"s{k:02d}" for k in range(30)], 2)
SITES = np.repeat(np.repeat(["a", "b", "c"], [19, 6, 5]), 2)


def test_every_training_set_knows_every_site() -> None:
    for seed in range(20):
        tested: list[int] = []
        for train, test in splits(PEOPLE, 5, seed, sites=SITES.tolist()):
            assert not set(PEOPLE[train]) & set(PEOPLE[test])
            assert [len(set(PEOPLE[train][SITES[train] == site])) for site in "bc"] >= [4, 4]
            tested += test.tolist()
        assert sorted(tested) == list(range(60))
    orders = [next(splits(PEOPLE, 5, seed, sites=SITES.tolist()))[1] for seed in (0, 1)]
    assert orders[0].tolist() != orders[1].tolist()


def test_a_site_is_predicted_by_those_who_know_nobody_there() -> None:
    sites = SITES.copy()
    sites[1] = "c"  # the second recording of the first subject, who travels
    found = list(leave_one_site_out(PEOPLE, sites.tolist()))
    assert [set(sites[test]) for _, test in found] == [{"a"}, {"b"}, {"c"}]
    assert sorted(np.concatenate([test for _, test in found])) == list(range(60))
    for train, test in found:
        assert not set(PEOPLE[train]) & set(PEOPLE[test])
        assert not set(sites[train]) & set(sites[test])


def test_targets_are_shuffled_within_sites() -> None:
    values = np.repeat(np.arange(30.0), 2)
    shuffled = permuted_targets(values, PEOPLE, 50, 0, sites=SITES.tolist())
    for site in "abc":
        rows = shuffled[:, site == SITES]
        assert (np.sort(rows, axis=1) == np.sort(values[site == SITES])).all()
        assert len(np.unique(rows[:, 0])) >= 5
    # a target that differs between the recordings of a subject moves as a block, as before
    moving = np.arange(60.0)
    for row in permuted_targets(moving, PEOPLE, 5, 0, sites=SITES.tolist()):
        np.testing.assert_array_equal(np.diff(row)[::2], 1)
        assert set(row[SITES == "b"]) == set(moving[SITES == "b"])


def test_rows_of_each_subject_in_any_order() -> None:
    people = np.random.default_rng(0).permutation(PEOPLE)
    expected = [np.flatnonzero(people == name).tolist() for name in np.unique(people)]
    assert [rows.tolist() for rows in rows_of_each(people)] == expected
