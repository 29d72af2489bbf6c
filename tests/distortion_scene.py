"""An echo-planar image is distorted by moving its signal, voxel by voxel, as a scanner does."""

import numpy as np
from scipy import interpolate

SUBSAMPLES = 8


def distorted(image: np.ndarray, shift: np.ndarray, axis: int) -> np.ndarray:
    """Move the signal of an image (X, Y, Z) along an axis.

    Parameters
    ----------
    image
        Without distortion.
    shift
        (X, Y, Z) voxels, from where tissue lies to where its signal is seen.
    axis
        0, 1 or 2.

    Returns
    -------
    ndarray
        Of the same shape; what leaves the image is lost, and else no signal is.
    """
    lines = np.moveaxis(image, axis, -1)
    n = lines.shape[-1]
    whole = np.arange(n)
    fine = (np.arange(n * SUBSAMPLES) + 0.5) / SUBSAMPLES - 0.5
    signal = interpolate.make_interp_spline(whole, lines, k=3, axis=-1)(fine) / SUBSAMPLES
    moved = np.moveaxis(shift, axis, -1)
    places = fine + interpolate.make_interp_spline(whole, moved, k=1, axis=-1)(fine)
    line = np.indices(lines.shape[:2])
    seen = np.zeros(lines.shape)
    for k in range(len(fine)):
        first = np.floor(places[..., k]).astype(int)
        for to, weight in (
            (first, first + 1 - places[..., k]),
            (first + 1, places[..., k] - first),
        ):
            inside = (to >= 0) & (to < n)
            index = line[0][inside], line[1][inside], to[inside]
            np.add.at(seen, index, (signal[..., k] * weight)[inside])
    return np.moveaxis(seen, -1, axis)
