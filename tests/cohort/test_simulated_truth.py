"""What was planted in a simulated cohort is found as theory allows, and nothing else is."""

from collections.abc import Callable, Iterable
from statistics import NormalDist

import numpy as np
import pytest

from brainlm_bids.cohort import decoding, harmonisation, reliability
from brainlm_bids.cohort.coding import understand
from brainlm_bids.cohort.decoding import decode, fisher_z, linear_predictions, score
from brainlm_bids.cohort.folds import Split, leave_one_site_out, splits
from brainlm_bids.cohort.variables import design
from brainlm_bids.phantom.cohort import (
    PLANTED_NETWORK,
    CohortOptions,
    People,
    draw_people,
    recordings,
)
from brainlm_bids.resources import parcels

PLANTED = parcels().network_index == PLANTED_NETWORK
LEVEL = 0.05
SOME = np.arange(0, 424, 4)  # a quarter of the parcels: 5565 correlations


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


@pytest.fixture
def one_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """p values are those of the first repeat; the others only take time."""
    monkeypatch.setattr(decoding, "MAXIMUM_REPEATS", 1)


def power(correlation: float, n_people: int) -> float:
    """Of a one-sided test of a correlation at a level of 0.05, by Fisher's transformation."""
    normal = NormalDist()
    return normal.cdf(np.arctanh(correlation) * np.sqrt(n_people - 3) - normal.inv_cdf(1 - LEVEL))


def is_found(measure: np.ndarray, age: np.ndarray, seed: int) -> bool:
    """By held-out predictions and the permutation test of the group level."""
    people = labels(len(age))
    return decode(measure[:, None], age, people, n_permutations=99, seed=seed).p <= LEVEL


def test_planted_age_is_found_with_the_power_that_theory_allows_and_not_after_shuffling(
    one_repeat: None,
) -> None:
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


def held_out_r(
    features: Callable[[Split], np.ndarray], age: np.ndarray, folds: Iterable[Split]
) -> float:
    """Correlation of age with held-out predictions, both relative to the training mean."""
    names, predicted = labels(len(age)), np.empty((len(age), 2))
    for split in folds:
        predicted[split[1]] = linear_predictions(features(split), age, names, split)
    return score(age, predicted, names, n_classes=0, seed=0)["pearson_r"].value


def four_ways(values: np.ndarray, people: People) -> dict[str, float]:
    """How well age is decoded: as it is, and with each way to take care of sites."""
    n = len(people.age)
    names, site = labels(n), [f"site{k + 1}" for k in people.site]
    each, place = np.array(names), np.array(site)

    def even(split: Split) -> np.ndarray:
        record = harmonisation.fit(values[split[0]], place[split[0]])
        return harmonisation.apply(record, values, place)

    folds = list(splits(each, 5, 0, sites=site))
    confounds = design([understand("site", site, names)])
    regressed = decode(values, people.age, names, confounds=confounds).scores["pearson_r"]
    # within the site that was left out: a shift of the whole site says nothing of its people
    of_sites = []
    for split in leave_one_site_out(each, site):
        predicted = linear_predictions(values, people.age, names, split)[:, 0]
        of_sites.append(np.corrcoef(predicted, people.age[split[1]])[0, 1])
    return {
        "as it is": held_out_r(lambda split: values, people.age, folds),
        "ComBat": held_out_r(even, people.age, folds),
        "regressed out": regressed.value,
        "leave a site out": float(np.mean(of_sites)),
    }


def test_a_pure_site_effect_is_decoded_unless_sites_are_taken_care_of(one_repeat: None) -> None:
    """Age differs between three sites alone; so do connectivity and amplitude."""
    results: dict[str, list[dict[str, float]]] = {"connectivity": [], "amplitude": []}
    for seed in range(4):
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
