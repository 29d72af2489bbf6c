"""Transforms as objects, and images resampled by them.

Affines are RAS+, points (P, 3) in mm, images (X, Y, Z). ITK uses LPS+; this is the only place where
one is converted to the other. All transforms are pulls: they carry points of the fixed image or
template to those of the moving image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.affine import (
    Matrix,
    Points,
    apply,
    compose,
    invert,
    nearest_rotation,
    voxel_sizes,
)

PointMap = Callable[[Points], Points]

_RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Points that are resampled at a time.
SLAB_POINTS = 500_000
N_PARAMETERS_AFFINE = 12  # 3 × 3 and a translation
DISPLACEMENT_STEP_MM = 2.0**-10  # a power of 2: the last bits are zeros, which compress well


@dataclass(frozen=True)
class Chain:
    """Maps of points, applied one after the other.

    Attributes
    ----------
    maps
        In the order of application: matrices (4, 4), `ItkTransform`, or any function of points
        (P, 3), all RAS+ mm. Without maps, points stay where they are.

    Examples
    --------
    >>> shift, double = np.eye(4), np.diag([2.0, 2.0, 2.0, 1.0])
    >>> shift[:3, 3] = 1.0
    >>> Chain((shift, double))(np.zeros((1, 3)))
    array([[2., 2., 2.]])
    """

    maps: tuple[PointMap | Matrix, ...] = ()

    def __call__(self, points: Points) -> Points:
        """Points (P, 3) through all maps."""
        for step in self.maps:
            points = step(points) if callable(step) else apply(step, points)
        return points


@dataclass(frozen=True)
class ItkTransform:
    """A transform in one of ITK's file formats, as a map of points in RAS+ mm.

    Attributes
    ----------
    content
        The bytes of the file.
    suffix
        By which ITK knows the format: ``.h5``, ``.mat`` or ``.txt``.

    Examples
    --------
    >>> shift = np.eye(4)
    >>> shift[:3, 3] = [1.0, 2.0, 3.0]
    >>> transform = ItkTransform.from_matrix(shift)
    >>> transform(np.zeros((1, 3)))
    array([[1., 2., 3.]])
    >>> transform.matrix()[:3, 3]
    array([1., 2., 3.])
    """

    content: bytes
    suffix: str

    @classmethod
    def from_file(cls, path: str | Path) -> "ItkTransform":
        """Read a transform from a file of ITK.

        Raises
        ------
        UserError
            If the file is damaged: ITK would end the whole process.
        """
        content = Path(path).read_bytes()
        if not _is_whole(content, Path(path).suffix):
            raise UserError(
                f"{path}: is not a transform as ITK writes it, or is damaged or cut short; fetch "
                "or copy it again"
            )
        return cls(content, Path(path).suffix)

    @classmethod
    def from_matrix(cls, matrix: Matrix) -> "ItkTransform":
        r"""Make a linear transform in ITK's text format.

        Parameters
        ----------
        matrix
            (4, 4) RAS+ mm.

        Returns
        -------
        ItkTransform
            The same map in LPS+, as ITK stores it.

        Examples
        --------
        >>> ItkTransform.from_matrix(np.diag([2.0, 1.0, 1.0, 1.0])).content.split(b"\n")[3]
        b'Parameters: 2.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0'
        """
        lps = compose(_RAS_LPS, matrix, _RAS_LPS)
        numbers = " ".join(repr(float(x)) for x in [*lps[:3, :3].ravel(), *lps[:3, 3]])
        text = (
            "#Insight Transform File V1.0\n#Transform 0\n"
            f"Transform: AffineTransform_double_3_3\nParameters: {numbers}\n"
            "FixedParameters: 0 0 0\n"
        )
        return cls(text.encode(), ".txt")

    @classmethod
    def from_composite(cls, path: str | Path) -> "ItkTransform":
        """Read a composite (HDF5) that ITK wrote, and make it smaller and reproducible.

        Times and the operating system, which ITK records, are left out. Displacements are rounded
        to steps of `DISPLACEMENT_STEP_MM` and stored as compressed float32.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        ItkTransform
            The same bytes for the same transform.
        """
        with TemporaryDirectory() as folder:
            stored = Path(folder) / "composite.h5"
            _store(Path(path), stored)
            return cls.from_file(stored)

    @classmethod
    def from_field(
        cls, matrix: Matrix, displacements: NDArray[np.floating], grid: Matrix
    ) -> "ItkTransform":
        """Make the composite of x → matrix @ (x + u(x)).

        Parameters
        ----------
        matrix
            (4, 4) RAS+ mm.
        displacements
            u (X, Y, Z, 3), RAS+ mm.
        grid
            (4, 4) affine of the voxels of `displacements`.

        Returns
        -------
        ItkTransform
            A composite in HDF5.
        """
        import ants

        like = to_ants(np.zeros(displacements.shape[:3]), grid)
        image = ants.from_numpy(
            (displacements * [-1, -1, 1]).astype(np.float32),
            origin=like.origin,
            spacing=like.spacing,
            direction=like.direction,
            has_components=True,
        )
        linear = compose(_RAS_LPS, matrix, _RAS_LPS)
        transforms = [
            ants.transform_from_displacement_field(image),
            ants.create_ants_transform(matrix=linear[:3, :3], translation=linear[:3, 3]),
        ]
        with TemporaryDirectory() as folder:
            path = f"{folder}/composite.h5"
            ants.write_transform(ants.compose_ants_transforms(transforms), path)
            return cls.from_composite(path)

    def __call__(self, points: ArrayLike) -> Points:
        """Points (P, 3), RAS+ mm, of the fixed image to those of the moving image."""
        import ants
        import pandas as pd

        lps = np.asarray(points, dtype=np.float64) * [-1, -1, 1]
        if not len(lps):
            return lps
        table = pd.DataFrame(lps, columns=["x", "y", "z"])
        with TemporaryDirectory() as folder:
            path = f"{folder}/transform{self.suffix}"
            Path(path).write_bytes(self.content)
            mapped = ants.apply_transforms_to_points(3, table, [path])
        return np.asarray(mapped[["x", "y", "z"]].to_numpy(dtype=np.float64) * [-1, -1, 1])

    def matrix(self) -> Matrix:
        """The (4, 4) RAS+ matrix of a linear transform."""
        import ants

        with TemporaryDirectory() as folder:
            path = f"{folder}/transform{self.suffix}"
            Path(path).write_bytes(self.content)
            transform = ants.read_transform(path)
        corners = np.vstack([np.zeros(3), 100.0 * np.eye(3)])
        mapped = np.array([transform.apply_to_point(corner.tolist()) for corner in corners])
        lps = np.eye(4)
        lps[:3, :3] = (mapped[1:] - mapped[0]).T / 100.0
        lps[:3, 3] = mapped[0]
        return compose(_RAS_LPS, lps, _RAS_LPS)

    def rigid(self) -> Matrix:
        """The (4, 4) RAS+ matrix of a rigid transform, its rotation exactly orthogonal."""
        matrix = self.matrix()
        matrix[:3, :3] = nearest_rotation(matrix[:3, :3])
        return matrix


def _is_whole(content: bytes, suffix: str) -> bool:
    """Whether ITK can read a transform."""
    if suffix != ".h5":
        text = suffix != ".txt" or content.startswith(b"#Insight Transform File")
        return bool(content) and text
    import h5py

    try:
        with h5py.File(BytesIO(content)) as file:
            numbers: list[str] = []
            file.visit(lambda name: numbers.append(name) if "Parameters" in name else None)
            return any(file[name][()].size for name in numbers)
    except (OSError, KeyError, RuntimeError, ValueError):
        return False


def _store(composite: Path, out_file: Path) -> None:
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


def to_ants(data: NDArray[Any], affine: Matrix) -> Any:
    """Convert an image to antspyx.

    Parameters
    ----------
    data
        (X, Y, Z).
    affine
        (4, 4) voxel to RAS+ mm.

    Returns
    -------
    ants.ANTsImage
        Of float32.
    """
    import ants

    lps = compose(_RAS_LPS, affine)
    spacing = voxel_sizes(affine)
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        # headers store rounded cosines (and rarely shears, which ITK does not know)
        direction=nearest_rotation(lps[:3, :3] / spacing),
    )


def resample_to(
    data: NDArray[Any],
    affine: Matrix,
    reference_shape: tuple[int, ...],
    reference_affine: Matrix,
    pull: PointMap | Matrix,
    order: int = 1,
) -> NDArray[np.float32]:
    """Resample an image onto the grid of a reference.

    Parameters
    ----------
    data
        (X, Y, Z).
    affine
        (4, 4) of `data`, voxel to RAS+ mm.
    reference_shape, reference_affine
        The grid of the reference.
    pull
        Carries points (P, 3) of the reference, mm, to those of the image: a matrix (4, 4) or a
        function.
    order
        Order of the spline; 0 takes the nearest voxel.

    Returns
    -------
    ndarray
        float32, of the reference's shape; 0 outside the image.

    Examples
    --------
    >>> image, half = np.array([[[1.0, 3.0]]]), np.diag([1.0, 1.0, 0.5, 1.0])
    >>> resample_to(image, np.eye(4), (1, 1, 3), half, np.eye(4))
    array([[[1., 2., 3.]]], dtype=float32)
    """
    data = np.asarray(data, dtype=np.float32)
    if order > 1:
        data = ndimage.spline_filter(data, order, output=np.float32)
    to_voxel, chain = invert(affine), Chain((pull,))
    shape = tuple(int(n) for n in reference_shape)
    out = np.empty(shape, dtype=np.float32)
    step = max(1, SLAB_POINTS // (shape[0] * shape[1]))
    for start in range(0, shape[2], step):
        slab = out[:, :, start : start + step]
        index = np.indices(slab.shape).reshape(3, -1).T + np.array([0, 0, start])
        voxels = apply(to_voxel, chain(apply(reference_affine, index)))
        values = ndimage.map_coordinates(data, voxels.T, order=order, prefilter=False)
        slab[...] = values.reshape(slab.shape)
    return out
