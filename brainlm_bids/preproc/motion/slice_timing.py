"""Slice timing: the slices of a volume are brought to one point in time.

A run (X, Y, Z, T) and the acquisition time of each slice in seconds come in. Every slice's series
is interpolated by a windowed sinc, in place and slice by slice, so that a run is held once. Volumes
before the steady state stay out of it, and bad volumes are interpolated first: a sinc would carry
both into their neighbours.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from brainlm_bids.parcels.sampling import LOBES, windowed_sinc
from brainlm_bids.preproc.denoising.volumes import fill_volumes

# Shifts below this share of a repetition time change a series by far less than its noise.
NEGLIGIBLE_SHIFT = 1e-6


def correct_slice_timing(
    bold: NDArray[np.floating],
    times: ArrayLike,
    tr: float,
    *,
    reference: float,
    axis: int = 2,
    first: int = 0,
    good: NDArray[np.bool_] | None = None,
) -> None:
    """Bring the slices of a run, in place, to one point in time of each volume.

    The kernel is the Kaiser-windowed sinc of the resampling to the model's rate
    (`parcels.sampling`), which keeps amplitudes up to near the Nyquist frequency where linear and
    cubic interpolation damp them. Beyond both ends, the series is continued by its mirror image.

    Parameters
    ----------
    bold
        (X, Y, Z, T) floating point; changed in place. Values that are not finite spread over the
        series of their own voxel only.
    times
        (S,) when each slice along `axis` was acquired, s from the beginning of its volume. Slices
        of a multiband group have the same time.
    tr
        Repetition time, s.
    reference
        The point in time, s from the beginning of a volume, that all slices are brought to.
    axis
        0, 1 or 2: along which the slices are stacked.
    first
        Volumes at the start that are neither changed nor used, those before the steady state.
    good
        (T,) False for bad volumes, which are replaced by interpolation between their neighbours
        before the slices are shifted; None: all are good.

    Raises
    ------
    ValueError
        If the times are not one for each slice, or the repetition time is not positive.

    References
    ----------
    Henson RNA, Buechel C, Josephs O, Friston KJ (1999). The slice-timing problem in event-related
    fMRI. NeuroImage 9:S125.
    Sladky R et al. (2011). Slice-timing effects and their correction in functional MRI. NeuroImage
    58:588.

    Examples
    --------
    Two slices see the same sine, the second half a repetition time later.

    >>> late = np.sin(0.5 * (np.arange(60) + 0.5))
    >>> bold = np.stack([np.sin(0.5 * np.arange(60)), late])[None, None]
    >>> correct_slice_timing(bold, [0.0, 1.0], 2.0, reference=0.0)
    >>> bool(np.abs(bold[0, 0, 1] - bold[0, 0, 0])[12:-12].max() < 1e-4)
    True
    """
    seconds = np.asarray(times, dtype=np.float64)
    if seconds.shape != (bold.shape[axis],):
        raise ValueError(f"{bold.shape[axis]} slices along axis {axis}, times {seconds.shape}")
    if not tr > 0:
        raise ValueError(f"the repetition time must be positive, not {tr}")
    steady = None if good is None or good[first:].all() else good[first:]
    for slab, shift in zip(np.moveaxis(bold, axis, 0), (reference - seconds) / tr, strict=True):
        if abs(shift) < NEGLIGIBLE_SHIFT:
            continue
        series = np.ascontiguousarray(slab[..., first:])
        if steady is not None:
            fill_volumes(series, steady)
        slab[..., first:] = ndimage.correlate1d(series, _kernel(shift), axis=-1, mode="reflect")


def _kernel(shift: float) -> NDArray[np.float64]:
    """Weights of the volumes around one, by which its value `shift` volumes later is computed."""
    reach = LOBES + int(np.ceil(abs(shift)))
    distance = shift - np.arange(-reach, reach + 1, dtype=np.float64)
    weights = windowed_sinc(distance, LOBES)
    return np.asarray(weights / weights.sum())
