"""The step that measures the image quality of a run, and keeps what figures show of its voxels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.parcels.sampling import interpolated
from brainlm_bids.preproc import image_quality as measures
from brainlm_bids.preproc.affine import Matrix
from brainlm_bids.preproc.denoising.confounds import dvars, without_a_difference
from brainlm_bids.preproc.steps.functional import Mask, Motion
from brainlm_bids.preproc.tissue import spread_voxels, tissue_of_parcels

# Above it a framewise displacement counts in fd_num and fd_perc, mm; MRIQC's default.
FD_LIMIT = 0.2


@dataclass(frozen=True)
class ImageQuality:
    """Image quality of a run; the names are MRIQC's, and None stands for what is not known.

    All numbers are of the good volumes of the steady state. `data/outputs.toml` describes each.
    """

    aor: float | None = None
    aqi: float | None = None
    dummy_trs: int | None = None
    dvars_nstd: float | None = None
    dvars_std: float | None = None
    dvars_vstd: float | None = None
    efc: float | None = None
    fber: float | None = None
    fd_max: float | None = None
    fd_mean: float | None = None
    fd_num: int | None = None
    fd_p50: float | None = None
    fd_p95: float | None = None
    fd_perc: float | None = None
    fwhm_avg: float | None = None
    fwhm_x: float | None = None
    fwhm_y: float | None = None
    fwhm_z: float | None = None
    gcor: float | None = None
    gsr_x: float | None = None
    gsr_y: float | None = None
    size_t: int | None = None
    size_x: int | None = None
    size_y: int | None = None
    size_z: int | None = None
    snr: float | None = None
    spacing_tr: float | None = None
    spacing_x: float | None = None
    spacing_y: float | None = None
    spacing_z: float | None = None
    tsnr: float | None = None


@dataclass(frozen=True)
class Voxels:
    """What figures show of the voxels of a run.

    Attributes
    ----------
    series
        (T, R) float32, some voxels of each tissue, all volumes.
    tissue
        (R,) their codes, see `brainlm_bids.preproc.tissue`.
    mean, deviation
        (X, Y, Z) float32, over the good volumes of the steady state; None for grayordinates.
    """

    series: NDArray[np.float32]
    tissue: NDArray[np.uint8]
    mean: NDArray[np.float32] | None = None
    deviation: NDArray[np.float32] | None = None


def measure_image(
    bold: NDArray[Any],
    affine: Matrix,
    brain_mask: Mask,
    motion: Motion,
    tissue: NDArray[Any],
    displacement: NDArray[np.float64] | None,
    tr: float,
    *,
    acquired: bool = True,
) -> tuple[ImageQuality, Voxels]:
    """Measure the image quality of a realigned run.

    Parameters
    ----------
    bold
        (X, Y, Z, T), realigned, in the scanner's units.
    affine
        (4, 4) voxel to RAS+ mm.
    brain_mask
        (X, Y, Z).
    motion
        Of the run.
    tissue
        (X, Y, Z) codes of the voxels' tissue, see `Projection`.
    displacement
        (T,) framewise displacement, mm, of the run's confounds; None: it is not known.
    tr
        Repetition time, s.
    acquired
        Whether the voxels are those of the scanner. What depends on the axes and the background of
        the acquisition is not measured in a run that was resampled into another space.

    Returns
    -------
    ImageQuality, Voxels
        The numbers, and what figures show.
    """
    brain = np.ascontiguousarray(bold[brain_mask].T)
    mean, deviation = measures.moments(bold, motion.n_dummy, motion.good)
    found = _of_time(brain, motion, tr) | _of_motion(displacement, motion)
    found["tsnr"] = float(np.median(measures.temporal_snr(mean[brain_mask], deviation[brain_mask])))
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    for axis, name in enumerate("xyz"):
        found[f"size_{name}"], found[f"spacing_{name}"] = bold.shape[axis], float(sizes[axis])
    found |= _of_mean(np.maximum(mean, 0), brain_mask, acquired)
    codes = tissue[brain_mask]
    chosen = spread_voxels(codes)
    return (
        ImageQuality(**{name: _known(value) for name, value in found.items()}),
        Voxels(brain[:, chosen], codes[chosen].astype(np.uint8), mean, deviation),
    )


def measure_grayordinates(
    series: NDArray[Any],
    labels: NDArray[Any],
    motion: Motion,
    displacement: NDArray[np.float64] | None,
    tr: float,
) -> tuple[ImageQuality, Voxels]:
    """Measure the quality of grayordinates: what concerns time.

    Parameters
    ----------
    series
        (T, V).
    labels
        (V,) parcels, 1 to 424; 0 for none.
    motion
        Of the run.
    displacement
        (T,) framewise displacement, mm, of the run's confounds; None: it is not known.
    tr
        Repetition time, s.

    Returns
    -------
    ImageQuality, Voxels
        Of the grayordinates that vary; of these figures show some that belong to a parcel.
    """
    if motion.good is not None:
        series = interpolated(series, motion.good)
    steady = _steady(series, motion)
    used = np.isfinite(series).all(axis=0) & (np.ptp(steady, axis=0) > 0)
    brain, steady = np.asarray(series[:, used], dtype=np.float32), steady[:, used]
    found = _of_time(brain, motion, tr) | _of_motion(displacement, motion)
    mean, deviation = steady.mean(axis=0, dtype=np.float64), steady.std(axis=0, dtype=np.float64)
    found["tsnr"] = float(np.median(measures.temporal_snr(mean, deviation)))
    codes = tissue_of_parcels(labels[used])
    chosen = spread_voxels(codes)
    return (
        ImageQuality(**{name: _known(value) for name, value in found.items()}),
        Voxels(brain[:, chosen], codes[chosen]),
    )


def measure_denoised(
    displacement: NDArray[np.float64] | None,
    motion: Motion,
    n_volumes: int,
    tr: float,
    shape: tuple[int, ...] = (),
    affine: Matrix | None = None,
) -> ImageQuality:
    """Measure what is left to be measured in a run that was denoised already: motion and sizes.

    Parameters
    ----------
    displacement
        (T,) framewise displacement, mm; None: it is not known.
    motion
        Of the run.
    n_volumes
        Good ones of the steady state.
    tr
        Repetition time, s.
    shape, affine
        (X, Y, Z) and (4, 4) voxel to RAS+ mm of volumes; nothing for grayordinates.

    Returns
    -------
    ImageQuality
        Signal, noise and their ratios are those of the cleaning, and are not measured.
    """
    found: dict[str, Any] = _of_motion(displacement, motion)
    found |= {"dummy_trs": motion.n_dummy, "size_t": n_volumes, "spacing_tr": tr}
    if affine is not None:
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        for axis, name in enumerate("xyz"):
            found[f"size_{name}"], found[f"spacing_{name}"] = shape[axis], float(sizes[axis])
    return ImageQuality(**{name: _known(value) for name, value in found.items()})


def _steady(series: NDArray[Any], motion: Motion) -> NDArray[Any]:
    """The good volumes of the steady state of (T, V)."""
    steady = series[motion.n_dummy :]
    return steady if motion.good_steady is None else steady[motion.good_steady]


def _of_time(series: NDArray[Any], motion: Motion, tr: float) -> dict[str, Any]:
    """What concerns the course of the voxels (T, V)."""
    steady = _steady(series, motion)
    plain, standardised, voxelwise = dvars(series[motion.n_dummy :], motion.good_steady)
    return {
        "aor": measures.outlier_fractions(steady).mean(),
        "aqi": measures.quality_index(steady).mean(),
        "gcor": measures.global_correlation(steady),
        "dvars_nstd": _mean(plain),
        "dvars_std": _mean(standardised),
        "dvars_vstd": _mean(voxelwise),
        "dummy_trs": motion.n_dummy,
        "size_t": len(steady),
        "spacing_tr": tr,
    }


def _of_motion(displacement: NDArray[np.float64] | None, motion: Motion) -> dict[str, Any]:
    """What concerns the framewise displacement (T,) between good volumes of the steady state."""
    if displacement is None:
        return {}
    displacement = np.array(displacement[motion.n_dummy :], dtype=np.float64)
    displacement[0] = np.nan
    if motion.good_steady is not None:
        displacement[without_a_difference(motion.good_steady)] = np.nan
    known = displacement[np.isfinite(displacement)]
    if not known.size:
        return {}
    above = int((known > FD_LIMIT).sum())
    return {
        "fd_mean": known.mean(),
        "fd_num": above,
        "fd_perc": 100 * above / (len(known) + 1),
        "fd_p50": np.percentile(known, 50),
        "fd_p95": np.percentile(known, 95),
        "fd_max": known.max(),
    }


def _of_mean(mean: NDArray[np.float32], mask: Mask, acquired: bool) -> dict[str, Any]:
    """What concerns the mean (X, Y, Z) of the run, none of it negative."""
    found: dict[str, Any] = {"snr": measures.signal_to_noise(mean, mask)}
    if not acquired:
        return found
    widths = measures.smoothness(mean, mask)
    found |= {f"fwhm_{name}": width for name, width in zip("xyz", widths)}
    found |= {
        "fwhm_avg": widths.mean(),
        "efc": measures.entropy_focus(mean),
        "fber": measures.foreground_to_background(mean, mask),
        "gsr_x": measures.ghost_to_signal(mean, mask, 0),
        "gsr_y": measures.ghost_to_signal(mean, mask, 1),
    }
    return found


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _known(value: Any) -> Any:
    """A plain number; None for what is not finite."""
    if isinstance(value, int):
        return value
    return float(value) if np.isfinite(value) else None
