"""A BIDS data set whose truth is known: head, motion, parcel series and noise, all simulated.

In: counts, TR (seconds), voxel size (mm), a kind of motion, a seed. Out: a raw BIDS folder, its
truth under `derivatives/phantom`, and the comparison of a pipeline's outputs with that truth.
Points are (3, N) or (N, 3) RAS+ mm as said, images (X, Y, Z), series (T, columns).

Chain of coordinates, every arrow a pull: voxel of volume t -> scanner world -> (inverse of M_t)
reference pose -> (bold_to_t1w) T1w world -> (pose, smooth field, affine) MNI152NLin2009aSym.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage, sparse
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from brainlm_bids.errors import UserError
from brainlm_bids.resources import EMBEDDED_SPACE, N_PARCELS, approximate_atlas, parcels

ATLAS = "A424approx"
PARAMETERS = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
N_NETWORKS = 7

T1W_VOXEL = 1.25  # mm; finer than the blur of an average template brings nothing but time
FIELD_OF_VIEW = (224.0, 224.0, 126.0)  # mm: 64 x 64 x 36 at 3.5 mm
MARGIN = 14.0  # mm of simulated head around the field of view, for motion to bring in
POINT_SPREAD = 1.0 / 3.5  # sd in voxels, added to that of the cubic B-spline: FWHM about one voxel
GREY_LEVEL = 4000.0  # intensity of grey matter: steps of int16 stay far below the signals
SIGNAL = 0.01  # sd of the parcel series as a fraction of grey matter: swings of 2-3 %
NOISE = 0.015  # sd of the thermal noise as a fraction of grey matter
GREY, WHITE, CSF = range(3)
# first numbers of seeds: numpy takes trailing zeros as absent, so a number must tell what is drawn
PEOPLE, ANATOMY, SESSION, RUN = range(1, 5)
EPI_CONTRAST = {"grey": 1.0, "white": 0.8, "csf": 1.3, "soft": 0.22, "bone": 0.03}
T1_SECONDS = (1.3, 0.85, 4.0)  # grey, white, CSF at 3 T
FLIP_DEGREES = 80.0

# Air that bends the field (mm in MNI, radius in mm): sphenoid and ethmoid sinus, both ear canals
SINUSES = ((0.0, 42.0, -32.0, 16.0), (60.0, -22.0, -34.0, 13.0), (-60.0, -22.0, -34.0, 13.0))

SWITCHES = (
    "drift",
    "respiration",
    "cardiac",
    "global_signal",
    "spin_history",
    "non_steady",
    "thermal_noise",
    "coil_shading",
    "dropout",
)


@dataclass(frozen=True)
class Acquisition:
    """What is the same for all runs of a data set."""

    n_volumes: int
    tr: float  # seconds
    voxel: float  # mm
    motion: str | Path
    seed: int
    switches: Mapping[str, bool]

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = (max(8, round(size / self.voxel)) for size in FIELD_OF_VIEW)
        return x, y, z


def write_phantom(
    out: Path,
    *,
    n_subjects: int = 2,
    n_sessions: int = 0,
    n_runs: int = 1,
    n_volumes: int = 240,
    tr: float = 2.0,
    voxel: float = 3.5,
    motion: str | Path = "low",
    seed: int = 42,
    drift: bool = True,
    respiration: bool = True,
    cardiac: bool = True,
    global_signal: bool = True,
    spin_history: bool = True,
    non_steady: bool = True,
    thermal_noise: bool = True,
    coil_shading: bool = True,
    dropout: bool = True,
) -> Path:
    """Write the data set into `out` (made if missing, must be empty) and return `out`.

    voxel in mm (BOLD, isotropic), tr in seconds; motion: "none", "low", "high" or the path of an
    FSL `.par` file (3 rotations in rad, 3 translations in mm, a row per volume). n_sessions 0
    leaves the session level out. Each bool switches one source of noise or of distortion.
    The truth lies in `out/derivatives/phantom`. Raises UserError for a folder that is not empty,
    a count or a size that makes no sense, an unknown kind of motion, a `.par` file that is missing
    or too short.
    """
    out = Path(out)
    values = locals()
    switches = {name: bool(values[name]) for name in SWITCHES}
    acquisition = Acquisition(n_volumes, float(tr), float(voxel), motion, seed, switches)
    _check(acquisition, n_subjects=n_subjects, n_sessions=n_sessions, n_runs=n_runs)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder: name a new one for the phantom")
    truth = out / "derivatives" / "phantom"
    _write_dataset_files(out, truth, n_subjects, acquisition)
    for subject in range(1, n_subjects + 1):
        anatomy = subject_warp(np.random.default_rng([ANATOMY, seed, subject]))
        for session in range(1, n_sessions + 1) if n_sessions else [0]:
            _write_session(out, truth, anatomy, acquisition, (subject, session), n_runs)
    return out


def _check(acquisition: Acquisition, n_subjects: int, n_sessions: int, n_runs: int) -> None:
    if min(n_subjects, n_runs) < 1 or n_sessions < 0:
        raise UserError("a phantom needs at least one subject and one run")
    if acquisition.n_volumes < 2 or acquisition.tr <= 0:
        raise UserError("a phantom needs at least two volumes and a TR above 0 s")
    if not 1.0 <= acquisition.voxel <= 10.0:
        raise UserError(f"voxels of {acquisition.voxel} mm: choose between 1 and 10 mm")
    motion_parameters(acquisition, np.random.default_rng(0))  # complain before anything is written


# --------------------------------------------------------------------------- head and its warp


@dataclass(frozen=True)
class Head:
    """The template's head. Brain maps 0..1 at 1 mm, distance (mm) outside the brain at 2 mm."""

    t1w: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    affine: np.ndarray
    distance: np.ndarray  # negative inside
    distance_affine: np.ndarray


@lru_cache(maxsize=1)
def template_head() -> Head:
    """Load nilearn's packaged ICBM 2009a maps (skull-stripped) and measure the way to the brain."""
    from nilearn import datasets

    image = datasets.load_mni152_template(resolution=1)
    t1w = image.get_fdata(dtype=np.float32)
    grey = datasets.load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32)
    white = datasets.load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32)
    pad = 24
    brain = np.pad(t1w[::2, ::2, ::2] > 0, pad // 2)
    # closed and filled, so that skull does not grow into fissures and ventricles
    brain = ndimage.binary_closing(brain, iterations=4)
    outside = ndimage.distance_transform_edt(~brain, sampling=2.0)
    inside = ndimage.distance_transform_edt(brain, sampling=2.0)
    distance = (outside - inside).astype(np.float32)
    affine = image.affine.astype(float)
    coarse = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = affine[:3, 3] - pad
    return Head(t1w, grey, white, affine, distance, coarse)


def _sample(volume: np.ndarray, affine: np.ndarray, points: np.ndarray, outside: float) -> Any:
    """Trilinear samples (N,) of a volume at points (3, N) mm."""
    to_voxel = np.linalg.inv(affine)
    voxels = to_voxel[:3, :3] @ points + to_voxel[:3, 3:]
    return ndimage.map_coordinates(volume, voxels, order=1, cval=outside, prefilter=False)


def _ellipsoid(points: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]) -> Any:
    shifted = (points - np.array(centre)[:, None]) / np.array(radii)[:, None]
    return np.einsum("in,in->n", shifted, shifted)


def _shell(points: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, ...]:
    """Fractions (N,) of CSF, bone, marrow, fat, muscle and eye at points (3, N) in MNI mm."""
    below = points[2] < -45
    spine = below & (_ellipsoid(points[:2], (0.0, -45.0), (16.0, 16.0)) < 1)
    face = _ellipsoid(points, (0.0, 38.0, -72.0), (60.0, 58.0, 62.0)) < 1
    neck = (points[2] < -35) & (_ellipsoid(points[:2], (0.0, -40.0), (56.0, 58.0)) < 1)
    eyes = np.minimum(
        _ellipsoid(points, (32.0, 76.0, -38.0), (12.5,) * 3),
        _ellipsoid(points, (-32.0, 76.0, -38.0), (12.5,) * 3),
    )
    air = _ellipsoid(points, (0.0, 68.0, -62.0), (15.0, 28.0, 24.0)) < 1

    def between(low: float, high: float) -> np.ndarray:
        # edges 1 mm wide: partial volume instead of steps
        rise = np.clip(distance - low + 0.5, 0, 1)
        return np.asarray(rise * np.clip(high - distance + 0.5, 0, 1), np.float32)

    csf = between(0.5, 2.5)
    bone = between(2.5, 7.5) * ~spine
    marrow = between(4.2, 6.0) * ~spine
    soft = (face | neck) & (distance > 7) & ~air
    eye = ((eyes < 1) & (distance > 6)).astype(np.float32)
    fat = between(7.5, 12.5) * (points[2] > -70) * ~air * (1 - eye)
    muscle = (soft * (1 - fat) * (1 - eye) + spine * (distance > 2.5)).astype(np.float32)
    return csf, bone - marrow, marrow, fat, np.clip(muscle, 0, 1), eye


def t1w_intensity(points: np.ndarray) -> np.ndarray:
    """T1-weighted intensity (N,), white matter near 1, at points (3, N) in MNI mm."""
    head = template_head()
    distance = _sample(head.distance, head.distance_affine, points, 99.0)
    brain = _sample(head.t1w, head.affine, points, 0.0)
    csf, bone, marrow, fat, muscle, eye = _shell(points, distance)
    texture = 1 + 0.12 * np.sin(points[0] / 5) * np.sin(points[1] / 7) * np.sin(points[2] / 6)
    shell = 0.22 * csf + 0.04 * bone + 0.35 * marrow + 0.3 * eye
    shell = shell + texture * (0.95 * fat + 0.5 * muscle)
    outside = np.clip(1 - brain / 0.3, 0, 1)
    sulci = 0.2 * ((distance <= 0.5) & (brain < 0.2))
    return np.asarray(brain + outside * np.maximum(shell, sulci), np.float32)


def epi_tissues(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fractions (3, N) of grey, white, CSF, and the intensity (N,) at points (3, N) in MNI mm."""
    head = template_head()
    distance = _sample(head.distance, head.distance_affine, points, 99.0)
    grey = _sample(head.grey, head.affine, points, 0.0)
    white = _sample(head.white, head.affine, points, 0.0)
    total = np.maximum(grey + white, 1.0)
    grey, white = grey / total, white / total
    csf, bone, marrow, fat, muscle, eye = _shell(points, distance)
    csf = np.maximum(csf, (distance <= 0.5).astype(np.float32)) * (1 - grey - white)
    intensity = (
        EPI_CONTRAST["grey"] * grey
        + EPI_CONTRAST["white"] * white
        + EPI_CONTRAST["csf"] * np.maximum(csf, eye)
        + EPI_CONTRAST["soft"] * (fat * 0.6 + muscle)
        + EPI_CONTRAST["bone"] * (bone + marrow)
    )
    return np.stack([grey, white, csf]).astype(np.float32), np.asarray(intensity, np.float32)


def signal_left(points: np.ndarray) -> np.ndarray:
    """Fraction (N,) of the signal that dephasing near air leaves, points (3, N) in MNI mm."""
    left = np.ones(points.shape[1], np.float32)
    for x, y, z, radius in SINUSES:
        left *= 1 - 0.9 * np.exp(-(_ellipsoid(points, (x, y, z), (radius,) * 3) ** 2))
    return left


@dataclass(frozen=True)
class Warp:
    """From a subject's T1w world to MNI: y = affine @ (x + field(x)), x = pose @ x_t1w.

    field is a cubic B-spline in mm with control points (nx, ny, nz, 3) every `spacing` mm from
    `origin` (3,) mm; constant beyond them.
    """

    pose: np.ndarray
    affine: np.ndarray
    control: np.ndarray
    origin: np.ndarray
    spacing: float

    def displacement(self, points: np.ndarray) -> np.ndarray:
        """Field (3, N) in mm at points (3, N) of the head, pose applied."""
        grid = (points - self.origin[:, None]) / self.spacing
        return np.stack(
            [
                ndimage.map_coordinates(
                    self.control[..., axis], grid, order=3, prefilter=False, mode="nearest"
                )
                for axis in range(3)
            ]
        )

    def to_template(self, points: np.ndarray) -> np.ndarray:
        """Map points (N, 3) RAS+ mm of the T1w to MNI."""
        head = _apply(self.pose, np.asarray(points, float).T)
        return _apply(self.affine, head + self.displacement(head)).T

    def to_t1w(self, points: np.ndarray) -> np.ndarray:
        """Map points (N, 3) RAS+ mm of MNI to the T1w (fixed point, to better than 1e-4 mm)."""
        target = _apply(np.linalg.inv(self.affine), np.asarray(points, float).T)
        head = target.copy()
        for _ in range(40):
            step = target - self.displacement(head) - head
            head += step
            if np.abs(step).max(initial=0.0) < 1e-5:
                break
        return _apply(np.linalg.inv(self.pose), head).T


def load_warp(path: Path) -> Warp:
    """Read a Warp that write_phantom left beside a T1w (…_mode-points_xfm.npz)."""
    with np.load(path) as data:
        return Warp(
            data["pose"], data["affine"], data["control"], data["origin"], float(data["spacing"])
        )


def subject_warp(rng: np.random.Generator) -> Warp:
    """Draw a subject: size +-6 %, a few degrees, shear, and a smooth field of about 2 mm sd."""
    rotation = Rotation.from_rotvec(rng.uniform(-0.07, 0.07, 3)).as_matrix()
    stretch = np.diag(rng.uniform(0.94, 1.06, 3)) + np.triu(rng.uniform(-0.03, 0.03, (3, 3)), 1)
    affine = np.eye(4)
    affine[:3, :3] = rotation @ stretch
    affine[:3, 3] = rng.uniform(-4, 4, 3)
    spacing, half = 25.0, 7
    # sd 6 mm of control points is 2 mm of field: a cubic B-spline averages its neighbours
    control = rng.normal(0, 6.0, (2 * half + 1,) * 3 + (3,))
    return Warp(np.eye(4), affine, control, np.full(3, -half * spacing), spacing)


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.asarray(matrix[:3, :3] @ points + matrix[:3, 3:])


def _spline_weights(positions: np.ndarray, n_control: int) -> np.ndarray:
    """Cubic B-spline basis (N, n_control) at positions (N,) in units of the control spacing."""
    away = np.abs(positions[:, None] - np.arange(n_control))
    near, far = 2 / 3 - away**2 + away**3 / 2, (2 - np.minimum(away, 2)) ** 3 / 6
    return np.where(away < 1, near, far)


# --------------------------------------------------------------------------- motion


def rigid_matrices(parameters: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Turn parameters (T, 6), mm then rad, into matrices (T, 4, 4).

    x_volume = R (x_reference - centre) + centre + translation with R = Rx Ry Rz, angles
    right-handed, everything in RAS+ mm: the convention of preproc.motion, written down again so
    that a change of either shows. The reference is the pose whose parameters are all zero.
    """
    matrices = np.tile(np.eye(4), (len(parameters), 1, 1))
    matrices[:, :3, :3] = Rotation.from_euler("XYZ", parameters[:, 3:]).as_matrix()
    matrices[:, :3, 3] = parameters[:, :3] + centre - matrices[:, :3, :3] @ centre
    return matrices


def motion_parameters(acquisition: Acquisition, rng: np.random.Generator) -> np.ndarray:
    """Trace (T, 6) of translations (mm) and rotations (rad); UserError for a bad request.

    "low" and "high" creep and jerk, and start at zero: their reference is volume 0. They reach
    0.4 mm and 0.4 degrees, or 2.6 mm and 2 degrees. A file is taken as it is, its axes read as
    ours.
    """
    motion, n_volumes = acquisition.motion, acquisition.n_volumes
    peaks = {"low": (0.4, 0.4), "high": (2.6, 2.0)}
    if str(motion) == "none":
        return np.zeros((n_volumes, 6))
    if str(motion) not in peaks:
        return _read_par(Path(motion), n_volumes)
    creep = np.cumsum(rng.normal(size=(n_volumes, 6)), axis=0) / np.sqrt(n_volumes)
    breath = np.sin(2 * np.pi * 0.28 * acquisition.tr * np.arange(n_volumes))[:, None]
    jerks = np.zeros((n_volumes, 6))
    for start in rng.integers(0, n_volumes, max(1, n_volumes // 40)):
        decay = np.exp(-np.arange(n_volumes - start) / rng.uniform(1, 6))
        jerks[start:] += decay[:, None] * rng.normal(0, 0.8, 6)
    trace = creep + jerks + 0.05 * breath * rng.normal(size=6)
    trace -= trace[0]
    millimetres, degrees = peaks[str(motion)]
    trace[:, :3] *= millimetres / np.abs(trace[:, :3]).max()
    trace[:, 3:] *= np.radians(degrees) / np.abs(trace[:, 3:]).max()
    return trace


def _read_par(path: Path, n_volumes: int) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"motion '{path}' is neither none, low, high nor an FSL .par file")
    try:
        table = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} is not an FSL .par file: {error}") from error
    if table.shape[1] != 6 or len(table) < n_volumes:
        raise UserError(
            f"{path} has {table.shape[0]} rows of {table.shape[1]} numbers; "
            f"{n_volumes} volumes need as many rows of 6"
        )
    return table[:n_volumes, [3, 4, 5, 0, 1, 2]]


# --------------------------------------------------------------------------- time courses


def haemodynamic_series(
    rng: np.random.Generator, n_series: int, n_volumes: int, tr: float, cutoff: float = 0.1
) -> np.ndarray:
    """Noise (T, n_series), mean 0 and sd 1, power 1/f from 0.01 Hz to the cutoff in Hz."""
    n = 4 * max(n_volumes, round(100 / tr))  # longer than needed: no wrap-around
    frequencies = np.fft.rfftfreq(n, tr)
    amplitude = np.maximum(frequencies, 0.01) ** -0.5 * np.minimum(frequencies / 0.01, 1)
    amplitude *= np.exp(-((frequencies / cutoff) ** 6))
    shape = (frequencies.size, n_series)
    spectrum = amplitude[:, None] * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
    series = np.fft.irfft(spectrum, n, axis=0)[:n_volumes]
    return np.asarray((series - series.mean(0)) / series.std(0))


def parcel_series(rng: np.random.Generator, n_volumes: int, tr: float) -> np.ndarray:
    """True series (T, 424), sd 1: half of the variance is shared within the seven networks."""
    shared = haemodynamic_series(rng, N_NETWORKS, n_volumes, tr)
    own = haemodynamic_series(rng, N_PARCELS, n_volumes, tr)
    series = np.sqrt(0.5) * (shared[:, parcels().network_index - 1] + own)
    return np.asarray((series - series.mean(0)) / series.std(0))


def _oscillation(rng: np.random.Generator, hertz: float, n_volumes: int, tr: float) -> np.ndarray:
    """Sine (T,) whose rate wanders by some percent; sampled at the TR, so it aliases as it must."""
    rate = hertz * (1 + 0.06 * haemodynamic_series(rng, 1, n_volumes, tr, 0.05)[:, 0])
    return np.asarray(np.sin(2 * np.pi * np.cumsum(rate) * tr + rng.uniform(0, 2 * np.pi)))


def noise_courses(acquisition: Acquisition, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Time courses (T,) of the sources that are switched on; all are drawn, so seeds stay put."""
    n_volumes, tr = acquisition.n_volumes, acquisition.tr
    time = np.linspace(-1, 1, n_volumes)
    phase = rng.uniform(0, 2 * np.pi)
    period = max(300.0, 0.7 * n_volumes * tr)
    wave = np.sin(2 * np.pi * np.arange(n_volumes) * tr / period + phase)
    drawn = {
        "drift_linear": time,
        "drift_slow": wave,
        "respiration": _oscillation(rng, 0.27, n_volumes, tr),
        "cardiac": _oscillation(rng, 1.08, n_volumes, tr),
        "global_signal": haemodynamic_series(rng, 1, n_volumes, tr, 0.05)[:, 0],
    }
    return {
        name: course
        for name, course in drawn.items()
        if acquisition.switches["drift" if name.startswith("drift") else name]
    }


def saturation(n_volumes: int, tr: float) -> np.ndarray:
    """Signal (T, 3) of grey, white and CSF in units of the steady state, from full magnetisation.

    The spoiled recursion Mz' = 1 - (1 - Mz cos a) exp(-TR / T1) of repeated excitations.
    """
    decay = np.exp(-tr / np.array(T1_SECONDS))
    cosine = np.cos(np.radians(FLIP_DEGREES))
    steady = (1 - decay) / (1 - decay * cosine)
    levels, magnetisation = [], np.ones(3)
    for _ in range(n_volumes):
        levels.append(magnetisation / steady)
        magnetisation = 1 - (1 - magnetisation * cosine) * decay
    return np.array(levels)


# --------------------------------------------------------------------------- one BOLD run


@dataclass(frozen=True)
class Scene:
    """The subject in the reference pose on a grid of half voxels, as cubic B-spline coefficients.

    base (X', Y', Z'); rows of the sparse parcels (N, 424) and of cardiac, grey-ish (N,) belong to
    the flat indices brain (N,); tissues (3, X', Y', Z'). All in units of intensity.
    """

    base: np.ndarray
    tissues: np.ndarray
    brain: np.ndarray
    parcels: sparse.csr_matrix
    cardiac: np.ndarray
    global_signal: np.ndarray
    voxel_to_grid: np.ndarray  # (4, 4), of the BOLD


def bold_affine(shape: tuple[int, int, int], voxel: float, centre: np.ndarray) -> np.ndarray:
    """Affine (4, 4) of a BOLD stored as LAS with its middle at centre (3,) mm."""
    affine = np.diag([-voxel, voxel, voxel, 1.0])
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def build_scene(
    warp: Warp, bold_to_t1w: np.ndarray, affine: np.ndarray, acquisition: Acquisition
) -> Scene:
    """Sample the warped template around the BOLD's field of view and blur it by the point spread.

    The parcels are those of the embedded atlas continued over all grey matter: the nearest of the
    424 centroids.
    """
    edge = int(np.ceil(2 * MARGIN / acquisition.voxel))
    shape = tuple(2 * n + 2 * edge for n in acquisition.shape)
    # middles of half voxels lie at -0.25 and +0.25 of a voxel
    grid_to_voxel = np.diag([0.5, 0.5, 0.5, 1.0])
    grid_to_voxel[:3, 3] = -0.25 - edge / 2
    voxels = np.indices(shape, dtype=np.float32).reshape(3, -1)
    head_points = _apply(bold_to_t1w @ affine @ grid_to_voxel, voxels)
    points = warp.to_template(head_points.T).T
    tissues, intensity = epi_tissues(points)
    if acquisition.switches["dropout"]:
        intensity = intensity * signal_left(points)
    intensity = (GREY_LEVEL * intensity).astype(np.float32)

    blur = 2 * POINT_SPREAD
    brain = np.flatnonzero(ndimage.binary_dilation(_closed(tissues, shape), iterations=3))
    vessels = np.exp(-_ellipsoid(points, (0.0, -8.0, -28.0), (14.0, 18.0, 16.0)))
    pulsating = intensity * (0.025 * tissues[CSF] + 0.02 * vessels)
    blood = intensity * (0.005 * tissues[GREY] + 0.0025 * tissues[WHITE])

    def blurred(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values.reshape(shape).astype(np.float32), blur)

    return Scene(
        base=blurred(intensity),
        tissues=np.stack([blurred(tissue) for tissue in tissues]),
        brain=brain,
        parcels=_parcel_maps(points, SIGNAL * intensity * tissues[GREY], shape, blur, brain),
        cardiac=blurred(pulsating).ravel()[brain],
        global_signal=blurred(blood).ravel()[brain],
        voxel_to_grid=np.linalg.inv(grid_to_voxel),
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
    courses: dict[str, np.ndarray]
    acquisition: Acquisition


def volumes(run: Run, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the noisy volumes (X, Y, Z) float32 in turn.

    What moves with the head is synthesised in the reference pose and sampled once through the
    motion; coil, drift, breathing and thermal noise belong to the scanner and are added after.
    """
    acquisition, scene = run.acquisition, run.scene
    switches, shape = acquisition.switches, acquisition.shape
    levels = saturation(acquisition.n_volumes, acquisition.tr)
    voxels = np.indices(shape).reshape(3, -1)
    world = _apply(run.affine, voxels)
    gain = _scanner_gain(world, run, rng)
    history = np.zeros(voxels.shape[1], np.float32)
    last = np.zeros(voxels.shape[1])
    sigma = np.float32(NOISE * GREY_LEVEL)
    for t, matrix in enumerate(run.matrices):
        to_reference = np.linalg.inv(matrix)
        pull = scene.voxel_to_grid @ np.linalg.inv(run.affine) @ to_reference @ run.affine
        still = _reference_volume(run, t, levels[t])
        volume = ndimage.map_coordinates(
            still, _apply(pull, voxels), order=3, prefilter=False, mode="nearest"
        )
        volume *= gain(t)
        if switches["spin_history"]:
            # spins that enter a slice have seen another number of excitations (Friston 1996)
            height = _apply(to_reference, world)[2] - world[2]
            history = 0.3 * history + np.abs(height - last if t else 0.0) / acquisition.voxel
            last = height
            volume *= 1 - 0.1 * np.minimum(history, 1.0)
        if switches["thermal_noise"]:
            real = volume + sigma * rng.standard_normal(volume.size, np.float32)
            imaginary = sigma * rng.standard_normal(volume.size, np.float32)
            volume = np.hypot(real, imaginary)
        yield volume.reshape(shape).astype(np.float32)


def _reference_volume(run: Run, t: int, level: np.ndarray) -> np.ndarray:
    """Coefficients (X', Y', Z') of the head at time t, not moved."""
    scene = run.scene
    still = scene.base.copy()
    change = scene.parcels @ run.series[t].astype(np.float32)
    if "cardiac" in run.courses:
        change += scene.cardiac * np.float32(run.courses["cardiac"][t])
    if "global_signal" in run.courses:
        change += scene.global_signal * np.float32(run.courses["global_signal"][t])
    still.reshape(-1)[scene.brain] += change
    if run.acquisition.switches["non_steady"] and np.abs(level - 1).max() > 1e-3:
        still *= 1 + np.tensordot((level - 1).astype(np.float32), scene.tissues, 1)
    return still


def _scanner_gain(world: np.ndarray, run: Run, rng: np.random.Generator) -> Any:
    """Function of t: the factor (V,) of coil, drift and breathing at voxels (3, V) in world mm."""
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
    active = [(maps[name], run.courses[name]) for name in maps if name in run.courses]

    def gain(t: int) -> np.ndarray:
        factor = np.ones_like(coil)
        for spatial, course in active:
            factor += spatial * np.float32(course[t])
        return np.asarray(coil * factor)

    return gain


# --------------------------------------------------------------------------- the oracle


class Oracle:
    """Averages the parcels of the noisy image with the true geometry, one volume after another."""

    def __init__(self, run: Run, bold_points: np.ndarray, labels: np.ndarray) -> None:
        """bold_points (P, 3) mm in the reference pose, labels (P,) 1..424 of the embedded atlas."""
        self.run, self.points, self.labels = run, bold_points.T, labels
        self.world_to_voxel = np.linalg.inv(run.affine)
        still = _apply(self.world_to_voxel, self.points)
        edge = np.array(run.acquisition.shape)[:, None] - 0.5
        inside = ((still > -0.5) & (still < edge)).all(0)
        self.points, self.labels = self.points[:, inside], labels[inside]
        self.counts = np.bincount(self.labels, minlength=N_PARCELS + 1)[1:]
        self.rows: list[np.ndarray] = []

    def add(self, volume: np.ndarray) -> None:
        """Take the next volume (X, Y, Z)."""
        matrix = self.world_to_voxel @ self.run.matrices[len(self.rows)]
        values = ndimage.map_coordinates(
            volume, _apply(matrix, self.points), order=1, mode="nearest", prefilter=False
        )
        sums = np.bincount(self.labels, values, minlength=N_PARCELS + 1)[1:]
        self.rows.append(np.where(self.counts > 0, sums / np.maximum(self.counts, 1), np.nan))

    def series(self) -> np.ndarray:
        """Series (T, 424); NaN where a parcel lies outside of the image."""
        return np.array(self.rows)


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson r (P,) between the columns of two (T, P); NaN where one of them does not vary."""
    a, b = first - first.mean(0), second - second.mean(0)
    norm = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((a * b).sum(0) / norm)


def true_nuisances(courses: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """(T, K + 24): noise courses (T, K), and motion (T, 6) with its steps and their squares."""
    steps = np.vstack([np.zeros((1, 6)), np.diff(parameters, axis=0)])
    return np.hstack([courses, parameters, steps, parameters**2, steps**2])


def without(series: np.ndarray, nuisance: np.ndarray) -> np.ndarray:
    """Residuals (T, P) of a least-squares fit of the nuisance (T, K) and a constant."""
    design = np.column_stack([np.ones(len(series)), nuisance])
    scale = np.maximum(np.sqrt((design**2).mean(0)), 1e-12)
    basis, values, _ = np.linalg.svd(design / scale, full_matrices=False)
    basis = basis[:, values > 1e-6 * values[0]]
    return np.asarray(series - basis @ (basis.T @ series))


def _n_non_steady(acquisition: Acquisition) -> int:
    """Leading volumes whose grey matter is more than half a percent off the steady state."""
    if not acquisition.switches["non_steady"]:
        return 0
    levels = saturation(acquisition.n_volumes, acquisition.tr)[:, GREY]
    return int(np.argmax(np.abs(levels - 1) < 0.005))


def oracle_metrics(oracle: np.ndarray, run: Run, parameters: np.ndarray) -> dict[str, Any]:
    """Medians over the parcels of r to the truth, raw and without the true nuisances."""
    first = _n_non_steady(run.acquisition)
    covered = np.isfinite(oracle).all(0)
    truth, image = run.series[first:, covered], oracle[first:, covered]
    courses = np.array([*run.courses.values()]).reshape(-1, len(parameters)).T
    nuisance = true_nuisances(courses, parameters)[first:]
    clean = correlations(without(image, nuisance), without(truth, nuisance))
    return {
        "MedianCorrelationRaw": float(np.nanmedian(correlations(image, truth))),
        "MedianCorrelationWithoutNuisances": float(np.nanmedian(clean)),
        "NumberOfNonSteadyVolumes": first,
        "NumberOfParcelsCovered": int(covered.sum()),
        "Description": "Parcel averages of the noisy image with the true geometry, against the "
        "true series, first volumes left out. Without nuisances: the true time courses of the "
        "noise and 24 true motion terms were regressed from both sides.",
    }


# --------------------------------------------------------------------------- files


def _write_session(
    out: Path,
    truth: Path,
    anatomy: Warp,
    acquisition: Acquisition,
    ids: tuple[int, int],
    n_runs: int,
) -> None:
    """Write the T1w and the runs of one session (0: no session level)."""
    subject, session = ids
    rng = np.random.default_rng([SESSION, acquisition.seed, subject, session])
    folder = f"sub-{subject:02d}" + (f"/ses-{session:02d}" if session else "")
    prefix = folder.replace("/", "_")
    pose = _pose(rng, 4.0, 4.0) if session > 1 else np.eye(4)
    warp = Warp(pose, anatomy.affine, anatomy.control, anatomy.origin, anatomy.spacing)
    _write_t1w(out / folder / "anat", truth / folder / "anat", prefix, warp, rng)
    labels, atlas_affine = approximate_atlas()
    voxels = np.array(np.nonzero(labels))
    points = warp.to_t1w(_apply(atlas_affine, voxels).T)
    atlas = labels[tuple(voxels)].astype(int), points
    for number in range(1, n_runs + 1):
        name = f"{prefix}_task-rest" + (f"_run-{number}" if n_runs > 1 else "")
        rng = np.random.default_rng([RUN, acquisition.seed, subject, session, number])
        folders = out / folder / "func", truth / folder / "func"
        _write_run(folders, name, warp, atlas, acquisition, rng)


def _pose(rng: np.random.Generator, degrees: float, millimetres: float) -> np.ndarray:
    matrix = np.eye(4)
    angles = np.radians(rng.uniform(-degrees, degrees, 3))
    matrix[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix()
    matrix[:3, 3] = rng.uniform(-millimetres, millimetres, 3)
    return matrix


def _write_t1w(
    folder: Path, truth: Path, prefix: str, warp: Warp, rng: np.random.Generator
) -> None:
    """Write the T1w and its warp. The grid is laid on the head, as a scanner's planning does."""
    shape = tuple(round(size / T1W_VOXEL) for size in (200.0, 250.0, 240.0))
    on_head = np.diag([T1W_VOXEL] * 3 + [1.0])
    on_head[:3, 3] = (-100.0, -140.0, -140.0)
    axes = [on_head[i, 3] + T1W_VOXEL * np.arange(n) for i, n in enumerate(shape)]
    weights = [
        _spline_weights((axis - warp.origin[i]) / warp.spacing, warp.control.shape[i])
        for i, axis in enumerate(axes)
    ]
    data = np.empty(shape, np.float32)
    coil = rng.uniform(-0.25, 0.25, 3)
    for k in range(0, shape[2], 16):
        slab = slice(k, k + 16)
        grid = np.stack(np.meshgrid(axes[0], axes[1], axes[2][slab], indexing="ij"))
        field = np.einsum(
            "xi,yj,zk,ijkc->cxyz", *weights[:2], weights[2][slab], warp.control, optimize=True
        )
        points = (grid + field).reshape(3, -1)
        values = t1w_intensity(_apply(warp.affine, points)).reshape(grid.shape[1:])
        data[:, :, slab] = values * np.exp(np.tensordot(coil, grid / 100, 1))
    noise = rng.normal(0, 0.02, (2, *shape)).astype(np.float32)
    data = np.hypot(data + noise[0], noise[1])
    header = nib.Nifti1Image(np.zeros(1), np.linalg.inv(warp.pose) @ on_head).header
    header.set_data_shape(shape)
    _write_nifti(folder / f"{prefix}_T1w.nii.gz", header, [np.rint(600 * data)])
    _write_json(
        folder / f"{prefix}_T1w.json",
        {"Modality": "MR", "Manufacturer": "brainlm phantom", "MagneticFieldStrength": 3},
    )
    _write_npz(
        truth / f"{prefix}_from-T1w_to-{EMBEDDED_SPACE}_mode-points_xfm.npz",
        pose=warp.pose,
        affine=warp.affine,
        control=warp.control,
        origin=warp.origin,
        spacing=warp.spacing,
    )


def _write_run(
    folders: tuple[Path, Path],
    name: str,
    warp: Warp,
    atlas: tuple[np.ndarray, np.ndarray],
    acquisition: Acquisition,
    rng: np.random.Generator,
) -> None:
    """Simulate one run, write image and sidecar, and its truth.

    folders: of the data and of the truth; atlas: labels (P,) and their points (P, 3) mm in the T1w.
    """
    folder, truth = folders
    bold_to_t1w = _pose(rng, 3.0, 4.0)
    # the middle of the field of view: the vertex lies a few mm below its top
    middle = warp.to_t1w(np.array([[0.0, -18.0, 22.0]])).T
    centre = _apply(np.linalg.inv(bold_to_t1w), middle)[:, 0].round(1)
    affine = bold_affine(acquisition.shape, acquisition.voxel, centre)
    parameters = motion_parameters(acquisition, rng)
    run = Run(
        scene=build_scene(warp, bold_to_t1w, affine, acquisition),
        affine=affine,
        matrices=rigid_matrices(parameters, centre),
        series=parcel_series(rng, acquisition.n_volumes, acquisition.tr),
        courses=noise_courses(acquisition, rng),
        acquisition=acquisition,
    )
    labels, t1w_points = atlas
    oracle = Oracle(run, _apply(np.linalg.inv(bold_to_t1w), t1w_points.T).T, labels)

    def observed() -> Iterator[np.ndarray]:
        for volume in volumes(run, rng):
            stored = np.rint(volume)
            oracle.add(stored)
            yield stored

    header = nib.Nifti1Image(np.zeros(1), affine).header
    header.set_data_shape((*acquisition.shape, acquisition.n_volumes))
    header.set_zooms((*[acquisition.voxel] * 3, acquisition.tr))
    _write_nifti(folder / f"{name}_bold.nii.gz", header, observed())
    _write_json(
        folder / f"{name}_bold.json",
        {
            "TaskName": "rest",
            "RepetitionTime": acquisition.tr,
            "FlipAngle": FLIP_DEGREES,
            "Manufacturer": "brainlm phantom",
            "MagneticFieldStrength": 3,
            "Instructions": "None: a simulation.",
        },
    )
    _write_truth(truth, name, run, parameters, centre, warp, bold_to_t1w, oracle.series())


def _write_truth(
    truth: Path,
    name: str,
    run: Run,
    parameters: np.ndarray,
    centre: np.ndarray,
    warp: Warp,
    bold_to_t1w: np.ndarray,
    oracle: np.ndarray,
) -> None:
    """Write what is true of one run: motion, geometry, series, noise, tissue, oracle."""
    acquisition, names = run.acquisition, list(parcels().names)
    truth.mkdir(parents=True, exist_ok=True)
    _write_tsv(truth / f"{name}_desc-truth_motion.tsv", parameters, PARAMETERS)
    _write_json(
        truth / f"{name}_desc-truth_motion.json",
        {
            "Description": "trans in mm, rot in rad; x_volume = R (x_reference - c) + c + trans, "
            "R = Rx Ry Rz, RAS+ mm, c = CentreOfRotation; the reference is the pose whose "
            "parameters are zero (volume 0 unless the trace came from a file)",
            "CentreOfRotation": [float(value) for value in centre],
        },
    )
    voxels = np.indices(acquisition.shape).reshape(3, -1)
    t1w_points = _apply(bold_to_t1w @ run.affine, voxels)
    mni = warp.to_template(t1w_points.T).astype(np.float32)
    _write_npz(
        truth / f"{name}_desc-truth_geometry.npz",
        matrices=run.matrices,
        bold_to_t1w=bold_to_t1w,
        centre=centre,
        affine=run.affine,
        mni_at_bold=mni.reshape(*acquisition.shape, 3),
    )
    fractions, _ = epi_tissues(mni.T)
    tissue = np.where(fractions.sum(0) > 0.5, fractions.argmax(0) + 1, 0)
    header = nib.Nifti1Image(np.zeros(1), run.affine).header
    header.set_data_shape(acquisition.shape)
    path = truth / f"{name}_space-boldref_desc-tissue_dseg.nii.gz"
    _write_nifti(path, header, [tissue.reshape(acquisition.shape)])
    _write_json(
        truth / f"{name}_space-boldref_desc-tissue_dseg.json",
        {
            "Description": "the tissue that prevails in each voxel, by the noise-free simulation",
            "SpatialReference": "the pose of the head whose motion parameters are zero",
            "LabelMap": {"1": "grey matter", "2": "white matter", "3": "cerebrospinal fluid"},
        },
    )
    stem = f"{name}_space-{EMBEDDED_SPACE}_atlas-{ATLAS}"
    _write_tsv(truth / f"{stem}_desc-truth_timeseries.tsv", run.series, names)
    _write_tsv(truth / f"{stem}_desc-oracle_timeseries.tsv", oracle, names)
    courses = dict(run.courses)
    if acquisition.switches["non_steady"]:
        levels = saturation(acquisition.n_volumes, acquisition.tr) - 1
        courses |= dict(zip(("non_steady_gm", "non_steady_wm", "non_steady_csf"), levels.T))
    table = np.column_stack([np.arange(acquisition.n_volumes) * acquisition.tr, *courses.values()])
    _write_tsv(truth / f"{name}_desc-noise_timeseries.tsv", table, ["time", *courses])
    metrics = oracle_metrics(oracle, run, parameters)
    _write_json(truth / f"{stem}_desc-oracle_metrics.json", metrics)


def _write_dataset_files(out: Path, truth: Path, n_subjects: int, acquisition: Acquisition) -> None:
    rng = np.random.default_rng([PEOPLE, acquisition.seed])
    truth.mkdir(parents=True, exist_ok=True)
    made_by = [{"Name": "brainlm phantom", "Description": "simulated, no person was scanned"}]
    common = {"BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["The brainlm-bids developers"]}
    raw = {"Name": "brainlm phantom", "DatasetType": "raw", "GeneratedBy": made_by, **common}
    _write_json(out / "dataset_description.json", raw)
    derived = {"Name": "Truth of the brainlm phantom", "DatasetType": "derivative"}
    _write_json(truth / "dataset_description.json", derived | {"GeneratedBy": made_by} | common)
    ignored = ["*_motion.*", "*_xfm.*", "*_geometry.*", "*_timeseries.*", "*_metrics.*"]
    _write_text(truth / ".bidsignore", "\n".join(ignored) + "\n")
    settings = {
        "seed": acquisition.seed,
        "motion": Path(acquisition.motion).name,
        "volumes": acquisition.n_volumes,
        "TR": f"{acquisition.tr} s",
        "voxel": f"{acquisition.voxel} mm",
        **acquisition.switches,
    }
    listed = "\n".join(f"- {key}: {value}" for key, value in settings.items())
    _write_text(
        out / "README.md",
        "# A phantom\n\nSimulated heads: the ICBM 152 2009a template that nilearn packages, "
        "warped; no person was scanned. What is true of every run (motion, geometry, parcel "
        f"series, noise) lies in `derivatives/phantom`.\n\n{listed}\n",
    )
    _write_text(truth / "README.md", "What is true of the simulated runs; see the sidecars.\n")
    ages, sexes = rng.integers(20, 80, n_subjects), rng.choice(["F", "M"], n_subjects)
    rows = [f"sub-{i + 1:02d}\t{ages[i]}\t{sexes[i]}" for i in range(n_subjects)]
    _write_text(out / "participants.tsv", "\n".join(["participant_id\tage\tsex", *rows]) + "\n")
    _write_json(
        out / "participants.json",
        {
            "age": {"Description": "age of the imagined person", "Units": "year"},
            "sex": {"Description": "sex of the imagined person", "Levels": {"F": "f", "M": "m"}},
        },
    )


def _write_nifti(path: Path, header: Any, volumes: Any) -> None:
    """Write int16 volumes one after another: no more than one of them is in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header.set_data_dtype(np.int16)
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm", "sec")
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 3, raw, mtime=0) as file:
        file.write(header.binaryblock + b"\0" * 4)
        for volume in volumes:
            clipped = np.clip(volume, -32768, 32767).astype("<i2")
            file.write(clipped.tobytes(order="F"))


def _write_npz(path: Path, **arrays: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    path.write_bytes(buffer.getvalue())


def _write_tsv(path: Path, table: np.ndarray, columns: list[str]) -> None:
    frame = pd.DataFrame(table, columns=columns)
    frame.to_csv(path, sep="\t", index=False, na_rep="n/a", float_format="%.8g")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write_text(path, json.dumps(content, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# --------------------------------------------------------------------------- what was recovered


def recovered(out_derivatives: Path, phantom: Path) -> list[dict[str, Any]]:
    """Compare the derivatives of a pipeline with the truth of the phantom, a dict per run.

    Keys: run (str), motion_mm (mean displacement over the brain between every volume and the first
    in the steady state), motion_error_mm (the same between estimate and truth), series_r (median
    over parcels of r between the denoised and the true series), oracle_r (the same for the raw
    image averaged with perfect geometry), series_clean_r and oracle_clean_r (both again, with the
    true nuisances regressed from both sides: signal that was removed is missed here). All leave out
    the volumes before the steady state. Both traces are taken relative to the first volume of it,
    so the choice of a reference cancels. (Volume 0 would not do: its contrast is another one, and
    the error of its own estimate would enter all others.) A number is NaN where the pipeline left
    no file; UserError for tables that do not fit the phantom.
    """
    phantom, out_derivatives = Path(phantom), Path(out_derivatives)
    truth = phantom / "derivatives" / "phantom"
    rows = []
    for motion_file in sorted(truth.glob("sub-*/**/*_desc-truth_motion.tsv")):
        name = motion_file.name.removesuffix("_desc-truth_motion.tsv")
        made = out_derivatives / motion_file.parent.relative_to(truth)
        metrics_file = next(motion_file.parent.glob(f"{name}_*_desc-oracle_metrics.json"))
        metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
        first = metrics["NumberOfNonSteadyVolumes"]
        moved, error = _motion_error(motion_file.parent, made, name, first)
        series_r, clean_r = _series_r(motion_file.parent, made, name, first)
        rows.append(
            {
                "run": name,
                "motion_mm": moved,
                "motion_error_mm": error,
                "series_r": series_r,
                "oracle_r": metrics["MedianCorrelationRaw"],
                "series_clean_r": clean_r,
                "oracle_clean_r": metrics["MedianCorrelationWithoutNuisances"],
            }
        )
    return rows


def _motion_error(truth: Path, made: Path, name: str, first: int) -> tuple[float, float]:
    """Mean displacement (mm) of the brain: true motion since `first`, and estimate minus truth."""
    with np.load(truth / f"{name}_desc-truth_geometry.npz") as geometry:
        true = geometry["matrices"][first:]
    image = nib.Nifti1Image.from_filename(truth / f"{name}_space-boldref_desc-tissue_dseg.nii.gz")
    inside = np.array(np.nonzero(np.asarray(image.dataobj)))[:, ::7]
    points = _apply(true[0] @ image.affine, inside)  # the brain where that volume has it
    true = true @ np.linalg.inv(true[0])
    moved = _mean_distance(true, np.tile(np.eye(4), (len(true), 1, 1)), points)
    table = made / f"{name}_desc-confounds_timeseries.tsv"
    if not table.is_file():
        return moved, float("nan")
    from brainlm_bids.preproc.motion import parameters_to_matrices

    frame = pd.read_csv(table, sep="\t", na_values="n/a")
    parameters = frame[PARAMETERS].to_numpy(float)
    if len(parameters) != first + len(true):
        raise UserError(f"{table}: {len(parameters)} rows, not a row for each of the volumes")
    estimate = parameters_to_matrices(parameters[first:], _centre(table.with_suffix(".json")))
    estimate = estimate @ np.linalg.inv(estimate[0])
    return moved, _mean_distance(estimate, true, points)


def _centre(sidecar: Path) -> np.ndarray:
    """The point (3,) mm that the rotations of a confounds table are about."""
    if not sidecar.is_file():
        raise UserError(f"{sidecar} is missing: it names the CentreOfRotation of the motion")
    centre = json.loads(sidecar.read_text(encoding="utf-8")).get("CentreOfRotation")
    if centre is None or np.shape(centre) != (3,):
        raise UserError(f"{sidecar} has no CentreOfRotation of three numbers in mm")
    return np.array(centre, float)


def _mean_distance(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> float:
    """Mean distance (mm) over time and points (3, N) between where two (T, 4, 4) take them."""
    moves = (_apply(a, points) - _apply(b, points) for a, b in zip(first, second))
    return float(np.mean([np.linalg.norm(move, axis=0).mean() for move in moves]))


def _series_r(truth: Path, made: Path, name: str, first: int) -> tuple[float, float]:
    """Median r over the parcels that the pipeline has, over its finite rows from `first` on.

    As they are, and with the true nuisances regressed from both sides.
    """
    files = sorted(made.glob(f"{name}_*space-*_atlas-*_desc-denoised_timeseries.tsv"))
    if not files:
        return float("nan"), float("nan")
    true = pd.read_csv(next(truth.glob(f"{name}_*_desc-truth_timeseries.tsv")), sep="\t")
    found = pd.read_csv(files[0], sep="\t", na_values="n/a")
    if found.shape != true.shape:
        raise UserError(f"{files[0]}: a table of {found.shape}, the phantom has {true.shape}")
    courses = pd.read_csv(truth / f"{name}_desc-noise_timeseries.tsv", sep="\t")
    sources = [c for c in courses if c != "time" and not c.startswith("non_steady")]
    motion = pd.read_csv(truth / f"{name}_desc-truth_motion.tsv", sep="\t").to_numpy(float)
    nuisance = true_nuisances(courses[sources].to_numpy(float), motion)
    return median_correlations(found.to_numpy(float), true.to_numpy(float), nuisance, first)


def median_correlations(
    found: np.ndarray, true: np.ndarray, nuisance: np.ndarray, first: int
) -> tuple[float, float]:
    """Medians over parcels of r between two (T, P), plain and without the nuisance (T, K).

    Rows before `first` and rows and columns of `found` without a value are left out.
    """
    rows = np.isfinite(found).any(1) & (np.arange(len(found)) >= first)
    covered = np.isfinite(found[rows]).all(0)
    if rows.sum() < 3 or not covered.any():
        return float("nan"), float("nan")
    found, true = found[np.ix_(rows, covered)], true[np.ix_(rows, covered)]
    plain = np.nanmedian(correlations(found, true))
    clean = correlations(without(found, nuisance[rows]), without(true, nuisance[rows]))
    return float(plain), float(np.nanmedian(clean))
