"""A second simulator of BOLD runs, built otherwise than `brainlm phantom`, for denoising alone.

In: a seed and a few strengths. Out: a raw run (X, Y, Z, T) that lies in template space, so that no
registration stands between it and its truth: motion matrices (T, 4, 4), parcel series (T, 424),
noise sources (T, K) and the averages that perfect geometry would see (T, 424).

What differs from the phantom: parcels follow overlapping latent sources with smooth random
loadings, driven by autoregressive neural noise through a haemodynamic response (no sharp cut in
frequency); voxels carry spatially smooth AR(1) noise beside the scanner's; a systemic low-frequency
signal reaches every place with a delay of its own; breathing and heart beat have a phase that
changes in space; drift is a random walk with another map for each of its terms; the approach to the
steady state is a plain exponential over several volumes; slices are interleaved, and spin history
follows the slice; the head moves in bursts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from brainlm_bids import resources
from brainlm_bids.preproc.motion.realign import parameters_to_matrices

Float = NDArray[np.floating]

VOXEL_MM = 4.0
SHAPE = (42, 50, 38)
CENTRE = np.array([0.0, -18.0, 14.0])
GREY, WHITE, CSF = range(3)
BRIGHTNESS = np.array([900.0, 760.0, 1250.0])
# Excess over the steady state at the first volume, and what is left of it after each volume.
EXCESS = np.array([0.35, 0.25, 0.90])
DECAY = np.array([0.45, 0.35, 0.70])
N_LATENT = 12


@dataclass(frozen=True)
class Strengths:
    """Standard deviations as a fraction of the brightness, but motion (mm and degrees at most)."""

    signal: float = 0.012
    thermal: float = 0.015
    voxel_noise: float = 0.006
    systemic: float = 0.007
    breathing: float = 0.006
    heart: float = 0.02
    drift: float = 0.010
    spin_history: float = 0.05
    motion: float = 1.0
    non_steady: bool = True


@dataclass(frozen=True)
class Simulation:
    """A run and its truth; see the module."""

    bold: NDArray[np.float32]  # (X, Y, Z, T)
    affine: Float
    tr: float
    matrices: Float  # (T, 4, 4), pull, reference pose to volume
    parameters: Float  # (T, 6)
    series: Float  # (T, 424)
    noise: Float  # (T, K) time courses of the noise, motion not among them
    oracle: Float  # (T, 424), NaN where a parcel is out of view
    n_non_steady: int  # leading volumes whose grey matter is over half a percent off


@dataclass(frozen=True)
class Head:
    """Tissue fractions (3, X, Y, Z), scalp (X, Y, Z), parcel of each voxel (X, Y, Z), 0: none."""

    tissues: NDArray[np.float32]
    scalp: NDArray[np.float32]
    parcel: NDArray[np.int64]
    affine: Float
    points: Float  # (P, 3) voxel coordinates of the atlas's own voxels
    labels: NDArray[np.int64]  # (P,)


def head_affine() -> Float:
    """(4, 4) of a grid whose middle is `CENTRE`."""
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = CENTRE - VOXEL_MM * (np.array(SHAPE) - 1) / 2
    return affine


@lru_cache(maxsize=1)
def head() -> Head:
    """The embedded template on the coarse grid, with a ring of scalp around it."""
    maps, affine = resources.tissue_maps(), head_affine()
    world = affine[:3, :3] @ np.indices(SHAPE).reshape(3, -1) + affine[:3, 3:]
    inverse = np.linalg.inv(maps.affine)
    voxels = inverse[:3, :3] @ world + inverse[:3, 3:]

    def sampled(volume: Float) -> NDArray[np.float32]:
        blurred = ndimage.gaussian_filter(volume.astype(np.float32), 1.5)
        return ndimage.map_coordinates(blurred, voxels, order=1).reshape(SHAPE).astype(np.float32)

    grey, white = sampled(maps.grey_matter), sampled(maps.white_matter)
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(grey + white > 0.25, iterations=3))
    csf = np.clip(brain - grey - white, 0, 1).astype(np.float32)
    distance = ndimage.distance_transform_edt(~brain) * VOXEL_MM
    scalp = ((distance > 7) & (distance < 14)).astype(np.float32)
    labels, atlas_affine = resources.approximate_atlas()
    index = np.argwhere(labels > 0)
    names = labels[tuple(index.T)].astype(np.int64)
    points = index @ atlas_affine[:3, :3].T + atlas_affine[:3, 3]
    inverse = np.linalg.inv(affine)
    points = points @ inverse[:3, :3].T + inverse[:3, 3]
    parcel = np.zeros(SHAPE, np.int64)
    nearest = np.rint(points).astype(int)
    inside = ((nearest >= 0) & (nearest < SHAPE)).all(axis=1)
    parcel[tuple(nearest[inside].T)] = names[inside]
    return Head(np.stack([grey, white, csf]), scalp, parcel, affine, points, names)


# --- time courses ----------------------------------------------------------------------------


def _unit(x: Float) -> Float:
    return np.asarray((x - x.mean(axis=0)) / x.std(axis=0))


def _bold_courses(rng: np.random.Generator, n: int, n_volumes: int, tr: float) -> Float:
    """(T, n) of unit variance: AR(1) neural noise through a double-gamma response."""
    step = 0.5
    time = np.arange(0, 32, step)
    response = time**5 * np.exp(-time) / 120 - time**15 * np.exp(-time) / (6 * 1.307674368e12)
    n_steps = int(np.ceil(n_volumes * tr / step)) + len(time)
    neural = signal.lfilter([1.0], [1.0, -0.7], rng.standard_normal((n_steps, n)), axis=0)
    bold = signal.lfilter(response, [1.0], neural, axis=0)[len(time) :]
    return _unit(bold[(np.arange(n_volumes) * tr / step).astype(int)])


def _parcel_series(rng: np.random.Generator, n_volumes: int, tr: float) -> Float:
    """(T, 424) of unit variance: overlapping latent sources, and a course of each parcel's own."""
    xyz = resources.parcels().xyz
    centres = xyz[rng.choice(len(xyz), N_LATENT, replace=False)]
    # mirrored: most sources have a homologue
    mirror = centres * np.array([-1.0, 1.0, 1.0])
    distance = np.minimum(
        np.linalg.norm(xyz[:, None] - centres, axis=2),
        np.linalg.norm(xyz[:, None] - mirror, axis=2),
    )
    loading = np.exp(-((distance / 28.0) ** 2)) * rng.choice([-1.0, 1.0, 1.0], N_LATENT)
    shared = _bold_courses(rng, N_LATENT, n_volumes, tr) @ loading.T
    return _unit(shared + 0.6 * _bold_courses(rng, len(xyz), n_volumes, tr))


def _cycle(rng: np.random.Generator, hertz: float, n_volumes: int, tr: float) -> Float:
    """(T, 2) cosine and sine of a rhythm whose rate walks at random by some percent."""
    rate = hertz * (1 + 0.05 * _unit(np.cumsum(rng.standard_normal(n_volumes))))
    phase = 2 * np.pi * np.cumsum(rate) * tr
    return np.column_stack([np.cos(phase), np.sin(phase)])


def _motion(rng: np.random.Generator, n_volumes: int, peak: float) -> Float:
    """(T, 6) mm and rad: bursts that leave the head elsewhere, over a slow slide and a tremor."""
    slide = np.linspace(0, 1, n_volumes)[:, None] * rng.normal(0, 0.6, 6)
    tremor = 0.02 * rng.standard_normal((n_volumes, 6))
    bursts = np.zeros((n_volumes, 6))
    for start in rng.integers(5, n_volumes, max(2, n_volumes // 50)):
        length = int(rng.integers(1, 5))
        path = np.cumsum(rng.normal(0, 0.35, (length, 6)), axis=0)
        bursts[start : start + length] += path[: n_volumes - start]
        bursts[start + length :] += 0.4 * path[-1]
    trace = slide + bursts + tremor
    trace -= trace[0]
    trace /= max(np.abs(trace).max(), 1e-9)
    return np.asarray(peak * trace * np.array([1.0, 1.0, 1.0, *[np.pi / 180] * 3]))


# --- the run ---------------------------------------------------------------------------------


def _smooth_map(rng: np.random.Generator, sigma: float) -> NDArray[np.float32]:
    field = ndimage.gaussian_filter(rng.standard_normal(SHAPE), sigma)
    return np.asarray(field / field.std(), np.float32)


@dataclass(frozen=True)
class _Sources:
    """What is added in the head (with maps that move with it) and at the scanner."""

    in_head: list[tuple[NDArray[np.float32], Float]]  # map, course
    at_scanner: list[tuple[NDArray[np.float32], Float]]
    systemic: list[tuple[NDArray[np.float32], Float]]

    def courses(self) -> Float:
        every = [*self.in_head, *self.at_scanner, *self.systemic]
        return np.column_stack([course for _, course in every])


def _sources(rng: np.random.Generator, strengths: Strengths, n_volumes: int, tr: float) -> _Sources:
    brain = head()
    heart, breath = (_cycle(rng, hertz, n_volumes, tr) for hertz in (1.13, 0.31))
    vessels = brain.tissues[CSF] * np.clip(1.2 + _smooth_map(rng, 4.0), 0, 3)
    turn = np.pi * _smooth_map(rng, 10.0)
    pulse = [
        (strengths.heart * vessels * f(turn), heart[:, i]) for i, f in enumerate((np.cos, np.sin))
    ]
    rim = 0.3 + brain.scalp + (np.linspace(1, 0, SHAPE[2]) ** 2).astype(np.float32)
    lag = 0.5 * np.pi * _smooth_map(rng, 12.0)
    air = [
        (strengths.breathing * rim * f(lag), breath[:, i]) for i, f in enumerate((np.cos, np.sin))
    ]
    walk = _unit(np.cumsum(rng.standard_normal((n_volumes, 2)), axis=0))
    time = np.linspace(-1, 1, n_volumes)
    drifts = np.column_stack([_unit(time), _unit(time**2), walk])
    slow = [
        (strengths.drift * (0.6 + 0.5 * _smooth_map(rng, 9.0)), drifts[:, i])
        for i in range(drifts.shape[1])
    ]
    # the same course early and late; a place in between gets a mixture of both
    course = _bold_courses(rng, 1, n_volumes + 4, tr)[:, 0]
    early = np.clip(0.5 + 0.3 * _smooth_map(rng, 8.0), 0, 1)
    blood = strengths.systemic * (brain.tissues[GREY] + 0.5 * brain.tissues[WHITE])
    systemic = [
        (blood * early, course[4 : 4 + n_volumes]),
        (blood * (1 - early), course[3 : 3 + n_volumes]),
    ]
    return _Sources(pulse, [*air, *slow], systemic)


def simulate(
    seed: int,
    *,
    n_volumes: int = 240,
    tr: float = 2.0,
    strengths: Strengths | None = None,
    parameters: Float | None = None,
) -> Simulation:
    """Make a run. `parameters` (T, 6) mm and rad replace the motion that the seed draws."""
    strengths = strengths or Strengths()
    rng = np.random.default_rng([20, seed])
    trace = _motion(rng, n_volumes, strengths.motion) if parameters is None else parameters
    affine = head_affine()
    matrices = parameters_to_matrices(trace, CENTRE)
    series = _parcel_series(rng, n_volumes, tr)
    sources = _sources(rng, strengths, n_volumes, tr)
    scanner = _Scanner(rng, strengths, matrices, sources)
    bold = np.empty((*SHAPE, n_volumes), np.float32)
    oracle = np.empty((n_volumes, 424))
    for t in range(n_volumes):
        still = _still_volume(strengths, sources, series[t], t)
        bold[..., t] = scanner.acquire(still, t)
        oracle[t] = _parcel_means(bold[..., t], matrices[t], affine)
    grey = EXCESS[GREY] * DECAY[GREY] ** np.arange(n_volumes)
    n_non_steady = int((grey > 0.005).sum()) if strengths.non_steady else 0
    return Simulation(
        bold, affine, tr, matrices, trace, series, sources.courses(), oracle, n_non_steady
    )


def _still_volume(strengths: Strengths, sources: _Sources, row: Float, t: int) -> Float:
    brain = head()
    signal_map = np.concatenate([[0.0], row])[brain.parcel] * brain.tissues[GREY]
    change = strengths.signal * signal_map
    for spatial, course in (*sources.in_head, *sources.systemic):
        change = change + spatial * course[t]
    excess = EXCESS * DECAY**t if strengths.non_steady else np.zeros(3)
    levels = BRIGHTNESS * (1 + excess)
    anatomy = np.tensordot(levels, brain.tissues, 1) + 320.0 * brain.scalp
    return np.asarray(ndimage.gaussian_filter(anatomy * (1 + change), 0.35), np.float32)


class _Scanner:
    """Turns a still head into a measured volume, one time point after another."""

    def __init__(
        self,
        rng: np.random.Generator,
        strengths: Strengths,
        matrices: Float,
        sources: _Sources,
    ) -> None:
        self.rng, self.strengths, self.matrices, self.sources = rng, strengths, matrices, sources
        self.affine = head_affine()
        self.shading = np.exp(0.15 * _smooth_map(rng, 10.0))
        self.coloured = np.zeros(SHAPE, np.float32)
        # odd slices come half a TR after the even ones: what moved between leaves a comb
        self.comb = np.where(np.arange(SHAPE[2]) % 2, 1.0, 0.4)

    def acquire(self, still: Float, t: int) -> NDArray[np.float32]:
        pull = np.linalg.inv(self.affine) @ np.linalg.inv(self.matrices[t]) @ self.affine
        volume = ndimage.affine_transform(still, pull[:3, :3], pull[:3, 3], order=3, mode="nearest")
        gain = self.shading.copy()
        for spatial, course in self.sources.at_scanner:
            gain *= 1 + spatial * course[t]
        step = self.matrices[t] @ np.linalg.inv(self.matrices[max(t - 1, 0)])
        moved = abs((step @ [*CENTRE, 1.0])[2] - CENTRE[2]) / VOXEL_MM
        gain *= 1 - self.strengths.spin_history * min(1.0, 2 * moved) * self.comb
        fresh = ndimage.gaussian_filter(self.rng.standard_normal(SHAPE), 0.8)
        self.coloured = 0.5 * self.coloured + np.asarray(fresh / 0.16, np.float32)
        coloured = self.strengths.voxel_noise * np.sqrt(0.75) * self.coloured
        thermal = self.strengths.thermal * BRIGHTNESS[GREY] * self.rng.standard_normal((2, *SHAPE))
        measured = np.hypot(volume * gain * (1 + coloured) + thermal[0], thermal[1])
        return np.asarray(np.rint(measured), np.float32)


def _parcel_means(volume: Float, matrix: Float, affine: Float) -> Float:
    """(424,) means of a measured volume where the parcels really are."""
    brain = head()
    pull = np.linalg.inv(affine) @ matrix @ affine
    points = pull[:3, :3] @ brain.points.T + pull[:3, 3:]
    values = ndimage.map_coordinates(volume, points, order=1, mode="constant", cval=np.nan)
    counts = np.bincount(brain.labels, minlength=425)[1:]
    return np.asarray(np.bincount(brain.labels, values, minlength=425)[1:] / np.maximum(counts, 1))
