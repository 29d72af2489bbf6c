"""Head motion of batches of volumes, for a GPU; in and out as in `motion.realign`.

The least-squares problem, the points, the smoothing, the spline and the stopping rule are the same.
On the CPU, the loop over volumes of `motion.realign` is quicker and needs no torch. Filters along
an axis are matrices, so that smoothing and the spline's prefilter are one product per axis.
"""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.preproc.affine import in_voxels, invert
from brainlm_bids.preproc.motion.target import (
    COARSE_FWHM_MM,
    GOOD_CORRELATION,
    MAX_ITERATIONS,
    SMOOTHING_FWHM_MM,
    FloatArray,
    Target,
    Volume,
    arrived,
    finite_volume,
    make_target,
    small_motion,
)

# 32 volumes of 104 × 104 × 72 and what is made of them are 1 GB.
BATCH = 32


def usable_device(device: str) -> str:
    """Return the device that "auto", "cpu" or "cuda" means on this machine.

    Parameters
    ----------
    device
        "auto", "cpu" or "cuda".

    Returns
    -------
    str
        "cuda" if it is wanted and there is one, otherwise "cpu".

    Examples
    --------
    >>> usable_device("cpu")
    'cpu'
    """
    if device == "cpu":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def realign(
    bold: NDArray[Any],
    affine: NDArray[Any],
    reference: NDArray[Any],
    device: Any,
    chosen: NDArray[np.integer] | None = None,
) -> FloatArray:
    """Rigid motion of every volume against a reference, computed on a torch device.

    A batch starts from the last volume of the one before, or from no motion; for each volume, from
    whichever fits better.

    Parameters
    ----------
    bold
        (X, Y, Z, T); values that are not finite count as 0.
    affine
        (4, 4) voxel to RAS+ mm.
    reference
        (X, Y, Z) on the same grid.
    device
        A torch device, such as "cuda".
    chosen
        (T',) indices of the volumes to align; None: all.

    Returns
    -------
    ndarray
        (T', 4, 4) float64 pull matrices, see `motion.realign`.

    Raises
    ------
    ValueError
        If the reference is constant.
    """
    fine = make_target(reference, affine, SMOOTHING_FWHM_MM)
    coarse = make_target(reference, affine, COARSE_FWHM_MM)
    used = np.arange(bold.shape[3]) if chosen is None else chosen
    matrices = np.empty((len(used), 4, 4))
    previous = np.eye(4)
    for first in range(0, len(used), BATCH):
        batch = slice(first, first + BATCH)
        volumes = np.stack([finite_volume(bold, int(t)) for t in used[batch]])
        matrices[batch] = _align(volumes, fine, coarse, previous, device)
        previous = matrices[batch][-1]
    return matrices


def _align(
    volumes: Volume, fine: Target, coarse: Target, previous: FloatArray, device: Any
) -> FloatArray:
    """Pull matrices (B, 4, 4) of volumes (B, X, Y, Z); from blurred images where that fails."""
    sampler = _Sampler(volumes, fine, device)
    everything = np.arange(len(volumes))
    starts = [np.tile(start, (len(volumes), 1, 1)) for start in (previous, np.eye(4))]
    fits = [sampler.fit(everything, start)[1] for start in starts]
    start = np.where((fits[0] >= fits[1])[:, None, None], starts[0], starts[1])
    matrices, correlation = _search(sampler, start)
    failed = np.flatnonzero(correlation < GOOD_CORRELATION)
    if failed.size == 0:
        return matrices
    again, _ = _search(_Sampler(volumes[failed], coarse, device), start[failed])
    again, second = _search(_Sampler(volumes[failed], fine, device), again)
    better = second > correlation[failed]
    matrices[failed[better]] = again[better]
    return matrices


def _search(sampler: "_Sampler", start: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gauss–Newton from (B, 4, 4); a volume that has arrived is left alone."""
    matrices, correlation = start.copy(), np.empty(len(start))
    moving = np.arange(len(start))
    for _ in range(MAX_ITERATIONS):
        steps, correlation[moving] = sampler.fit(moving, matrices[moving])
        for number, step in zip(moving, steps):
            small = small_motion(step, sampler.target.centre)
            matrices[number] = matrices[number] @ invert(small)
        moving = moving[~arrived(steps, correlation[moving])]
        if moving.size == 0:
            break
    return matrices, correlation


class _Sampler:
    """Spline coefficients of a batch of volumes on a device, and the points of a target."""

    def __init__(self, volumes: Volume, target: Target, device: Any) -> None:
        import torch

        self.target, self.device = target, device
        self.shape = volumes.shape[1:]
        coefficients = torch.as_tensor(volumes, device=device)
        for axis, size in enumerate(self.shape):
            smooth = ndimage.gaussian_filter1d(
                np.eye(size), target.smoothing[axis], axis=0, mode="nearest"
            )
            matrix = ndimage.spline_filter1d(smooth, order=3, axis=0, mode="mirror")
            filters = torch.as_tensor(matrix, dtype=torch.float32, device=device)
            coefficients = torch.tensordot(coefficients, filters, dims=([axis + 1], [1]))
            coefficients = coefficients.movedim(-1, axis + 1)
        self.coefficients = coefficients.reshape(len(volumes), -1)
        self.points = torch.as_tensor(target.points, dtype=torch.float32, device=device)
        self.design = torch.as_tensor(target.design, dtype=torch.float64, device=device)

    def fit(self, which: NDArray[Any], matrices: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Steps (B, 6) and correlations (B,) of the volumes `which` (B,), as `motion._fit`."""
        import torch

        pulls = in_voxels(matrices, self.target.affine)
        pull = torch.as_tensor(pulls, dtype=torch.float32, device=self.device)
        position = self.points @ pull[:, :3, :3].transpose(1, 2) + pull[:, None, :3, 3]
        guard = torch.as_tensor(self.target.guard, dtype=torch.float32, device=self.device)
        last = torch.as_tensor(self.shape, device=self.device) - 1 - guard
        inside = ((position >= guard) & (position <= last)).all(dim=2)  # (B, N)
        chosen = torch.as_tensor(which, device=self.device)
        values = self._values(chosen, position).double() * inside
        design = self.design * inside[..., None]  # (B, N, 7)
        normal = (design.transpose(1, 2) @ design).cpu().numpy()
        right = (design.transpose(1, 2) @ values[..., None])[..., 0].cpu().numpy()
        counts = inside.sum(dim=1).cpu().numpy()
        sums = torch.stack([values.sum(1), (values**2).sum(1), design[..., 0].sum(1)], dim=1)
        found = [
            _solved(*parts, n_points=len(self.points))
            for parts in zip(normal, right, counts, sums.cpu().numpy())
        ]
        return np.stack([step for step, _ in found]), np.array([r for _, r in found])

    def _values(self, which: Any, position: Any) -> Any:
        """Cubic spline (B, N) at voxel coordinates (B, N, 3); mirrored beyond the volume."""
        import torch

        base = position.floor()
        part = position - base
        base = base.long() - 1
        weights, indices = [], []
        for axis, size in enumerate(self.shape):
            away = [(part[..., axis] + 1 - step).abs() for step in range(4)]
            weights.append(
                [torch.where(a < 1, 2 / 3 - a**2 + a**3 / 2, (2 - a) ** 3 / 6) for a in away]
            )
            near = [(base[..., axis] + step).abs() for step in range(4)]
            mirrored = [torch.where(n > size - 1, 2 * (size - 1) - n, n) for n in near]
            indices.append([n.clamp(0, size - 1) for n in mirrored])
        coefficients = self.coefficients[which]
        values = torch.zeros_like(position[..., 0])
        for i, j, k in product(range(4), repeat=3):
            flat = (indices[0][i] * self.shape[1] + indices[1][j]) * self.shape[2] + indices[2][k]
            weight = weights[0][i] * weights[1][j] * weights[2][k]
            values += weight * coefficients.gather(1, flat)
        return values


def _solved(
    normal: FloatArray, right: FloatArray, count: int, sums: FloatArray, n_points: int
) -> tuple[FloatArray, float]:
    """Step (6,) and correlation of one volume from its normal equations (7, 7), (7,).

    sums: of the values, of their squares, and of the reference at the points in view.
    """
    if count < n_points / 4:
        return np.zeros(6), -1.0
    total, squares, reference = sums
    variance = squares - total**2 / count
    if not variance > 1e-9 * max(squares, 1e-30):
        return np.zeros(6), -1.0
    spread = (normal[0, 0] - reference**2 / count) * variance
    correlation = float((right[0] - total * reference / count) / np.sqrt(max(spread, 1e-30)))
    scale = np.sqrt(np.diag(normal) / count) + 1e-30
    scaled = normal / np.outer(scale, scale)
    weights = np.linalg.lstsq(scaled, right / scale, rcond=1e-9)[0] / scale
    if not weights[0] > 0:
        return np.zeros(6), correlation
    return weights[1:] / weights[0], correlation
