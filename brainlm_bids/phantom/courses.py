"""What changes in time: head motion, parcel series, noise; (T, columns), a row per volume."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from brainlm_bids.errors import UserError
from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.phantom.acquisition import FLIP_DEGREES, Acquisition
from brainlm_bids.resources import parcels

N_NETWORKS = 7
T1_SECONDS = (1.3, 0.85, 4.0)  # grey, white, CSF at 3 T


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


def haemodynamic_series(
    rng: np.random.Generator,
    n_series: int,
    n_volumes: int,
    tr: float,
    cutoff: float = 0.1,
    at: float = 0.0,
) -> np.ndarray:
    """Noise (T, n_series), mean 0 and sd 1, power 1/f from 0.01 Hz to the cutoff in Hz.

    at: time in s after the start of each volume. Mean and sd are those of the starts, so that the
    same draws give values of the same functions of time.
    """
    n = 4 * max(n_volumes, round(100 / tr))  # longer than needed: no wrap-around
    frequencies = np.fft.rfftfreq(n, tr)
    amplitude = np.maximum(frequencies, 0.01) ** -0.5 * np.minimum(frequencies / 0.01, 1)
    amplitude *= np.exp(-((frequencies / cutoff) ** 6))
    shape = (frequencies.size, n_series)
    spectrum = amplitude[:, None] * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
    series = np.fft.irfft(spectrum, n, axis=0)[:n_volumes]
    if at == 0:
        return _standardised(series, series)
    spectrum *= np.exp(2j * np.pi * at * frequencies)[:, None]
    return _standardised(np.fft.irfft(spectrum, n, axis=0)[:n_volumes], series)


def _standardised(series: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Series (T, n) by means and sds of others."""
    return np.asarray((series - like.mean(0)) / like.std(0))


def parcel_series(
    rng: np.random.Generator, n_volumes: int, tr: float, at: float = 0.0
) -> np.ndarray:
    """True series (T, 424), sd 1: half of the variance is shared within the seven networks.

    at: time in s after the start of each volume, as in `haemodynamic_series`.
    """
    twin = copy.deepcopy(rng)

    def mixed(rng: np.random.Generator, at: float) -> np.ndarray:
        shared = haemodynamic_series(rng, N_NETWORKS, n_volumes, tr, at=at)
        own = haemodynamic_series(rng, N_PARCELS, n_volumes, tr, at=at)
        return np.asarray(np.sqrt(0.5) * (shared[:, parcels().network_index - 1] + own))

    starts = mixed(rng, 0.0)
    return _standardised(mixed(twin, at) if at else starts, starts)


def _oscillation(
    rng: np.random.Generator, hertz: float, n_volumes: int, tr: float, at: float
) -> np.ndarray:
    """Sine (T,) whose rate wanders by some percent; sampled at the TR, so it aliases as it must."""
    rate = hertz * (1 + 0.06 * haemodynamic_series(rng, 1, n_volumes, tr, 0.05)[:, 0])
    phase = 2 * np.pi * np.cumsum(rate) * tr + rng.uniform(0, 2 * np.pi)
    if at:
        phase += 2 * np.pi * at * np.append(rate[1:], rate[-1])
    return np.asarray(np.sin(phase))


def noise_courses(
    acquisition: Acquisition, rng: np.random.Generator, at: float = 0.0
) -> dict[str, np.ndarray]:
    """Time courses (T,) of the sources that are switched on; all are drawn, so seeds stay put.

    at: time in s after the start of each volume.
    """
    n_volumes, tr = acquisition.n_volumes, acquisition.tr
    time = np.linspace(-1, 1, n_volumes) + 2 * at / (tr * (n_volumes - 1))
    phase = rng.uniform(0, 2 * np.pi)
    period = max(300.0, 0.7 * n_volumes * tr)
    phase += 2 * np.pi * at / period
    wave = np.sin(2 * np.pi * np.arange(n_volumes) * tr / period + phase)
    drawn = {
        "drift_linear": time,
        "drift_slow": wave,
        "respiration": _oscillation(rng, 0.27, n_volumes, tr, at),
        "cardiac": _oscillation(rng, 1.08, n_volumes, tr, at),
        "global_signal": haemodynamic_series(rng, 1, n_volumes, tr, 0.05, at)[:, 0],
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
