"""Sites: what is decoded through them, and what is left when something is done about them."""

import numpy as np
import pytest

from brainlm_bids.cohort import variables
from brainlm_bids.cohort.coding import understand
from brainlm_bids.cohort.decoding import decode
from brainlm_bids.cohort.sites import Sites, sites_of_units
from brainlm_bids.errors import UserError

N_SITES, PER_SITE = 4, 30
SITE = np.repeat(np.arange(N_SITES), PER_SITE)
NAMES = tuple(f"site{k}" for k in SITE)
PEOPLE = [f"s{k:03d}" for k in range(len(SITE))]
OF_SITE = np.array([-2.0, 1.5, -1.0, 2.5])


def scanned(rng: np.random.Generator) -> np.ndarray:
    """(120, 60) features whose mean and spread are those of the site, and nothing else."""
    noise = rng.normal(size=(len(SITE), 60)) * rng.uniform(0.7, 1.4, (N_SITES, 1))[SITE]
    return noise + 2 * rng.normal(size=(N_SITES, 60))[SITE]


def confounds() -> np.ndarray:
    return variables.design([understand("site", NAMES)])


@pytest.mark.parametrize("seed", range(3))
def test_a_target_that_differs_by_site_alone_is_not_decoded_once_sites_are_dealt_with(
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    features = scanned(rng)
    target = OF_SITE[SITE] + 0.7 * rng.normal(size=len(SITE))

    def r(**options: object) -> float:
        return decode(features, target, PEOPLE, **options).scores["pearson_r"].value

    assert r() > 0.85
    assert abs(r(confounds=confounds())) < 0.25
    assert abs(r(sites=Sites(harmonised=NAMES))) < 0.25
    assert abs(r(sites=Sites(held_out=NAMES))) < 0.25


def test_p_is_that_of_what_is_known_beyond_the_site() -> None:
    """Over 20 data sets: below .05 seldom, although the target differs between sites."""
    found: dict[str, list[float]] = {"harmonised": [], "held_out": [], "alike": []}
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        features = scanned(rng)[:, :20]
        target = OF_SITE[SITE] + 0.7 * rng.normal(size=len(SITE))
        for name, values in found.items():
            sites = Sites(**{name: NAMES})
            folds = sites.folds(PEOPLE, 5, 1, seed)
            decoded = decode(
                features,
                target,
                PEOPLE,
                sites=sites,
                confounds=confounds() if name == "alike" else None,
                folds=folds,
                n_permutations=39,
                seed=seed,
            )
            values.append(decoded.p)
    for values in found.values():
        assert sum(p <= 0.05 for p in values) <= 4  # binomial: 0.3 % more often
        assert 0.25 < np.mean(values) < 0.75


@pytest.mark.parametrize("name", ["harmonised", "held_out"])
def test_an_effect_within_sites_survives(name: str) -> None:
    rng = np.random.default_rng(1)
    age = rng.normal(size=len(SITE)) + 0.5 * OF_SITE[SITE]
    features = scanned(rng) + age[:, None] * 0.5 * rng.normal(size=60)
    found = decode(features, age, PEOPLE, sites=Sites(**{name: NAMES}), n_permutations=99)
    assert found.scores["pearson_r"].value > 0.6
    assert found.scores["pearson_r"].low > 0.4
    assert found.p == pytest.approx(0.01)


def test_classes_that_differ_by_site_alone() -> None:
    rng = np.random.default_rng(2)
    features = scanned(rng)
    share = np.array([0.9, 0.2, 0.8, 0.1])[SITE]
    labels = (rng.random(len(SITE)) < share).astype(float)

    def auc(**options: object) -> float:
        return decode(features, labels, PEOPLE, n_classes=2, **options).scores["auc"].value

    assert auc() > 0.8
    assert 0.35 < auc(sites=Sites(harmonised=NAMES)) < 0.65
    assert 0.35 < auc(sites=Sites(held_out=NAMES)) < 0.65


def test_held_out_rows_have_no_part_in_the_harmonisation_of_others() -> None:
    rng = np.random.default_rng(3)
    features = scanned(rng)
    train, test = np.arange(0, 120, 2), np.arange(1, 120, 2)
    kept = rng.normal(size=(120, 1))
    sites = Sites(harmonised=NAMES, kept=kept)
    even = sites.prepare(features, (train, test))
    changed = features.copy()
    changed[test] = 100 * rng.normal(size=(60, 60))
    again = sites.prepare(changed, (train, test))
    np.testing.assert_array_equal(even[train], again[train])
    one = features.copy()
    one[test[1:]] = changed[test[1:]]
    np.testing.assert_array_equal(sites.prepare(one, (train, test))[test[0]], even[test[0]])
    assert not np.allclose(even[test], again[test])


def test_folds_of_sites() -> None:
    whole = Sites(held_out=NAMES)
    (found,) = whole.folds(PEOPLE, 5, 10, 0)
    assert [set(SITE[test]) for _, test in found] == [{0}, {1}, {2}, {3}]
    uneven = Sites(held_out=("a",) * 115 + ("b",) * 5)
    with pytest.raises(UserError, match="leaving out 'a' leaves 5 subjects to train on"):
        uneven.folds(PEOPLE, 5, 10, 0)
    repeats = Sites(harmonised=NAMES).folds(PEOPLE, 5, 3, 0)
    assert [len(one) for one in repeats] == [5, 5, 5]
    for train, _ in (split for one in repeats for split in one):
        assert np.bincount(SITE[train]).tolist() == [24] * 4


def test_units_measured_at_several_sites() -> None:
    assert sites_of_units([(0, 1), (2, 3), (4,)], ["a", "a", "a", "b", None]) == ("a", "a+b", None)
