"""The simulated cohort: what was planted is in the series, as strong as was asked for."""

from dataclasses import replace

import numpy as np
import pytest

from brainlm_bids.phantom import cohort
from brainlm_bids.phantom.cohort import CohortOptions, draw_people, maps_of, record
from brainlm_bids.phantom.cohort_parts import STATES, activity, smoothing
from brainlm_bids.resources import parcels

SMALL = CohortOptions(subjects=12, seconds=240.0, trs=(2.0,))
DEFAULT_MODE = parcels().network_index == 5


def upper(matrix: np.ndarray) -> np.ndarray:
    return matrix[np.triu_indices(len(matrix), 1)]


def test_the_same_numbers_give_the_same_series_whatever_else_is_simulated() -> None:
    one = record(SMALL, draw_people(SMALL), 2)
    again = record(SMALL, draw_people(SMALL), 2)
    other = record(replace(SMALL, seed=1), draw_people(SMALL), 2)
    assert np.array_equal(one.series, again.series)
    assert not np.allclose(one.series, other.series)
    assert not np.allclose(one.series, record(SMALL, draw_people(SMALL), 2, 1, 2).series)


def test_series_have_the_planted_correlations() -> None:
    options = replace(SMALL, seconds=400.0, runs=60)
    people = draw_people(options)
    wanted = upper(maps_of(options, people, 1).correlation())
    runs = [record(options, people, 1, 1, run).series for run in range(1, 61)]
    found = upper(np.mean([np.corrcoef(one.T) for one in runs], axis=0))
    assert np.corrcoef(wanted, found)[0, 1] > 0.98
    assert abs(np.polyfit(wanted, found, 1)[0] - 1) < 0.06
    assert abs((found - wanted).mean()) < 0.02


def test_no_share_is_negative_whatever_is_switched_on() -> None:
    options = replace(SMALL, sites=2, icc=0.5)
    people = draw_people(options)._replace(strength=np.full(12, cohort.LIMIT))
    maps = maps_of(options, people, 1)
    assert maps.noise.min() > 0
    assert np.linalg.eigvalsh(maps.correlation()).min() > 0


def test_series_are_smooth_over_space_and_slow_in_time_as_bold_is() -> None:
    options = replace(SMALL, trs=(0.735,))
    series = record(options, draw_people(options), 1).series
    lag = [np.corrcoef(x[1:], x[:-1])[0, 1] for x in series.T]
    assert 0.5 < np.median(lag) < 0.95
    distance = np.linalg.norm(parcels().xyz[:, None] - parcels().xyz[None], axis=2)
    correlation = upper(np.corrcoef(series.T))
    near, far = upper(distance) < 15, upper(distance) > 80
    assert correlation[near].mean() > correlation[far].mean() + 0.2


def test_age_has_the_planted_correlation_with_strength_also_where_sites_differ_in_age() -> None:
    many = CohortOptions(subjects=20_000, age_effect=0.5, sites=3, site_age=1.0)
    people = draw_people(many)
    assert np.corrcoef(people.age, people.strength)[0, 1] == pytest.approx(0.5, abs=0.03)
    of_sites = [people.age[people.site == k].mean() for k in range(3)]
    spread = people.age[people.site == 0].std()
    assert np.diff(of_sites) / spread == pytest.approx([1, 1], abs=0.06)
    assert np.bincount(people.site).tolist() == [6667, 6667, 6666]


def test_strength_changes_coupling_and_amplitude_of_one_network_alone() -> None:
    people = draw_people(SMALL)
    low = people._replace(strength=np.full(12, -1.5))
    high = people._replace(strength=np.full(12, 1.5))
    change = maps_of(SMALL, high, 1).correlation() - maps_of(SMALL, low, 1).correlation()
    inside = np.outer(DEFAULT_MODE, DEFAULT_MODE) & ~np.eye(424, dtype=bool)
    assert np.median(change[inside]) == pytest.approx(3 * SMALL.coupling, rel=0.02)
    assert np.abs(change[~DEFAULT_MODE][:, ~DEFAULT_MODE]).max() < 1e-12
    ratio = cohort.amplitudes(SMALL, high, 1) / cohort.amplitudes(SMALL, low, 1)
    assert np.log(ratio[DEFAULT_MODE]) == pytest.approx(3 * SMALL.amplitude)
    assert ratio[~DEFAULT_MODE] == pytest.approx(1)


@pytest.mark.parametrize("icc", [0.0, 0.3, 0.8])
def test_connectivity_and_amplitude_have_the_planted_intraclass_correlation(icc: float) -> None:
    options = CohortOptions(subjects=80, sessions=2, icc=icc, age_effect=0.0)
    people = draw_people(options)
    people = people._replace(strength=np.zeros(80))
    edges = np.random.default_rng(0).integers(0, 424, (2, 500))
    edges = edges[:, edges[0] != edges[1]]
    for measure in (
        lambda k, s: maps_of(options, people, k, s).correlation()[edges[0], edges[1]],
        lambda k, s: np.log(cohort.amplitudes(options, people, k, s)),
    ):
        values = np.array([[measure(k, s) for s in (1, 2)] for k in range(1, 81)])
        deviation = values - values.mean(0)
        stable = (deviation[:, 0] * deviation[:, 1]).mean() / deviation.var()
        assert stable == pytest.approx(icc, abs=0.06)


def test_sites_shift_amplitudes_and_their_connectivity_survives_scaling() -> None:
    options = CohortOptions(subjects=40, sites=2, site_shift=0.3, site_connectivity=0.1)
    people = draw_people(options)
    logs = np.log([cohort.amplitudes(options, people, k) for k in range(1, 41)])
    shift = logs[people.site == 0].mean(0) - logs[people.site == 1].mean(0)
    assert shift.std() == pytest.approx(0.3 * np.sqrt(2), rel=0.15)
    spread = [logs[people.site == k].std(0).mean() for k in (0, 1)]
    assert spread[1] / spread[0] == pytest.approx(np.exp(0.6), rel=0.2)
    without = replace(options, site_connectivity=0.0)
    edges = [maps_of(options, people, k + 1).site for k in (0, 1)]
    assert all((one**2).sum(1) == pytest.approx(0.1) for one in edges)
    assert not maps_of(without, people, 1).site.any()


def test_blocks_raise_their_network_after_the_haemodynamic_delay() -> None:
    options = replace(SMALL, states=4, state_effect=2.0, seconds=600.0)
    one = record(options, draw_people(options), 1)
    assert {event.trial_type for event in one.events} == set(STATES[:4])
    time = np.arange(len(one.series)) * one.tr
    networks = parcels().network_index
    for k, name in enumerate(STATES[:4], start=1):
        course = one.series[:, networks == k].mean(1)
        on = np.zeros(len(time), bool)
        delayed = on.copy()
        for event in one.events:
            if event.trial_type == name:
                on |= (time >= event.onset) & (time < event.onset + event.duration)
                late = time - 5
                delayed |= (late >= event.onset) & (late < event.onset + event.duration)
        assert course[delayed].mean() - course[~delayed].mean() > 20
        assert course[delayed].mean() > course[on].mean()
    assert activity((), 10, 2.0).shape == (10, 424)


def test_motion_leaves_spikes_and_distance_dependent_correlation_only_if_asked_for() -> None:
    options = replace(SMALL, seconds=1200.0)
    people = draw_people(options)._replace(mean_fd=np.full(12, 0.3))
    still, moved = record(options, people, 1), record(replace(options, motion=1.0), people, 1)
    assert np.array_equal(still.displacement, moved.displacement)
    added = moved.series - still.series
    assert np.corrcoef(np.abs(added).mean(1), still.displacement)[0, 1] > 0.5
    distance = np.linalg.norm(parcels().xyz[:, None] - parcels().xyz[None], axis=2)
    correlation = upper(np.corrcoef(added.T))
    near, far = upper(distance) < 15, upper(distance) > 100
    assert correlation[near].mean() > correlation[far].mean() + 0.2
    # parameters and displacement agree
    steps = np.abs(np.diff(moved.parameters, axis=0)) @ [1, 1, 1, 50, 50, 50]
    assert steps == pytest.approx(moved.displacement[1:])


def test_smoothing_has_the_correlation_that_it_says() -> None:
    made = smoothing(20.0, mirrored=False)
    xyz = parcels().xyz.astype(float)
    squared = ((xyz[:, None] - xyz[None]) ** 2).sum(-1)
    assert np.corrcoef(upper(made @ made.T), upper(np.exp(-squared / 800)))[0, 1] > 0.999
