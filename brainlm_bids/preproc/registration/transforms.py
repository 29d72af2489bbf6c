"""Transforms between our world and ITK's: RAS+ affines, points (P, 3) in mm and images (X, Y, Z) in
and out.

ITK's world is LPS+; this is the only place where one becomes the other. All transforms are pulls:
they carry points of the fixed image or template to those of the moving image.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.preproc.affine import apply, invert, nearest_rotation, voxel_sizes

_RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Points that are resampled at a time.
SLAB_POINTS = 500_000
N_PARAMETERS_AFFINE = 12  # 3 × 3 and a translation
DISPLACEMENT_STEP_MM = 2.0**-10  # a power of 2: the last bits are zeros, which compress well


def to_ants(data: NDArray[Any], affine: NDArray[np.float64]) -> Any:
    import ants

    lps = _RAS_LPS @ affine
    spacing = voxel_sizes(affine)
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        # headers store rounded cosines (and rarely shears, which ITK does not know)
        direction=nearest_rotation(lps[:3, :3] / spacing),
    )


def read_rigid(transform_file: str) -> NDArray[np.float64]:
    """The (4, 4) RAS+ matrix of a rigid ITK transform."""
    matrix = read_affine(transform_file)
    matrix[:3, :3] = nearest_rotation(matrix[:3, :3])
    return matrix


def read_affine(transform_file: str) -> NDArray[np.float64]:
    """The (4, 4) RAS+ matrix of a linear ITK transform."""
    import ants

    transform = ants.read_transform(transform_file)
    corners = np.vstack([np.zeros(3), 100.0 * np.eye(3)])
    mapped = np.array([transform.apply_to_point(corner.tolist()) for corner in corners])
    lps = np.eye(4)
    lps[:3, :3] = (mapped[1:] - mapped[0]).T / 100.0
    lps[:3, 3] = mapped[0]
    return np.asarray(_RAS_LPS @ lps @ _RAS_LPS)


def composite_of(
    matrix: NDArray[np.float64],
    displacements: NDArray[np.float64],
    grid: NDArray[np.float64],
    folder: str,
) -> Path:
    """The composite file of x -> matrix @ (x + u(x)), u (X, Y, Z, 3) in mm on a grid, RAS+."""
    import ants

    like = to_ants(np.zeros(displacements.shape[:3]), grid)
    image = ants.from_numpy(
        (displacements * [-1, -1, 1]).astype(np.float32),
        origin=like.origin,
        spacing=like.spacing,
        direction=like.direction,
        has_components=True,
    )
    linear = _RAS_LPS @ matrix @ _RAS_LPS
    transforms = [
        ants.transform_from_displacement_field(image),
        ants.create_ants_transform(matrix=linear[:3, :3], translation=linear[:3, 3]),
    ]
    path = Path(folder) / "fieldComposite.h5"
    ants.write_transform(ants.compose_ants_transforms(transforms), str(path))
    return path


def store_composite(composite: Path, out_file: Path) -> None:
    """Copy an ITK composite, compressed, so that equal transforms are equal and small files.

    ITK notes times and the operating system. Displacements are stored in steps of
    `DISPLACEMENT_STEP_MM`, as float32.
    """
    import h5py

    with h5py.File(composite) as source, h5py.File(out_file, "w") as target:

        def copy(name: str, item: Any) -> None:
            if not isinstance(item, h5py.Dataset) or name in ("OSName", "OSVersion"):
                return
            if not name.endswith("/TransformParameters") or item.size <= N_PARAMETERS_AFFINE:
                target.create_dataset(name, data=item[()], dtype=item.dtype, track_times=False)
                return
            steps = np.round(item[()] / DISPLACEMENT_STEP_MM)
            target.create_dataset(
                name,
                data=(steps * DISPLACEMENT_STEP_MM).astype(np.float32),
                track_times=False,
                compression="gzip",
                shuffle=True,
            )

        source.visititems(copy)


def map_points(points: NDArray[np.float64], transform_file: str | Path) -> NDArray[np.float64]:
    """Points (P, 3), RAS+ mm, of the template to those of the image that was registered to it."""
    import ants
    import pandas as pd

    lps = np.asarray(points, dtype=np.float64) * [-1, -1, 1]
    if not len(lps):
        return lps
    table = pd.DataFrame(lps, columns=["x", "y", "z"])
    mapped = ants.apply_transforms_to_points(3, table, [str(transform_file)])
    return np.asarray(mapped[["x", "y", "z"]].to_numpy(dtype=np.float64) * [-1, -1, 1])


def resample_to(
    data: NDArray[Any],
    affine: NDArray[np.float64],
    reference_shape: tuple[int, ...],
    reference_affine: NDArray[np.float64],
    pull: NDArray[np.float64] | str | Path | Callable[[NDArray[np.float64]], NDArray[np.float64]],
    order: int = 1,
) -> NDArray[np.float32]:
    """An image (X, Y, Z) on the grid of a reference, float32, 0 beyond it; in slabs of slices.

    `pull` carries the reference's world points to the image's: a (4, 4) matrix, the file of a
    composite transform, or a function of points (P, 3). `order` is the spline's (0: nearest).
    """
    data = np.asarray(data, dtype=np.float32)
    if order > 1:
        data = ndimage.spline_filter(data, order, output=np.float32)
    to_voxel = invert(affine)
    shape = tuple(int(n) for n in reference_shape)
    out = np.empty(shape, dtype=np.float32)
    step = max(1, SLAB_POINTS // (shape[0] * shape[1]))
    for start in range(0, shape[2], step):
        slab = out[:, :, start : start + step]
        index = np.indices(slab.shape).reshape(3, -1).T + np.array([0, 0, start])
        voxels = apply(to_voxel, _pull(apply(reference_affine, index), pull))
        values = ndimage.map_coordinates(data, voxels.T, order=order, prefilter=False)
        slab[...] = values.reshape(slab.shape)
    return out


def _pull(points: NDArray[np.float64], pull: Any) -> NDArray[np.float64]:
    if isinstance(pull, (str, Path)):
        return map_points(points, pull)
    if callable(pull):
        return np.asarray(pull(points))
    return apply(pull, points)
