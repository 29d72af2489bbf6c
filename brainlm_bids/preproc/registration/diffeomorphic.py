"""Non-linear registration of two images (X, Y, Z) of the same contrast on the same grid.

The result is a field of displacements (3, X, Y, Z) in voxels.

The method is a greedy diffeomorphism (Christensen et al. 1996, IEEE Trans. Image Process. 5:1435;
Yushkevich et al. 2016, Alzheimers Dement. 12:P126): small smooth steps are composed, on coarse
grids first. In a Gaussian window around every voxel, the moving image is fitted to the fixed one
by a scale and an offset, and the step is the shift that explains what remains of the fixed image.
That is the least-squares form of local cross-correlation (Lucas and Kanade 1981, IJCAI; the mean of
both images' gradients: Vercauteren et al. 2009, NeuroImage 45:S61), and takes tens of steps, not
hundreds. There are no random numbers, and the units of the images do not matter.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]

# Coarse grids take every 8th, 4th and 2nd voxel; and the steps on each. More steps on the finest
# grid meet the tissues of a real brain better, and the truth of a phantom less well whose folds are
# those of another average than the template.
LEVELS = ((8, 15), (4, 15), (2, 15), (1, 2))
# Sigmas in voxels of a level: window of the local fit, window in which one shift is sought,
# smoothing of a step and of the whole field. The window of the fit is wide, lest enlarged
# ventricles and sulci are explained by another scale of the intensities.
FIT_SIGMA = 8.0
SHIFT_SIGMA = 1.0
STEP_SIGMA = 3.0
FIELD_SIGMA = 1.5
# Noise, as a share of the mean local variance, and damping, as one of the mean squared slopes.
NOISE = 0.05
DAMPING = 0.3
# Where less than this share of a window may be compared, there is no evidence in it.
LEAST_SEEN = 1e-3
# Longest step, voxels of a level; so short a smooth step cannot fold.
LONGEST_STEP = 1.0
MOST_SMOOTHINGS = 20


def register(
    fixed: NDArray[Any],
    moving: NDArray[Any],
    where: NDArray[np.bool_],
    hidden: NDArray[np.bool_] | None = None,
) -> Array:
    """Register two images that are already near each other.

    Parameters
    ----------
    fixed, moving
        (X, Y, Z) of the same contrast, on the same grid.
    where
        (X, Y, Z) voxels of `fixed` that are compared; the field fades outside of them.
    hidden
        (X, Y, Z) voxels of `moving` that are not compared, such as a lesion. They should hold
        plausible values, because coarse grids are smoothed. The field is interpolated there.

    Returns
    -------
    ndarray
        Displacements u (3, X, Y, Z), voxels: moving(x + u(x)) looks like fixed(x).

    Raises
    ------
    RuntimeError
        If no field without folds is found.
    """
    fixed, moving = _unit(fixed, where), _unit(moving, where)
    seen = None if hidden is None else 1 - np.asarray(hidden, dtype=np.float32)
    field = np.zeros((3, 1, 1, 1), dtype=np.float32)
    before = LEVELS[0][0]
    for shrink, n_steps in LEVELS:
        level = _Level(_coarse(fixed, shrink), _coarse(moving, shrink), where, shrink)
        if seen is not None:
            level.seen = _coarse(seen, shrink)
        field = _finer(field, before / shrink, level.fixed.shape)
        for _ in range(n_steps):
            field = level.improve(field)
        before = shrink
    return _unfolded(field)


def _unit(image: NDArray[Any], where: NDArray[np.bool_]) -> Array:
    spread = float(np.std(image[where])) if where.any() else 0.0
    return np.asarray(image / (spread or 1.0), dtype=np.float32)


def _unfolded(field: Array) -> Array:
    """The field, smoothed until it folds nowhere, which a field of small steps rarely needs."""
    smooth = _Gaussian(field.shape[1:], FIELD_SIGMA)
    for _ in range(MOST_SMOOTHINGS):
        if (jacobian(field) > 0).all():
            return field
        field = smooth(field)
    raise RuntimeError("the images are too different: the field that joins them folds")


def jacobian(field: NDArray[Any]) -> Array:
    """Determinant of the Jacobian of the map x -> x + u(x).

    Parameters
    ----------
    field
        u (3, X, Y, Z), voxels.

    Returns
    -------
    ndarray
        (X, Y, Z); the map folds where it is not positive.

    Examples
    --------
    >>> jacobian(np.zeros((3, 2, 2, 2), np.float32)).min()
    np.float32(1.0)
    """
    (a, b, c), (d, e, f), (g, h, i) = (np.gradient(u) for u in field)
    a, e, i = a + 1, e + 1, i + 1
    return np.asarray(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))


class _Level:
    """Two images on the grid of one level, and the filters for it."""

    def __init__(self, fixed: Array, moving: Array, where: NDArray[np.bool_], shrink: int) -> None:
        self.fixed, self.moving = fixed, moving
        self.seen: Array | None = None  # share of each voxel of `moving` that may be compared
        self.where = where[::shrink, ::shrink, ::shrink]
        self.grid = _grid(fixed.shape)
        self.fit, self.shift, self.step, self.field = (
            _Gaussian(fixed.shape, s) for s in (FIT_SIGMA, SHIFT_SIGMA, STEP_SIGMA, FIELD_SIGMA)
        )
        self.slopes = np.stack(np.gradient(fixed))
        self.mean = self.fit(fixed)
        self.variance = np.maximum(self.fit(fixed * fixed) - self.mean**2, 0)
        inside = self.variance[self.where]
        # a flat image has no variance: nothing is to be found in it, but nothing divided by 0
        self.noise = NOISE * float(inside.mean() if inside.size else 0) + np.float32(1e-20)

    def improve(self, field: Array) -> Array:
        """The field after one more step."""
        moved = self.grid + field
        warped = _at(self.moving[np.newaxis], moved)[0]
        if self.seen is None:
            step = self.step(self._shift(warped, self.where, self.fit, self.mean, self.variance))
        else:
            step = self._interpolated_step(warped, _at(self.seen[np.newaxis], moved)[0])
        longest = float(np.sqrt((step**2).sum(axis=0).max()))
        step *= np.float32(min(1.0, LONGEST_STEP / max(longest, 1e-6)))
        return self.field(step + _at(field, self.grid + step))

    def _interpolated_step(self, warped: Array, seen: Array) -> Array:
        """A step from the voxels that may be compared, continued into the others."""
        share = np.maximum(self.fit(seen), LEAST_SEEN)

        def fit(image: Array) -> Array:
            return np.asarray(self.fit(seen * image) / share)

        mean = fit(self.fixed)
        variance = np.maximum(fit(self.fixed * self.fixed) - mean**2, 0)
        shift = self._shift(warped, self.where * seen, fit, mean, variance)
        return np.asarray(self.step(seen * shift) / np.maximum(self.step(seen), LEAST_SEEN))

    def _shift(
        self,
        warped: Array,
        weights: NDArray[Any],
        fit: Callable[[Array], Array],
        fixed_mean: Array,
        fixed_variance: Array,
    ) -> Array:
        """(3, X, Y, Z): what a damped least squares fit in every window says.

        weights: (X, Y, Z) of the voxels; fit: the mean over a window.
        """
        mean = fit(warped)
        variance = np.maximum(fit(warped * warped) - mean**2, 0)
        covariance = fit(self.fixed * warped) - fixed_mean * mean
        scale = np.clip(covariance / (variance + 1e-3 * self.noise), 0, 4)
        left = self.fixed - fixed_mean - scale * (warped - mean)
        unexplained = np.maximum(fixed_variance - scale * covariance, 0) + self.noise
        # where the moving image is flat (out of its field of view) there is no evidence
        evidence = variance / (variance + self.noise)
        slopes = (evidence * self.slopes + scale * np.stack(np.gradient(warped))) / 2
        weighted = slopes * (weights / unexplained)
        x, y, z = slopes
        a, b, c = weighted
        normal = self.shift(np.stack([a * x, b * y, c * z, a * y, a * z, b * z]))
        damping = DAMPING * normal[:3, weights > 0.5].mean() + np.float32(1e-12)
        normal[:3] += damping
        return _solve(normal, self.shift(weighted * left))


def _solve(normal: Array, right: Array) -> Array:
    """Symmetric 3 × 3 systems: (6, …) entries xx, yy, zz, xy, xz, yz; right (3, …)."""
    xx, yy, zz, xy, xz, yz = normal
    x, y, z = right
    # cofactors
    c_xx, c_yy, c_zz = yy * zz - yz * yz, xx * zz - xz * xz, xx * yy - xy * xy
    c_xy, c_xz, c_yz = xz * yz - xy * zz, xy * yz - xz * yy, xy * xz - xx * yz
    determinant = xx * c_xx + xy * c_xy + xz * c_xz
    return np.asarray(
        np.stack(
            [
                c_xx * x + c_xy * y + c_xz * z,
                c_xy * x + c_yy * y + c_yz * z,
                c_xz * x + c_yz * y + c_zz * z,
            ]
        )
        / determinant
    )


class _Gaussian:
    """A Gaussian filter of (…, X, Y, Z) as a matrix per axis: a third of scipy's time."""

    def __init__(self, shape: tuple[int, ...], sigma: float) -> None:
        self.matrices = [
            ndimage.gaussian_filter1d(
                np.eye(n, dtype=np.float64), sigma, axis=0, mode="nearest", truncate=3
            ).astype(np.float32)
            for n in shape
        ]

    def __call__(self, data: Array) -> Array:
        x, y, z = self.matrices
        data = np.matmul(y, np.matmul(data, z.T))
        flat = data.reshape(*data.shape[:-3], data.shape[-3], -1)
        return np.asarray(np.matmul(x, flat).reshape(data.shape))


def _grid(shape: tuple[int, ...]) -> Array:
    return np.indices(shape, dtype=np.float32)


def _at(images: Array, voxels: Array) -> Array:
    """Images (N, X, Y, Z) at voxels (3, …), trilinear, the rim continued."""
    return np.stack(
        [
            ndimage.map_coordinates(image, voxels, order=1, mode="nearest", output=np.float32)
            for image in images
        ]
    )


def _coarse(image: Array, shrink: int) -> Array:
    if shrink == 1:
        return image
    smooth = ndimage.gaussian_filter(image, shrink / 2)
    return np.ascontiguousarray(smooth[::shrink, ::shrink, ::shrink])


def _finer(field: Array, factor: float, shape: tuple[int, ...]) -> Array:
    """A field on a grid that is `factor` times as fine and starts at the same voxel."""
    return _at(field * np.float32(factor), _grid(shape) / np.float32(factor))
