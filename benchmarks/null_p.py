"""Permutation p values under the null: uniform, as they must be, over 500 simulated cohorts.

    python -m benchmarks.null_p [--cohorts 500] [--case NAME …]

A pool of recordings is simulated once. Each cohort takes some of its people and a target that has
nothing to do with the series (but may differ by site); its p comes from the functions of the group
level. p values of M permutations are multiples of 1 / (M + 1); less a random share of one step they
are uniform between 0 and 1 if the test is exact, which a Kolmogorov–Smirnov test judges.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from brainlm_bids.cohort import scores
from brainlm_bids.cohort.coding import understand
from brainlm_bids.cohort.decoding import decode, decode_by, linear_predictions
from brainlm_bids.cohort.folds import OUTER_FOLDS, Split
from brainlm_bids.cohort.sites import NO_SITES, Sites
from brainlm_bids.cohort.variables import design
from brainlm_bids.parcels.connectivity import fisher_z
from brainlm_bids.phantom.cohort import CohortOptions, draw_people, recordings
from brainlm_bids.resources import parcels

Array = NDArray[np.float64]
PERMUTATIONS, FEW = 99, 39  # few where every fit takes time
POOL = CohortOptions(subjects=120, sessions=2, seconds=120.0, trs=(2.0,), sites=3, seed=9)


class Pool(NamedTuple):
    """Recordings that cohorts are drawn from.

    Attributes
    ----------
    features
        (N, 2, F) of N people in two sessions: correlations of the networks' mean series.
    site
        (N,) numbers from 0.
    """

    features: Array
    site: NDArray[np.int64]


def make_pool(options: CohortOptions = POOL) -> Pool:
    """Simulate the recordings: 28 features, correlations within and between networks."""
    people = draw_people(options)
    rows = [network_features(one.series) for one in recordings(options, people)]
    return Pool(np.array(rows).reshape(options.subjects, options.sessions, -1), people.site)


def network_features(series: Array) -> Array:
    """(28,) Fisher z of the networks' mean series with one another, and log amplitude of each."""
    networks = parcels().network_index
    means = np.stack([series[:, networks == k].mean(axis=1) for k in range(1, 8)])
    return np.concatenate([fisher_z(np.corrcoef(means)), np.log(means.std(axis=1))])


def labels(n: int) -> list[str]:
    """Names of n people."""
    return [f"sub-{k:03d}" for k in range(n)]


# --- cases: a pool, the rows of a cohort, a generator, and a seed become a p ----------------------


def regression(pool: Pool, chosen: NDArray[np.int64], rng: np.random.Generator, seed: int) -> float:
    """A number per person; ridge regression, refitted for every permutation."""
    target = rng.normal(size=len(chosen))
    return _decoded(pool.features[chosen, 0], target, labels(len(chosen)), seed)


def classes(pool: Pool, chosen: NDArray[np.int64], rng: np.random.Generator, seed: int) -> float:
    """Two classes of unequal size; logistic regression, refitted for every permutation."""
    target = rng.permutation(np.arange(len(chosen)) % 3 == 0).astype(float)
    people = labels(len(chosen))
    features = pool.features[chosen, 0]
    return _decoded(features, target, people, seed, n_classes=2, n_permutations=FEW)


def sessions(pool: Pool, chosen: NDArray[np.int64], rng: np.random.Generator, seed: int) -> float:
    """Two sessions per person, in which the target differs; people are permuted as blocks."""
    person = rng.normal(size=(len(chosen), 1))
    target = (person + 0.5 * rng.normal(size=(len(chosen), 2))).ravel()
    features = pool.features[chosen].reshape(2 * len(chosen), -1)
    return _decoded(features, target, np.repeat(labels(len(chosen)), 2).tolist(), seed)


def site_regressed(
    pool: Pool, chosen: NDArray[np.int64], rng: np.random.Generator, seed: int
) -> float:
    """A target that differs by site; the site is regressed out of features in training folds."""
    people, names = labels(len(chosen)), tuple(f"site{k}" for k in pool.site[chosen])
    target = pool.site[chosen] + rng.normal(size=len(chosen))
    confounds = design([understand("site", list(names), people)])
    sites, features = Sites(alike=names), pool.features[chosen, 0]
    return _decoded(features, target, people, seed, confounds=confounds, sites=sites)


def site_harmonised(
    pool: Pool, chosen: NDArray[np.int64], rng: np.random.Generator, seed: int
) -> float:
    """The same target; ComBat in the training folds, and permutations within sites."""
    target = pool.site[chosen] + rng.normal(size=len(chosen))
    sites = Sites(harmonised=tuple(f"site{k}" for k in pool.site[chosen]))
    return _decoded(pool.features[chosen, 0], target, labels(len(chosen)), seed, sites=sites)


def site_left_out(
    pool: Pool, chosen: NDArray[np.int64], rng: np.random.Generator, seed: int
) -> float:
    """The same target; each site is left out in turn, and permutations are within sites."""
    target = pool.site[chosen] + rng.normal(size=len(chosen))
    sites = Sites(held_out=tuple(f"site{k}" for k in pool.site[chosen]))
    return _decoded(pool.features[chosen, 0], target, labels(len(chosen)), seed, sites=sites)


def kept_predictions(
    pool: Pool, chosen: NDArray[np.int64], rng: np.random.Generator, seed: int
) -> float:
    """As trained readouts: predictions are kept, targets permuted within test folds."""
    features = pool.features[chosen, 0]

    def predictor(values: Array, owners: Any, split: Split, n: int, seed: int) -> Array:
        return linear_predictions(features, values, owners, split, n_classes=n, seed=seed)

    target, people = rng.normal(size=len(chosen)), labels(len(chosen))
    return decode_by(predictor, target, people, n_permutations=PERMUTATIONS, seed=seed).p


def _decoded(
    features: Array,
    target: Array,
    people: list[str],
    seed: int,
    *,
    n_classes: int = 0,
    n_permutations: int = PERMUTATIONS,
    confounds: Array | None = None,
    sites: Sites = NO_SITES,
) -> float:
    return decode(
        features,
        target,
        people,
        n_classes=n_classes,
        confounds=confounds,
        sites=sites,
        n_permutations=n_permutations,
        seed=seed,
        folds=sites.folds(people, OUTER_FOLDS, 1, seed),  # p is that of the first repeat
    ).p


class Case(NamedTuple):
    """A way to a p value.

    Attributes
    ----------
    work
        Takes a pool, the rows of a cohort, a generator and a seed.
    n_people
        Of a cohort.
    n_permutations
        Behind a p value.
    share
        Of the cohorts that are enough: logistic fits take time.
    """

    work: Callable[[Pool, NDArray[np.int64], np.random.Generator, int], float]
    n_people: int = 24
    n_permutations: int = PERMUTATIONS
    share: float = 1.0


CASES = {
    "regression": Case(regression),
    "sessions": Case(sessions, 20),
    "classes": Case(classes, n_permutations=FEW, share=0.2),
    "site_harmonised": Case(site_harmonised, 30),
    "site_left_out": Case(site_left_out, 30),
    "site_regressed": Case(site_regressed, 30),
    "kept_predictions": Case(kept_predictions),
}
EXACT = ("regression", "sessions", "classes", "site_harmonised", "site_left_out")


# --- measuring -------------------------------------------------------------------------------


class Uniformity(NamedTuple):
    """How uniform p values are.

    Attributes
    ----------
    n
        Number of cohorts.
    distance, p
        Kolmogorov–Smirnov distance from the uniform distribution, and its p value.
    below
        Shares of p values of at most 0.05 and 0.2.
    """

    n: int
    distance: float
    p: float
    below: tuple[float, float]


def p_values(case: str, n_cohorts: int, pool: Pool, seed: int = 0) -> Array:
    """(n_cohorts,) p values of a case."""
    work, n_people, *_ = CASES[case]
    found = []
    for k in range(n_cohorts):
        rng = np.random.default_rng([seed, k, 1])
        chosen = rng.permutation(len(pool.site))[:n_people]
        found.append(work(pool, chosen, rng, seed + k))
    return np.array(found)


def uniformity(p: Array, n_permutations: int, seed: int = 0) -> Uniformity:
    """Judge p values of as many permutations.

    >>> made = uniformity((np.arange(400) % 40 + 1) / 40, 39)
    >>> made.below, made.p > 0.2
    ((0.05, 0.2), True)
    """
    step = 1 / (n_permutations + 1)
    spread = p - step * np.random.default_rng([seed, 3]).random(len(p))
    test = stats.kstest(spread, "uniform")
    below = float((p <= 0.05).mean()), float((p <= 0.2).mean())
    return Uniformity(len(p), float(test.statistic), float(test.pvalue), below)


def main() -> int:
    """Print a row per case; 0 if those that must be exact are uniform."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=500)
    parser.add_argument("--case", nargs="+", choices=sorted(CASES), default=list(CASES))
    given = parser.parse_args()
    scores.BOOTSTRAPS = 1  # nobody looks at the intervals, and they take time
    pool = make_pool()
    print("| case | cohorts | KS distance | KS p | p ≤ 0.05 | p ≤ 0.2 | CPU s |")
    print("|---|---|---|---|---|---|---|")
    exact = True
    for name in given.case:
        case, started = CASES[name], time.process_time()
        p = p_values(name, max(1, round(given.cohorts * case.share)), pool)
        made = uniformity(p, case.n_permutations)
        seconds = time.process_time() - started
        shares = " | ".join(f"{share:.3f}" for share in made.below)
        numbers = f"{made.n} | {made.distance:.3f} | {made.p:.3g} | {shares} | {seconds:.0f}"
        print(f"| {name} | {numbers} |", flush=True)
        exact &= made.p > 0.001 or name not in EXACT
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
