"""A cohort whose truth is known: people, and the parcel series of their recordings.

Options in, arrays out; no files. A series is a sum of parts whose shares of the variance add up to
one, so that the population correlation of two parcels is a sum too (`Maps.correlation`):

* a course of each of the seven networks;
* maps of the person, smooth over space, a stable part and one that is new in every session; their
  shares make the intraclass correlation of every edge exactly the planted one;
* maps of the site; a course that all parcels share; smooth noise with the spectrum of BOLD; and
  white noise.

It is then multiplied by an amplitude per parcel, which has a part of the person, of the session and
of the site. Blocks of a task add activity, head motion adds spikes and noise that near parcels
share. The planted strength of a person changes coupling and amplitude of the default mode network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.parcels.scaling import UKB_SD_DEMEANED
from brainlm_bids.phantom.cohort_parts import (
    NOISE_MM,
    Event,
    activity,
    blocks,
    head_motion,
    motion_artefact,
    smooth_maps,
    smoothing,
)
from brainlm_bids.phantom.courses import N_NETWORKS, haemodynamic_series
from brainlm_bids.preproc.denoising.temporal import GRAND_MEAN, highpass_matrix
from brainlm_bids.resources import parcels

Array = NDArray[np.float64]
PLANTED_NETWORK = 5  # the default mode network, whose coupling and amplitude follow the strength
# Shares of the variance.
NETWORK_SHARE, PERSON_SHARE, COMMON_SHARE, WHITE_SHARE = 0.25, 0.22, 0.05, 0.08
LIMIT = 2.0  # largest strength, so that no share is negative
N_PERSON_MAPS, N_SITE_MAPS = 4, 3
# Standard deviations of log amplitude: over parcels, over people per parcel and as a whole.
PARCEL_SPREAD, PERSON_SPREAD, WHOLE_SPREAD = 0.35, 0.15, 0.10
MEAN_FD, FD_SPREAD = 0.15, 0.4  # mm; sd of its logarithm over people
YEARS = (50.0, 17.0)  # mean and standard deviation of age
# First numbers of seeds, which tell what is drawn.
_PEOPLE, _PERSON, _SESSION, _RUN, _SITE, _PARCELS = range(11, 17)


@dataclass(frozen=True)
class CohortOptions:
    """What a simulated cohort is like.

    Attributes
    ----------
    subjects, sessions, runs
        Number of people, of sessions of each, and of runs of each session.
    seconds
        Length of a recording, s.
    trs
        Repetition times, s, which people get in turn.
    sites
        Number of sites; people are spread over them evenly.
    site_shift
        Standard deviation over parcels of a site's change of log amplitude.
    site_scale
        Sites differ in how much amplitudes vary between people, by factors from
        exp(−site_scale) to exp(site_scale).
    site_connectivity
        Share of the variance that follows maps of the site, which own scaling does not remove.
    site_age
        Difference in mean age from one site to the next, in standard deviations within a site.
    age_effect
        Correlation of age with the planted strength. No decoding can exceed it but by chance.
    coupling, amplitude
        What one standard deviation of the strength adds to the share of the variance that follows
        the network's course (at most 0.08), and to log amplitude.
    states
        Number of task states, 0 to 7; 0: rest.
    state_effect
        Activity at the plateau of a block, in standard deviations of a parcel.
    block
        Length of a block, s.
    motion
        Strength of motion's effect on the series; 0: none, 1: as strong as a standard deviation at
        a framewise displacement of some 0.3 mm.
    icc
        Share of the variance between recordings of amplitudes, and of correlations, that is stable
        from session to session: their intraclass correlation without measurement error.
    seed
        Seed. What a person's recordings hold does not depend on the number of people, apart from
        age, site and repetition time.
    """

    subjects: int = 24
    sessions: int = 1
    runs: int = 1
    seconds: float = 300.0
    trs: tuple[float, ...] = (0.735,)
    sites: int = 1
    site_shift: float = 0.3
    site_scale: float = 0.3
    site_connectivity: float = 0.1
    site_age: float = 0.0
    age_effect: float = 0.6
    coupling: float = 0.08
    amplitude: float = 0.15
    states: int = 0
    state_effect: float = 0.8
    block: float = 24.0
    motion: float = 0.0
    icc: float = 0.6
    seed: int = 42


class People(NamedTuple):
    """The people of a cohort, a value per person.

    Attributes
    ----------
    age
        Years.
    sex, diagnosis
        F or M, control or patient: neither has anything to do with the series.
    site
        Numbers from 0.
    tr
        Repetition time, s.
    mean_fd
        Mean framewise displacement, mm.
    strength
        The planted variable, in standard deviations from its mean.
    """

    age: Array
    sex: NDArray[np.str_]
    diagnosis: NDArray[np.str_]
    site: NDArray[np.int64]
    tr: Array
    mean_fd: Array
    strength: Array


@dataclass(frozen=True)
class Maps:
    """What determines the correlations of a recording.

    Attributes
    ----------
    network
        (P,) share of the variance that follows the course of the parcel's network.
    person, site
        (P, K) maps whose rows have the shares as squared lengths.
    common
        Share of the course that all parcels have in common.
    """

    network: Array
    person: Array
    site: Array
    common: float = COMMON_SHARE

    @cached_property
    def noise(self) -> Array:
        """(P,) the rest, which is noise with the spectrum of BOLD."""
        shared = self.network + (self.person**2).sum(1) + (self.site**2).sum(1)
        return np.asarray(1 - WHITE_SHARE - self.common - shared)

    def correlation(self) -> Array:
        """(P, P) population correlation of the parcels, without task and motion."""
        networks = parcels().network_index
        same = networks[:, None] == networks[None]
        noise = np.sqrt(self.noise)[:, None] * smoothing(NOISE_MM, mirrored=False)
        total = same * np.sqrt(np.outer(self.network, self.network)) + self.common
        total += self.person @ self.person.T + self.site @ self.site.T + noise @ noise.T
        return np.asarray(total + WHITE_SHARE * np.eye(len(networks)))


class Recording(NamedTuple):
    """One recording.

    Attributes
    ----------
    subject, session, run
        Numbers from 1.
    tr
        Repetition time, s.
    series
        (T, 424) denoised series of the steady state, high-pass filtered, grand mean 10000.
    parameters, displacement
        (T, 6) of head motion, mm and rad; (T,) framewise displacement, mm.
    events
        Blocks of the task, onsets in s from the first volume of the series.
    """

    subject: int
    session: int
    run: int
    tr: float
    series: Array
    parameters: Array
    displacement: Array
    events: tuple[Event, ...]


def draw_people(options: CohortOptions) -> People:
    """Draw the people of a cohort.

    Parameters
    ----------
    options
        Of the cohort.

    Returns
    -------
    People
        (N,) each.

    Examples
    --------
    >>> people = draw_people(CohortOptions(subjects=4000, age_effect=0.5))
    >>> round(float(np.corrcoef(people.age, people.strength)[0, 1]), 1)
    0.5
    """
    n, r = options.subjects, options.age_effect
    rng = np.random.default_rng([_PEOPLE, options.seed])
    site = rng.permutation(np.arange(n) % options.sites)
    turn = rng.permutation(np.arange(n) % len(options.trs))
    # uniform with unit variance within a site, before sites differ
    places = site - (options.sites - 1) / 2
    age = rng.uniform(-np.sqrt(3), np.sqrt(3), n) + options.site_age * places
    age /= np.sqrt(1 + (options.site_age**2) * (options.sites**2 - 1) / 12)
    strength = r * age + np.sqrt(1 - r**2) * rng.uniform(-np.sqrt(3), np.sqrt(3), n)
    return People(
        np.clip(YEARS[0] + YEARS[1] * age, 18, 95).round(1),
        rng.choice(["F", "M"], n),
        rng.choice(["control", "patient"], n),
        site,
        np.array(options.trs, dtype=np.float64)[turn],
        MEAN_FD * np.exp(FD_SPREAD * rng.normal(size=n)),
        np.clip(strength, -LIMIT, LIMIT),
    )


def maps_of(options: CohortOptions, people: People, subject: int, session: int = 1) -> Maps:
    """What determines the correlations in the recordings of a session.

    Parameters
    ----------
    options, people
        Of the cohort.
    subject, session
        Numbers from 1.

    Returns
    -------
    Maps
        Their population correlation is `Maps.correlation()`.

    Examples
    --------
    >>> options = CohortOptions()
    >>> maps = maps_of(options, draw_people(options), 1)
    >>> bool(np.allclose(np.diag(maps.correlation()), 1))
    True
    """
    networks = parcels().network_index
    share = np.full(len(networks), NETWORK_SHARE)
    share[networks == PLANTED_NETWORK] += options.coupling * people.strength[subject - 1]
    stable = smooth_maps(_rng(_PERSON, options, subject), N_PERSON_MAPS)
    new = smooth_maps(_rng(_SESSION, options, subject, session), N_PERSON_MAPS)
    # correlations are linear in these shares, and their variances add up: icc to 1 - icc
    person = np.sqrt(PERSON_SHARE) * np.hstack(
        [options.icc**0.25 * stable, (1 - options.icc) ** 0.25 * new]
    )
    site = np.zeros((len(networks), N_SITE_MAPS))
    if options.sites > 1:
        drawn = smooth_maps(_rng(_SITE, options, int(people.site[subject - 1]) + 1), N_SITE_MAPS)
        site = np.sqrt(options.site_connectivity) * drawn
    return Maps(share, person, site)


def amplitudes(options: CohortOptions, people: People, subject: int, session: int = 1) -> Array:
    """Standard deviations of the parcels in the recordings of a session.

    Parameters
    ----------
    options, people
        Of the cohort.
    subject, session
        Numbers from 1.

    Returns
    -------
    ndarray
        (P,) in units in which the grand mean is 10000, before the high-pass filter.
    """
    networks, place = parcels().network_index, int(people.site[subject - 1])
    n, spread = len(networks), PERSON_SPREAD
    logarithm = PARCEL_SPREAD * np.random.default_rng([_PARCELS, options.seed]).normal(size=n)
    logarithm += options.amplitude * people.strength[subject - 1] * (networks == PLANTED_NETWORK)
    deviation = np.zeros(n)
    for share, rng in (
        (options.icc, _rng(_PERSON, options, subject, 1)),
        (1 - options.icc, _rng(_SESSION, options, subject, session, 1)),
    ):
        drawn = spread * rng.normal(size=n) + WHOLE_SPREAD * rng.normal()
        deviation += np.sqrt(share) * drawn
    if options.sites > 1:
        logarithm += options.site_shift * _rng(_SITE, options, place + 1, 1).normal(size=n)
        deviation *= np.exp(options.site_scale * np.linspace(-1, 1, options.sites)[place])
    return np.asarray(UKB_SD_DEMEANED * np.exp(logarithm + deviation))


def record(
    options: CohortOptions, people: People, subject: int, session: int = 1, run: int = 1
) -> Recording:
    """Simulate one recording.

    Parameters
    ----------
    options, people
        Of the cohort.
    subject, session, run
        Numbers from 1.

    Returns
    -------
    Recording
        Always the same for the same numbers.

    Examples
    --------
    >>> options = CohortOptions(seconds=120, trs=(2.0,))
    >>> record(options, draw_people(options), subject=3).series.shape
    (60, 424)
    """
    rng = _rng(_RUN, options, subject, session, run)
    tr = float(people.tr[subject - 1])
    n_volumes = max(2, round(options.seconds / tr))
    series = _fluctuations(maps_of(options, people, subject, session), rng, n_volumes, tr)
    events = blocks(rng, options.states, n_volumes * tr, options.block)
    series += options.state_effect * activity(events, n_volumes, tr)
    mean_fd = people.mean_fd[subject - 1] * np.exp(0.2 * rng.normal())
    parameters, displacement = head_motion(rng, n_volumes, mean_fd)
    if options.motion:
        series += options.motion * motion_artefact(rng, displacement, series.shape[1])
    series = _highpass(n_volumes, tr) @ series
    brightness = np.random.default_rng([_PARCELS, options.seed, 1]).uniform(-500, 500, 424)
    series = GRAND_MEAN + brightness + amplitudes(options, people, subject, session) * series
    return Recording(subject, session, run, tr, series, parameters, displacement, events)


def recordings(options: CohortOptions, people: People | None = None) -> Iterator[Recording]:
    """Simulate all recordings of a cohort, one after another.

    Parameters
    ----------
    options
        Of the cohort.
    people
        Its people; None: drawn by the options.

    Yields
    ------
    Recording
        By subject, session and run.
    """
    drawn = draw_people(options) if people is None else people
    for subject in range(1, options.subjects + 1):
        for session in range(1, options.sessions + 1):
            for run in range(1, options.runs + 1):
                yield record(options, drawn, subject, session, run)


def _rng(kind: int, options: CohortOptions, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([kind, options.seed, *numbers])


def _fluctuations(maps: Maps, rng: np.random.Generator, n_volumes: int, tr: float) -> Array:
    """(T, P) of unit variance: the sum of all parts but task and motion."""
    n_parcels = len(maps.network)
    shared = [maps.person, maps.site, np.full((n_parcels, 1), np.sqrt(maps.common))]
    of_maps = np.hstack(shared)
    courses = haemodynamic_series(rng, N_NETWORKS + of_maps.shape[1], n_volumes, tr)
    networks = courses[:, :N_NETWORKS][:, parcels().network_index - 1]
    series = networks * np.sqrt(maps.network) + courses[:, N_NETWORKS:] @ of_maps.T
    own = haemodynamic_series(rng, n_parcels, n_volumes, tr, cutoff=0.2)
    series += (own @ smoothing(NOISE_MM, mirrored=False).T) * np.sqrt(maps.noise)
    return np.asarray(series + np.sqrt(WHITE_SHARE) * rng.normal(size=series.shape))


@lru_cache(maxsize=8)
def _highpass(n_volumes: int, tr: float) -> Array:
    return highpass_matrix(n_volumes, tr)
