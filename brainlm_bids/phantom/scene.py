"""One BOLD run: an anatomy in the scanner, and its volumes (X, Y, Z), one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.phantom.acquisition import Acquisition
from brainlm_bids.phantom.courses import saturation
from brainlm_bids.phantom.echoes import ECHO_TIME, decay_rates
from brainlm_bids.phantom.field import Distortion
from brainlm_bids.phantom.head import (
    CSF,
    GREY,
    WHITE,
    Warp,
    apply_affine,
    ellipsoid,
    epi_tissues,
    signal_left,
)
from brainlm_bids.phantom.slices import Moment
from brainlm_bids.resources import parcels

MARGIN = 14.0  # mm of simulated head around the field of view, for motion to bring in
POINT_SPREAD = 1.0 / 3.5  # sd in voxels, added to that of the cubic B-spline: FWHM about one voxel
GREY_LEVEL = 4000.0  # intensity of grey matter: steps of int16 stay far below the signals
SIGNAL = 0.01  # sd of the parcel series as a fraction of grey matter: swings of 2-3 %
NOISE = 0.015  # sd of the thermal noise as a fraction of grey matter
SINGLE_BAND_NOISE = 0.4  # that of a single-band reference, as a fraction of it


@dataclass(frozen=True)
class Scene:
    """The subject in the reference pose on a grid of half voxels, as cubic B-spline coefficients.

    base (X', Y', Z'), tissues (3, X', Y', Z'); sparse parcels (N, 424), cardiac and global_signal
    (N,) are of the elements at a flat index (N,) of the (X', Y') rows and a layer (N,) along Z',
    by which they are sorted. All in units of intensity.
    """

    base: np.ndarray
    tissues: np.ndarray
    row: np.ndarray
    layer: np.ndarray
    parcels: sparse.csr_matrix
    cardiac: np.ndarray
    global_signal: np.ndarray
    voxel_to_grid: np.ndarray  # (4, 4), of the BOLD
    decay: np.ndarray | None = None  # base times R2* in 1/s, for one of several echoes


def bold_affine(shape: tuple[int, int, int], voxel: float, centre: np.ndarray) -> np.ndarray:
    """Affine (4, 4) of a BOLD stored as LAS with its middle at centre (3,) mm."""
    affine = np.diag([-voxel, voxel, voxel, 1.0])
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def half_voxels(shape: tuple[int, int, int], voxel: float) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape of a grid of half voxels with a margin, and its matrix (4, 4) to voxels."""
    edge = int(np.ceil(2 * MARGIN / voxel))
    # middles of half voxels lie at -0.25 and +0.25 of a voxel
    grid_to_voxel = np.diag([0.5, 0.5, 0.5, 1.0])
    grid_to_voxel[:3, 3] = -0.25 - edge / 2
    return tuple(2 * n + 2 * edge for n in shape), grid_to_voxel


def template_points(warp: Warp, grid_to_t1w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Points (3, N) in MNI of all elements of a grid, given its matrix (4, 4) to the T1w."""
    voxels = np.indices(shape, dtype=np.float32).reshape(3, -1)
    return warp.to_template(apply_affine(grid_to_t1w, voxels).T).T


def build_scene(
    warp: Warp,
    bold_to_t1w: np.ndarray,
    affine: np.ndarray,
    acquisition: Acquisition,
    echo_time: float | None = None,
) -> Scene:
    """Sample the warped template around the BOLD's field of view and blur it by the point spread.

    The parcels are those of the embedded atlas continued over all grey matter: the nearest of the
    424 centroids. echo_time in s: of one of several echoes.
    """
    shape, grid_to_voxel = half_voxels(acquisition.shape, acquisition.voxel)
    points = template_points(warp, bold_to_t1w @ affine @ grid_to_voxel, shape)
    tissues, intensity = epi_tissues(points)
    if acquisition.switches["dropout"]:
        intensity = intensity * signal_left(points)
    intensity = (GREY_LEVEL * intensity).astype(np.float32)
    rates, of_oxygen = None, 1.0
    if echo_time is not None:
        rates = decay_rates(points, tissues, acquisition.switches["dropout"])
        intensity = (intensity * np.exp(-(echo_time - ECHO_TIME) * rates)).astype(np.float32)
        of_oxygen = echo_time / ECHO_TIME
    blur = 2 * POINT_SPREAD
    brain = np.flatnonzero(ndimage.binary_dilation(_closed(tissues, shape), iterations=3))
    brain = brain[np.argsort(brain % shape[2], kind="stable")]
    vessels = np.exp(-ellipsoid(points, (0.0, -8.0, -28.0), (14.0, 18.0, 16.0)))
    pulsating = intensity * (0.025 * tissues[CSF] + 0.02 * vessels)
    blood = of_oxygen * intensity * (0.005 * tissues[GREY] + 0.0025 * tissues[WHITE])
    signal = of_oxygen * SIGNAL * intensity * tissues[GREY]

    def blurred(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values.reshape(shape).astype(np.float32), blur)

    return Scene(
        base=blurred(intensity),
        tissues=np.stack([blurred(tissue) for tissue in tissues]),
        row=brain // shape[2],
        layer=brain % shape[2],
        parcels=_parcel_maps(points, signal, shape, blur, brain),
        cardiac=blurred(pulsating).ravel()[brain],
        global_signal=blurred(blood).ravel()[brain],
        voxel_to_grid=np.linalg.inv(grid_to_voxel),
        decay=None if rates is None else blurred(intensity * rates),
    )


def _closed(tissues: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(tissues.sum(0).reshape(shape) > 0.05)


def _parcel_maps(
    points: np.ndarray,
    amplitude: np.ndarray,
    shape: tuple[int, ...],
    blur: float,
    brain: np.ndarray,
) -> sparse.csr_matrix:
    """Blurred maps (N, 424) of what one sd of each parcel adds to the image, at brain (N,)."""
    grey = np.flatnonzero(amplitude > 1e-3 * SIGNAL * GREY_LEVEL)
    nearest = cKDTree(parcels().xyz).query(points[:, grey].T)[1]
    rows = np.full(int(np.prod(shape)), -1)
    rows[brain] = np.arange(brain.size)
    reach = int(3 * blur + 1)
    order = np.argsort(nearest, kind="stable")
    bounds = np.searchsorted(nearest[order], np.arange(N_PARCELS + 1))
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for parcel in range(N_PARCELS):
        members = grey[order[bounds[parcel] : bounds[parcel + 1]]]
        if members.size == 0:
            continue
        where = np.array(np.unravel_index(members, shape))
        low = np.maximum(where.min(1) - reach, 0)
        high = np.minimum(where.max(1) + reach + 1, shape)
        box = np.zeros(high - low, np.float32)
        box[tuple(where - low[:, None])] = amplitude[members]
        box = ndimage.gaussian_filter(box, blur, mode="constant", truncate=3.0)
        inside = np.array(np.nonzero(box > 1e-3 * SIGNAL * GREY_LEVEL))
        row = rows[np.ravel_multi_index(tuple(inside + low[:, None]), shape)]
        kept = row >= 0
        column = np.full(kept.sum(), parcel)
        entries.append((row[kept], column, box[tuple(inside[:, kept])]))
    row, column, value = (np.concatenate(parts) for parts in zip(*entries))
    return sparse.csr_matrix((value, (row, column)), shape=(brain.size, N_PARCELS))


@dataclass(frozen=True)
class Run:
    """Everything that is decided before the volumes of one run are made."""

    scene: Scene
    affine: np.ndarray
    matrices: np.ndarray  # (T, 4, 4)
    series: np.ndarray  # (T, 424)
    courses: Mapping[str, np.ndarray]
    acquisition: Acquisition
    distortion: Distortion | None = None
    # where slices have times of their own: what is different then, and which slice (Z,) sees which
    moments: tuple[Moment, ...] = ()
    group: np.ndarray | None = None

    def shots(self) -> list[tuple[slice, Moment]]:
        """What is acquired at once: voxels, of a flat volume, and the head that they see."""
        if self.group is None:
            return [(slice(None), Moment(self.matrices, self.series, self.courses))]
        n_slices = len(self.group)
        return [(slice(k, None, n_slices), self.moments[g]) for k, g in enumerate(self.group)]


@dataclass
class View:
    """Samples an image of the head as a volume shows it; a field is followed between volumes.

    voxel_to_grid (4, 4): from the volume's voxels to elements of that image, in the reference pose.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]
    voxel_to_grid: np.ndarray
    distortion: Distortion | None

    def __post_init__(self) -> None:
        self.voxels = np.indices(self.shape).reshape(3, -1)
        self.world = apply_affine(self.affine, self.voxels)
        self.hertz = np.zeros(self.world.shape[1])

    def __call__(self, coefficients: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """Volume (V,) of cubic B-spline coefficients; motion (4, 4): reference pose to volume."""
        places, density = self.places(motion, slice(None))
        return _sampled(coefficients, places) * density

    def places(self, motion: np.ndarray, which: slice) -> tuple[np.ndarray, np.ndarray]:
        """Where (3, N) in the image some voxels look, and the density (N,) of what they see."""
        to_grid = self.voxel_to_grid @ np.linalg.inv(self.affine) @ np.linalg.inv(motion)
        if self.distortion is None:
            places = apply_affine(to_grid @ self.affine, self.voxels[:, which])
            return places, np.ones(places.shape[1], np.float32)
        world = self.world[:, which]
        hertz, density = self.distortion.sources(world, motion, self.hertz[which])
        self.hertz[which] = hertz
        places = apply_affine(to_grid, world - hertz * self.distortion.step[:, None])
        return places, density.astype(np.float32)


def _sampled(coefficients: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.asarray(
        ndimage.map_coordinates(coefficients, places, order=3, prefilter=False, mode="nearest")
    )


def volumes(
    run: Run, rng: np.random.Generator, noise: np.random.Generator | None = None
) -> Iterator[np.ndarray]:
    """Yield the noisy volumes (X, Y, Z) float32 in turn; noise: rng of the thermal noise.

    What moves with the head is synthesised in the reference pose and sampled once through the
    motion; coil, drift, breathing and thermal noise belong to the scanner and are added after.
    """
    acquisition, scene = run.acquisition, run.scene
    switches, shape = acquisition.switches, acquisition.shape
    levels = saturation(acquisition.n_volumes, acquisition.tr) - 1
    if not switches["non_steady"]:
        levels *= 0
    view = View(run.affine, shape, scene.voxel_to_grid, run.distortion)
    world = view.world
    coil, maps = _scanner_maps(world, run, rng)
    history: np.ndarray = np.zeros(world.shape[1], np.float32)
    last: np.ndarray = np.zeros(world.shape[1])
    sigma = np.float32(NOISE * GREY_LEVEL)
    for t in range(acquisition.n_volumes):
        volume: np.ndarray = np.empty(world.shape[1], np.float32)
        height: np.ndarray = np.empty(world.shape[1])
        for which, moment in run.shots():
            matrix = moment.matrices[t]
            places, density = view.places(matrix, which)
            still, lowest = _seen_layers(scene, moment, t, levels[t], places[2])
            places[2] -= lowest
            volume[which] = _sampled(still, places) * density * _gain(coil, maps, moment, t, which)
            height[which] = apply_affine(np.linalg.inv(matrix), world[:, which])[2]
        if switches["spin_history"]:
            # spins that enter a slice have seen another number of excitations (Friston 1996)
            height -= world[2]
            history = 0.3 * history + np.abs(height - last if t else 0.0) / acquisition.voxel
            last = height
            volume *= 1 - 0.1 * np.minimum(history, 1.0)
        if switches["thermal_noise"]:
            volume = _with_noise(volume, sigma, noise or rng)
        yield volume.reshape(shape).astype(np.float32)


def _seen_layers(
    scene: Scene, moment: Moment, t: int, level: np.ndarray, heights: np.ndarray
) -> tuple[np.ndarray, int]:
    """Coefficients (X', Y', n) of the head at time t, not moved, and the number of the first layer.

    They are those that a cubic B-spline needs at heights (N,). level (3,): by which share grey,
    white and CSF are brighter than in the steady state.
    """
    depth = scene.base.shape[2]
    low = int(np.clip(np.floor(heights.min()) - 2, 0, depth - 1))
    high = int(np.clip(np.ceil(heights.max()) + 3, low + 1, depth))
    still = scene.base[:, :, low:high].copy()
    rows = slice(*np.searchsorted(scene.layer, [low, high]))
    change = scene.parcels[rows] @ moment.series[t].astype(np.float32)
    if "cardiac" in moment.courses:
        change += scene.cardiac[rows] * np.float32(moment.courses["cardiac"][t])
    if "global_signal" in moment.courses:
        change += scene.global_signal[rows] * np.float32(moment.courses["global_signal"][t])
    still.reshape(-1)[scene.row[rows] * (high - low) + scene.layer[rows] - low] += change
    if np.abs(level).max() > 1e-3:
        tissues = scene.tissues[..., low:high]
        still *= 1 + np.tensordot(level.astype(np.float32), tissues, 1)
    return still, low


def single_band(run: Run, coil: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
    """Volume (X, Y, Z) of a single-band reference: the pose of the reference, full magnetisation.

    It has the contrast of T1, no physiological noise and little thermal noise; the field and the
    coil are those of the run. coil: as `volumes` is given, to draw the same.
    """
    acquisition, scene = run.acquisition, run.scene
    view = View(run.affine, acquisition.shape, scene.voxel_to_grid, run.distortion)
    level = saturation(1, acquisition.tr)[0] - 1
    still = scene.base * (1 + np.tensordot(level.astype(np.float32), scene.tissues, 1))
    volume = view(still, np.eye(4)) * _scanner_maps(view.world, run, coil)[0]
    if acquisition.switches["thermal_noise"]:
        volume = _with_noise(volume, np.float32(SINGLE_BAND_NOISE * NOISE * GREY_LEVEL), rng)
    return volume.reshape(acquisition.shape).astype(np.float32)


def _with_noise(volume: np.ndarray, sigma: np.float32, rng: np.random.Generator) -> np.ndarray:
    """Magnitude (V,) of a signal with noise of sd sigma in both of its parts."""
    real = volume + sigma * rng.standard_normal(volume.size, np.float32)
    imaginary = sigma * rng.standard_normal(volume.size, np.float32)
    return np.asarray(np.hypot(real, imaginary))


def _scanner_maps(
    world: np.ndarray, run: Run, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Shading (V,) of the coil at voxels (3, V) in world mm; maps (V,) of drift and breathing."""
    centred = ((world - world.mean(1, keepdims=True)) / 100).astype(np.float32)
    tilt = rng.uniform(-1, 1, (4, 3)).astype(np.float32)
    coil = np.ones(world.shape[1], np.float32)
    if run.acquisition.switches["coil_shading"]:
        # brighter near the elements of the array: by the rim, more on one side
        rim = np.einsum("in,in->n", centred, centred)
        coil = (0.8 + 0.35 * rim) * np.exp(0.2 * tilt[0] @ centred)
    maps = {
        "drift_linear": 0.010 * (1 + 0.6 * tilt[1] @ centred),
        "drift_slow": 0.004 * (1 + 0.6 * tilt[2] @ centred),
        "respiration": 0.004 * (1 - centred[2] + 0.3 * tilt[3] @ centred),
    }
    return coil, {name: maps[name] for name in maps if name in run.courses}


def _gain(
    coil: np.ndarray, maps: Mapping[str, np.ndarray], moment: Moment, t: int, which: slice
) -> np.ndarray:
    """Factor (N,) of coil, drift and breathing in some of the voxels (V,) of the maps."""
    factor = np.ones_like(coil[which])
    for name, spatial in maps.items():
        factor += spatial[which] * np.float32(moment.courses[name][t])
    return np.asarray(coil[which] * factor)
