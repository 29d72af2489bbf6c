"""The parts of a simulated recording: maps over the 424 parcels, activity of tasks, and motion.

Maps are (P, K) with rows of unit length: a sum of K independent courses of unit variance, weighted
by a row, has unit variance. Courses are (T, K), a row per volume.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from brainlm_bids.resources import parcels

Array = NDArray[np.float64]
# Distance over which own fluctuations are alike, mm, and that of a person's or a site's maps, for
# which mirrored parcels count as near: exp(-d² / 2L²).
NOISE_MM, MAP_MM, MOTION_MM = 10.0, 25.0, 20.0
# What a block makes the default mode network do while another network is active.
REST_OF_BRAIN = -0.3
GAP = 8.0  # s between blocks
STATES = ("visual", "salience", "executive", "motor", "default", "dorsal", "subcortical")


class Event(NamedTuple):
    """A block of a task: onset and duration in s, and the network that is active."""

    onset: float
    duration: float
    trial_type: str


@lru_cache(maxsize=8)
def smoothing(length: float, *, mirrored: bool) -> Array:
    """(P, P) matrix that makes fields of independent values smooth, with unit variance.

    Parameters
    ----------
    length
        L of exp(-d² / 2L²), the correlation of parcels at a distance d, mm.
    mirrored
        Whether parcels of the other hemisphere are as near as their mirror images.

    Returns
    -------
    ndarray
        (424, 424) with rows of unit length.

    Examples
    --------
    >>> made = smoothing(20.0, mirrored=False)
    >>> bool(np.allclose((made**2).sum(1), 1))
    True
    """
    xyz = parcels().xyz.astype(float)
    if mirrored:
        xyz = np.abs(xyz * [1, 0, 0]) + xyz * [0, 1, 1]
    squared = ((xyz[:, None] - xyz[None]) ** 2).sum(-1)
    values, vectors = np.linalg.eigh(np.exp(-squared / (2 * length**2)))
    return unit_rows(vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T)


def unit_rows(maps: Array) -> Array:
    """The maps with rows of unit length.

    >>> unit_rows(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    return np.asarray(maps / np.linalg.norm(maps, axis=1, keepdims=True))


def smooth_maps(rng: np.random.Generator, n_maps: int) -> Array:
    """(424, n_maps) random maps, smooth, alike in mirrored parcels, with rows of unit length."""
    made = smoothing(MAP_MM, mirrored=True)
    return unit_rows(made @ rng.normal(size=(len(made), n_maps)))


# --- tasks -----------------------------------------------------------------------------------


def blocks(
    rng: np.random.Generator, n_states: int, seconds: float, duration: float
) -> tuple[Event, ...]:
    """Blocks of a task in random order, each state once before any comes again.

    Parameters
    ----------
    rng
        Draws the order.
    n_states
        Number of states, at most seven.
    seconds
        Length of the recording.
    duration
        Of a block, s; 8 s without a state follow.

    Returns
    -------
    tuple of Event
        In the order of their onsets, those that end within the recording.

    Examples
    --------
    >>> made = blocks(np.random.default_rng(0), 2, 120.0, 24.0)
    >>> [one.onset for one in made], sorted({one.trial_type for one in made})
    ([8.0, 40.0, 72.0], ['salience', 'visual'])
    """
    if not n_states:
        return ()
    n_blocks = int((seconds - GAP) // (duration + GAP)) + 1
    onsets = GAP + (duration + GAP) * np.arange(n_blocks)
    onsets = onsets[onsets + duration <= seconds]
    rounds = -(-len(onsets) // n_states)
    order = np.concatenate([rng.permutation(n_states) for _ in range(max(rounds, 1))])
    return tuple(
        Event(float(onset), duration, STATES[k]) for onset, k in zip(onsets, order, strict=False)
    )


def haemodynamic_response(time: NDArray[np.floating]) -> Array:
    """The canonical response to a short stimulus: two gamma functions with peaks at 5 and 15 s.

    Parameters
    ----------
    time
        (n,) s since the stimulus.

    Returns
    -------
    ndarray
        (n,) largest value about 0.18.

    References
    ----------
    Friston KJ, Fletcher P, Josephs O, Holmes A, Rugg MD, Turner R (1998). Event-related fMRI:
    characterizing differential responses. NeuroImage 7:30-40.
    """
    return np.asarray(stats.gamma.pdf(time, 6) - stats.gamma.pdf(time, 16) / 6)


def activity(events: Sequence[Event], n_volumes: int, tr: float) -> Array:
    """Activity of the parcels during blocks, delayed by the haemodynamic response.

    Parameters
    ----------
    events
        Blocks, onsets in s from the first volume.
    n_volumes, tr
        T, and the repetition time in s.

    Returns
    -------
    ndarray
        (T, 424): 1 at the plateau in the active network, -0.3 in the others.

    Examples
    --------
    >>> made = activity([Event(10.0, 20.0, "visual")], 60, 1.0)
    >>> bool(made[:, 0].argmax() > 15), float(made[0, 0])
    (True, 0.0)
    """
    step = 0.1
    fine = np.arange(0, n_volumes * tr, step)
    response = haemodynamic_response(np.arange(0, 32, step)) * step
    volumes = np.minimum(np.round(np.arange(n_volumes) * tr / step).astype(int), len(fine) - 1)
    networks = parcels().network_index
    total = np.zeros((n_volumes, len(networks)))
    for k, name in enumerate(STATES, start=1):
        mine = [one for one in events if one.trial_type == name]
        if not mine:
            continue
        neural = np.zeros(len(fine))
        for one in mine:
            neural[(fine >= one.onset) & (fine < one.onset + one.duration)] = 1
        course = np.convolve(neural, response)[: len(fine)][volumes]
        total += course[:, None] * np.where(networks == k, 1.0, REST_OF_BRAIN)
    return total


# --- motion ----------------------------------------------------------------------------------


def head_motion(rng: np.random.Generator, n_volumes: int, mean_fd: float) -> tuple[Array, Array]:
    """Motion parameters with a given mean framewise displacement, and occasional jerks.

    Parameters
    ----------
    rng
        Draws the steps.
    n_volumes
        T.
    mean_fd
        Mean framewise displacement, mm.

    Returns
    -------
    parameters
        (T, 6) translations in mm and rotations in rad.
    displacement
        (T,) framewise displacement, mm, with rotations on a sphere of 50 mm; 0 in the first volume.

    Examples
    --------
    >>> _, displacement = head_motion(np.random.default_rng(0), 100, 0.2)
    >>> round(float(displacement[1:].mean()), 6)
    0.2
    """
    steps = rng.standard_t(4, (n_volumes, 6))
    # a jerk moves all axes at once
    steps *= np.where(rng.random((n_volumes, 1)) < 0.05, 4.0, 1.0)
    steps[0] = 0
    displacement = np.abs(steps).sum(1)
    factor = mean_fd / displacement[1:].mean()
    steps *= factor * np.array([1, 1, 1, 1 / 50, 1 / 50, 1 / 50])
    return np.cumsum(steps, axis=0), displacement * factor


def motion_artefact(rng: np.random.Generator, displacement: Array, n_parcels: int) -> Array:
    """What motion adds to a series: spikes everywhere, and noise that near parcels share.

    Parameters
    ----------
    rng
        Draws it.
    displacement
        (T,) framewise displacement, mm.
    n_parcels
        P.

    Returns
    -------
    ndarray
        (T, P), proportional to the displacement, in units of 0.2 mm.
    """
    strength = displacement / 0.2
    spikes = (strength * rng.choice([-1.0, 1.0], len(strength)))[:, None]
    profile = 1 + 0.3 * rng.normal(size=n_parcels)
    local = rng.normal(size=(len(strength), n_parcels)) @ smoothing(MOTION_MM, mirrored=False).T
    return np.asarray(0.3 * spikes * profile + 0.6 * strength.mean() * local)
