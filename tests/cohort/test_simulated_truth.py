"""What was planted in a simulated cohort is found as theory allows, and nothing else is."""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from brainlm_bids.cohort import reliability
from brainlm_bids.cohort.attentive import AttentiveOptions, attentive_predictions
from brainlm_bids.cohort.bags import Bags
from brainlm_bids.cohort.coding import understand
from brainlm_bids.cohort.decoding import decode, decode_by
from brainlm_bids.cohort.folds import OUTER_FOLDS, Split, splits
from brainlm_bids.cohort.sites import Sites
from brainlm_bids.cohort.states import Block, block_volumes, choose_states
from brainlm_bids.cohort.variables import design
from brainlm_bids.parcels.connectivity import fisher_z
from brainlm_bids.parcels.scaling import recording_stats, scale
from brainlm_bids.phantom.cohort import (
    PLANTED_NETWORK,
    CohortOptions,
    People,
    draw_people,
    recordings,
)
from brainlm_bids.resources import parcels
from brainlm_bids.settings import Settings

PLANTED = parcels().network_index == PLANTED_NETWORK
LEVEL = 0.05
QUICK = AttentiveOptions(learning_rates=(1e-2,), weight_decays=(0.3,), epochs=20)
SOME = np.arange(0, 424, 5)  # a fifth of the parcels: 3570 correlations


def labels(n: int) -> list[str]:
    return [f"sub-{k:03d}" for k in range(n)]


def coupling(series: np.ndarray) -> float:
    """Mean correlation within the planted network: the best single measure of the strength."""
    return float(fisher_z(np.corrcoef(series[:, PLANTED].T)).mean())


def connectivity(series: np.ndarray) -> np.ndarray:
    return fisher_z(np.corrcoef(series[:, SOME].T))


def measured(
    options: CohortOptions, people: People, measure: Callable[[np.ndarray], object]
) -> np.ndarray:
    return np.array([measure(one.series) for one in recordings(options, people)])


# --- age -------------------------------------------------------------------------------------


def power(correlation: float, n_people: int) -> float:
    """Of a one-sided test of a correlation at a level of 0.05, by Fisher's transformation."""
    normal = NormalDist()
    return normal.cdf(np.arctanh(correlation) * np.sqrt(n_people - 3) - normal.inv_cdf(1 - LEVEL))


def is_found(measure: np.ndarray, age: np.ndarray, seed: int) -> bool:
    """By held-out predictions and the permutation test of the group level."""
    people = labels(len(age))
    found = decode(
        measure[:, None],
        age,
        people,
        n_permutations=99,
        seed=seed,
        folds=[list(splits(np.array(people), OUTER_FOLDS, seed))],  # p is that of the first repeat
    )
    return found.p <= LEVEL


def test_planted_age_is_found_with_the_power_that_theory_allows_and_not_after_shuffling() -> None:
    n_people, n_cohorts, planted = 32, 60, 0.6
    cohorts = []
    for seed in range(n_cohorts):
        options = CohortOptions(
            subjects=n_people, seconds=120, trs=(2.0,), age_effect=planted, seed=seed
        )
        people = draw_people(options)
        cohorts.append((people.strength, measured(options, people, coupling), people.age))
    strength, measure, age = (np.concatenate(one) for one in zip(*cohorts, strict=True))
    quality = np.corrcoef(strength, measure)[0, 1]  # square root of the reliability
    assert quality > 0.65
    # the measure is correlated with age by as much as its quality allows
    best = planted * quality
    assert np.corrcoef(measure, age)[0, 1] == pytest.approx(best, abs=2.5 / np.sqrt(len(age)))
    expected = power(best, n_people)
    tested = [power(np.corrcoef(x, y)[0, 1], n_people) >= 0.5 for _, x, y in cohorts]
    error = np.sqrt(expected * (1 - expected) / n_cohorts)
    assert np.mean(tested) == pytest.approx(expected, abs=2.5 * error)
    some = list(enumerate(cohorts))[:24]
    error = np.sqrt(0.25 / len(some))
    # Held-out predictions find less than a test of the correlation, which needs no training:
    # as much as in normal numbers with the same correlation.
    found = [is_found(x, y, seed) for seed, (_, x, y) in some]
    same = []
    for seed, _ in some:
        x, e = np.random.default_rng(seed).normal(size=(2, n_people))
        same.append(is_found(x, best * x + np.sqrt(1 - best**2) * e, seed))
    assert np.mean(found) == pytest.approx(np.mean(same), abs=2 * error * np.sqrt(2))
    assert 0.35 < np.mean(found) <= np.mean(tested)
    shuffled = [
        is_found(x, np.random.default_rng(seed).permutation(y), seed) for seed, (_, x, y) in some
    ]
    assert sum(shuffled) <= 4  # of 24: more with a probability of 0.6 %


# --- sites -----------------------------------------------------------------------------------


def four_ways(values: np.ndarray, people: People) -> dict[str, float]:
    """How well age is decoded: as it is, and with each way to take care of sites."""
    n = len(people.age)
    names, site = labels(n), [f"site{k + 1}" for k in people.site]
    even, out = Sites(harmonised=tuple(site)), Sites(held_out=tuple(site))
    confounds = design([understand("site", site, names)])
    ways: dict[str, Any] = {
        "as it is": {},
        "regressed out": {"confounds": confounds},
        "ComBat": {"sites": even},
        "leave a site out": {"sites": out, "folds": out.folds(names, OUTER_FOLDS, 1, 0)},
    }
    folds = even.folds(names, OUTER_FOLDS, 1, 0)
    return {
        name: decode(values, people.age, names, **{"folds": folds, **given})
        .scores["pearson_r"]
        .value
        for name, given in ways.items()
    }


def test_a_pure_site_effect_is_decoded_unless_sites_are_taken_care_of() -> None:
    """Age differs between three sites alone; so do connectivity and amplitude."""
    results: dict[str, list[dict[str, float]]] = {"connectivity": [], "amplitude": []}
    for seed in range(3):
        options = CohortOptions(
            subjects=90,
            seconds=80,
            trs=(2.0,),
            sites=3,
            age_effect=0.0,
            site_age=1.5,
            seed=seed,
        )
        people = draw_people(options)
        series = [one.series for one in recordings(options, people)]
        for name, values in (
            ("connectivity", np.array([connectivity(one) for one in series])),
            ("amplitude", np.log([one.std(0) for one in series])),
        ):
            results[name].append(four_ways(values, people))
    for of_cohorts in results.values():
        mean = {key: np.mean([one[key] for one in of_cohorts]) for key in of_cohorts[0]}
        assert mean.pop("as it is") > 0.35
        # slightly below 0, as the r of held-out predictions of what cannot be predicted is
        assert all(-0.2 < value < 0.1 for value in mean.values()), mean


# --- reliability -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[0.0, 0.5, 0.9])
def repeated(request: pytest.FixtureRequest) -> tuple[float, np.ndarray]:
    """The planted ICC, and connectivity (subjects, sessions, runs, correlations)."""
    options = CohortOptions(
        subjects=40, sessions=2, runs=2, seconds=200, trs=(2.0,), icc=request.param
    )
    people = draw_people(options)
    # the strength is stable too; without it, what is stable is what --icc says
    people = people._replace(strength=np.zeros(40))
    values = measured(options, people, connectivity)
    return request.param, values.reshape(40, 2, 2, -1)


def test_icc_is_the_planted_one_times_the_reliability(
    repeated: tuple[float, np.ndarray],
) -> None:
    planted, values = repeated
    rows = np.arange(80).reshape(2, 40)
    # runs of a session differ by the error of measurement alone
    of_runs = reliability.icc(np.concatenate([values[:, 0, 0], values[:, 0, 1]]), rows)
    of_sessions = reliability.icc(np.concatenate([values[:, 0, 0], values[:, 1, 0]]), rows)
    assert 0.1 < of_runs.mean() < 0.9
    assert of_sessions.mean() == pytest.approx(planted * of_runs.mean(), abs=0.05)


def test_people_are_identified_only_by_what_is_stable(
    repeated: tuple[float, np.ndarray],
) -> None:
    planted, values = repeated
    rows = np.arange(80).reshape(2, 40)
    both = np.concatenate([values[:, 0, 0], values[:, 1, 0]])
    found = reliability.fingerprint(reliability.similarity(both, rows, standardise=True))
    assert found.chance == pytest.approx(1 / 40, abs=0.01)
    # of the errors of measurement and the new part of a session: 0.5 suffices for most
    least, most = {0.0: (0.0, 0.1), 0.5: (0.35, 0.8), 0.9: (0.8, 1.0)}[planted]
    assert least <= found.rate <= most
    assert found.p < 0.01 if planted else found.p > 0.05


# --- states ----------------------------------------------------------------------------------


def test_planted_states_are_found_by_the_attentive_probe_and_not_after_shuffling_blocks() -> None:
    """Tokens are the volumes of a block: what a network makes of them is another question."""
    options = CohortOptions(
        subjects=15, seconds=300, trs=(2.0,), states=3, state_effect=0.8, block=36
    )
    parts, states, owners = [], [], []
    for one in recordings(options, draw_people(options)):
        blocks = [Block(*event) for event in one.events]
        places = block_volumes(
            blocks, delay=Settings.state_delay, start=0, tr=one.tr, n_volumes=len(one.series)
        )
        scaled = scale(one.series, recording_stats(one.series))[0].astype(np.float32)
        parts += [(scaled[None, first:end],) for first, end in places]
        states += [block.state for block in blocks]
        owners += [f"sub-{one.subject:02d}"] * len(blocks)
    chosen = choose_states(states, owners)
    assert len(chosen.names) == 3 and len(chosen.rows) == len(parts)
    bags = Bags(tuple(parts))

    def probe(
        target: np.ndarray, people: np.ndarray, split: Split, n_classes: int, seed: int
    ) -> np.ndarray:
        return attentive_predictions(
            bags, target, people, split, n_classes=n_classes, seed=seed, options=QUICK
        )

    def accuracy(target: np.ndarray) -> tuple[float, float]:
        found = decode_by(probe, target, owners, n_classes=3, n_permutations=199)
        return found.scores["accuracy"].value, found.p

    right, p = accuracy(chosen.values)
    assert right > 0.7 and p <= 0.005
    rng, mixed = np.random.default_rng(0), chosen.values.copy()
    for name in set(owners):
        rows = np.flatnonzero(np.array(owners) == name)
        mixed[rows] = rng.permutation(mixed[rows])
    right, p = accuracy(mixed)
    # three standard errors of 90 blocks
    assert abs(right - 1 / 3) < 0.15 and p > 0.01
