"""Brains, bias field and registration: arrays (X, Y, Z) with RAS+ affines in and out.

Inside is ANTs (antspyx), whose world is LPS+; `_to_ants`, `read_rigid` and `map_points` are the
only places where one becomes the other. All transforms are pulls: they carry points (mm) of the
fixed image or template to those of the moving image. Same seed, same thread count, same result.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.registration import boundary, diffeomorphic

LOGGER = logging.getLogger(__name__)

_RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Registration gains nothing from voxels finer than those of the template and of a BOLD run.
WORKING_MM = 2.0
# Bounds of a brain's volume, ml: adults 950-1700 (Allen et al. 2002), with room for children,
# for CSF and for masks that keep the meninges.
BRAIN_ML = (700.0, 2200.0)
# A slab of a few slices still has this much brain.
MIN_BRAIN_ML = 100.0
# Median inside over median outside; a BOLD reference has 10 or more, smooth noise below 2.
MIN_CONTRAST = 2.0
# A stripped brain in a tight box touches its six faces with 2600 mm², a neck with over 8000.
MAX_TOUCH_MM2 = 5000.0
# Points that are resampled at a time.
SLAB_POINTS = 500_000
# Grid of a field of displacements whose control points are 25 mm apart.
FIELD_MM = 4.0
# Around the template's brain: what the registration of a T1w image sees, so that the brain's rim
# counts, and what it leaves for the field to fade in.
RIM_VOXELS = 2
MARGIN_VOXELS = 4

# --- to and from ANTs ------------------------------------------------------------------------


def _to_ants(data: NDArray[Any], affine: NDArray[np.float64]) -> Any:
    import ants

    lps = _RAS_LPS @ affine
    spacing = _spacing(affine)
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=_orthonormal(lps[:3, :3] / spacing),
    )


def _spacing(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))


def _orthonormal(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    # headers store rounded cosines (and rarely shears, which ITK does not know)
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)


def read_rigid(transform_file: str) -> NDArray[np.float64]:
    """The (4, 4) RAS+ matrix of a rigid ITK transform."""
    matrix = _affine_matrix(transform_file)
    matrix[:3, :3] = _orthonormal(matrix[:3, :3])
    return matrix


def _affine_matrix(transform_file: str) -> NDArray[np.float64]:
    """The (4, 4) RAS+ matrix of a linear ITK transform."""
    import ants

    transform = ants.read_transform(transform_file)
    corners = np.vstack([np.zeros(3), 100.0 * np.eye(3)])
    mapped = np.array([transform.apply_to_point(corner.tolist()) for corner in corners])
    lps = np.eye(4)
    lps[:3, :3] = (mapped[1:] - mapped[0]).T / 100.0
    lps[:3, 3] = mapped[0]
    return np.asarray(_RAS_LPS @ lps @ _RAS_LPS)


# --- brains and bias -------------------------------------------------------------------------


def bias_correct(
    data: NDArray[Any], affine: NDArray[np.float64], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """The image (X, Y, Z) without its bias field, float32: N4 (Tustison et al. 2010, IEEE TMI).

    The field is estimated in `mask` (default: voxels above the mean) on a grid of 4 to 8 mm.
    """
    import ants

    data = np.nan_to_num(np.asarray(data, dtype=np.float32))
    where = data > data.mean() if mask is None else mask
    if not where.any():
        return data
    field = ants.n4_bias_field_correction(
        _to_ants(data, affine),
        mask=_to_ants(where, affine),
        shrink_factor=int(np.clip(np.ceil(5.0 / _spacing(affine).min()), 2, 4)),
        convergence={"iters": [30, 30, 30], "tol": 1e-5},
        return_bias_field=True,
    ).numpy()
    return np.asarray(data / np.maximum(field, 1e-3), dtype=np.float32)


def brain_mask_t1w(
    data: NDArray[Any], affine: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], str]:
    """The brain of a T1w image (X, Y, Z) and how it was found.

    "skull-stripped": the image was already; "deepbet": the network of Fisch et al. 2024
    (Comput. Biol. Med. 179, 108845); "threshold": where that failed.

    Raises
    ------
    UserError
        If there is no brain in the image.
    """
    data = _finite(data)
    stripped = _stripped_brain(data, affine)
    if stripped is not None:
        return stripped, "skull-stripped"
    try:
        mask = _deepbet(data, affine)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        LOGGER.warning("deepbet failed (%s); the brain is found by a threshold", error)
        return brain_mask_epi(data, affine), "threshold"
    if _millilitres(mask, affine) >= MIN_BRAIN_ML:
        return mask, "deepbet"
    LOGGER.warning("deepbet found no brain; trying a threshold")
    return brain_mask_epi(data, affine), "threshold"


def _finite(data: NDArray[Any]) -> NDArray[np.float32]:
    data = np.asarray(data, dtype=np.float32)
    finite = np.isfinite(data)
    if not finite.any():
        raise UserError("no brain found in the image: it has no finite values")
    data = np.where(finite, data, np.float32(0))
    if data.min() == data.max():
        raise UserError("no brain found in the image: all its values are the same")
    return data


def _millilitres(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    return float(mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, number = ndimage.label(mask)
    if number == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def _stripped_brain(
    data: NDArray[np.float32], affine: NDArray[np.float64]
) -> NDArray[np.bool_] | None:
    """The brain of an image whose other voxels are exactly 0; None if it is not such an image."""
    nonzero = data != 0
    if nonzero.mean() > 0.6:
        return None
    brain = ndimage.binary_fill_holes(_largest(nonzero))
    if not BRAIN_ML[0] <= _millilitres(brain, affine) <= BRAIN_ML[1]:
        return None
    # speckle around a head, or a head that is cut at its neck, is no stripped brain
    if (nonzero & ~brain).sum() > 0.05 * brain.sum():
        return None
    if _touch_mm2(brain, affine) > MAX_TOUCH_MM2:
        return None
    return np.asarray(brain)


def _touch_mm2(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    """Area of a mask on the six faces of its volume."""
    spacing = _spacing(affine)
    faces = [spacing.prod() / spacing[axis] * mask.take([0, -1], axis).sum() for axis in range(3)]
    return float(sum(faces))


def _deepbet(data: NDArray[np.float32], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    import nibabel as nb
    from deepbet import BrainExtraction
    from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

    # the network was trained on RAS+ arrays
    axes = io_orientation(affine)
    ras = np.array([[0, 1], [1, 1], [2, 1]])
    image = nb.as_closest_canonical(nb.Nifti1Image(data, affine))
    extraction = BrainExtraction(no_gpu=True)
    probability = extraction.run_model(np.array(image.dataobj, dtype=np.float32))
    mask = extraction.postprocess(probability > 0.5)
    return np.asarray(apply_orientation(mask, ornt_transform(ras, axes)), dtype=bool)


def brain_mask_epi(data: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The brain of a BOLD reference (X, Y, Z), by ANTs' getMask.

    Voxels above the mean, opened with a ball of two voxels, the largest part of them, without
    holes; FACTS: Dice 0.985 on an EPI volume.

    Raises
    ------
    UserError
        If the image is empty or constant, or what is found is small or no brighter than the rest.
    """
    data = _finite(data)
    bright = data > data.mean()
    mask = np.zeros_like(bright)
    for radius in (2, 1):
        mask = _open(bright, radius)
        if _millilitres(mask, affine) >= MIN_BRAIN_ML:
            break
    volume = _millilitres(mask, affine)
    if volume < MIN_BRAIN_ML:
        raise UserError(
            f"no brain found in the image: the largest bright region has {volume:.0f} ml, "
            f"less than {MIN_BRAIN_ML:.0f} ml"
        )
    inside, outside = np.median(data[mask]), np.median(data[~mask]) if not mask.all() else 0.0
    if inside < MIN_CONTRAST * outside:
        raise UserError(
            f"no brain found in the image: its bright region (median {inside:.4g}) hardly differs "
            f"from the rest ({outside:.4g})"
        )
    return mask


def _open(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Opening with a ball (voxels), largest component, holes filled."""
    grid = np.indices((2 * radius + 1,) * 3) - radius
    ball = (grid**2).sum(axis=0) <= radius**2
    # beyond the volume counts as brain, lest a narrow field of view lose its outer slices
    eroded = _largest(ndimage.binary_erosion(mask, ball, border_value=1))
    opened = ndimage.binary_dilation(eroded, ball) & mask
    return _closed(_largest(opened), radius)


def _closed(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Closing with a ball (voxels), holes filled."""
    if not mask.any():
        return mask
    padded = np.pad(mask, radius + 1)
    # distances are as quick for a large ball as for a small one
    grown = ndimage.distance_transform_edt(~padded) <= radius
    closed = ndimage.distance_transform_edt(grown) > radius
    inner = (slice(radius + 1, -radius - 1),) * 3
    return np.asarray(ndimage.binary_fill_holes((closed | padded)[inner]))


# --- registration ----------------------------------------------------------------------------


def _brain_image(
    data: NDArray[Any],
    affine: NDArray[np.float64],
    mask: NDArray[np.bool_] | None,
    margin_mm: float | None = 15.0,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The brain alone, cropped with a margin (None: not cropped), at `WORKING_MM` or coarser."""
    brain = _finite(data)
    if mask is not None:
        brain = np.where(mask, brain, np.float32(0))
    affine = np.asarray(affine, dtype=np.float64)
    spacing = _spacing(affine)
    if margin_mm is not None and brain.any():
        index, margin = np.argwhere(brain != 0), np.ceil(margin_mm / spacing).astype(int)
        low = np.maximum(index.min(axis=0) - margin, 0)
        high = np.minimum(index.max(axis=0) + margin + 1, brain.shape)
        brain = brain[tuple(slice(a, b) for a, b in zip(low, high))]
        affine = affine.copy()
        affine[:3, 3] += affine[:3, :3] @ low
    factor = np.maximum(WORKING_MM / spacing, 1.0)
    if (factor < 1.1).all():
        return brain, affine
    # sigma of a resolution kernel that goes from 1 to `factor` voxels of width (FWHM)
    brain = ndimage.gaussian_filter(brain, np.sqrt(factor**2 - 1) / 2.355)
    shape = np.ceil((np.array(brain.shape) - 1) / factor).astype(int) + 1
    coarse = affine @ np.diag([*factor, 1.0])
    return resample_to(brain, affine, tuple(shape), coarse, np.eye(4)), coarse


def _stage(fixed: str, moving: str, levels: tuple[int, ...]) -> list[str]:
    """Arguments of a linear stage: Mattes' mutual information at shrink factors, coarse first."""
    iterations = {4: "1000", 2: "500", 1: "100"}
    sigmas = {4: "3", 2: "2", 1: "1"}
    return [
        *("-m", f"MI[{fixed},{moving},1,32,Regular,0.25]"),
        *("-c", f"[{'x'.join(iterations[n] for n in levels)},1e-6,10]"),
        *("-f", "x".join(str(n) for n in levels)),
        *("-s", f"{'x'.join(sigmas[n] for n in levels)}vox"),
    ]


def _run_ants(arguments: list[str], seed: int, out: str) -> None:
    import ants

    common = ["-d", "3", "--float", "1", "--random-seed", str(seed), "-u", "0"]
    ants.registration([*common, "-w", "[0.005,0.995]", "-o", out, *arguments], None)


def register_rigid(
    fixed: NDArray[Any],
    fixed_affine: NDArray[np.float64],
    moving: NDArray[Any],
    moving_affine: NDArray[np.float64],
    *,
    fixed_mask: NDArray[np.bool_] | None = None,
    moving_mask: NDArray[np.bool_] | None = None,
    seed: int,
) -> NDArray[np.float64]:
    """The rigid pull (4, 4), float64, RAS+ mm: x_moving = M @ x_fixed.

    Mattes' mutual information (contrasts may differ) of the brains, started once from their
    centres of mass and once from the scanner's coordinates (a run that does not see the whole
    brain has its centre elsewhere); of the two coarse ends, the one with more mutual information
    is refined.

    Raises
    ------
    UserError
        If the images cannot be brought together from either start.
    """
    from ants.internal import get_pointer_string

    fixed_brain = _brain_image(fixed, fixed_affine, fixed_mask)
    moving_brain = _brain_image(moving, moving_affine, moving_mask)
    fixed_image, moving_image = _to_ants(*fixed_brain), _to_ants(*moving_brain)
    f, m = get_pointer_string(fixed_image), get_pointer_string(moving_image)
    coarse: list[tuple[float, str]] = []
    with TemporaryDirectory() as folder:
        # without -r ANTs starts from the identity
        for number, start in enumerate((["-r", f"[{f},{m},1]"], [])):
            out = f"{folder}/start{number}"
            try:
                _run_ants([*start, "-t", "Rigid[0.1]", *_stage(f, m, (4,))], seed, out)
            except RuntimeError as error:
                LOGGER.info("rigid registration from start %d failed: %s", number, error)
                continue
            end = f"{out}0GenericAffine.mat"
            shared = _mutual_information(fixed_brain, moving_brain, read_rigid(end))
            coarse.append((shared, end))
        if not coarse:
            raise UserError("the images cannot be registered: do they show the same brain?")
        best = max(coarse, key=lambda pair: pair[0])[1]
        _run_ants(["-r", best, "-t", "Rigid[0.05]", *_stage(f, m, (2, 1))], seed, f"{folder}/fine")
        return read_rigid(f"{folder}/fine0GenericAffine.mat")


def _mutual_information(
    fixed: tuple[NDArray[np.float32], NDArray[np.float64]],
    moving: tuple[NDArray[np.float32], NDArray[np.float64]],
    matrix: NDArray[np.float64],
) -> float:
    """Mutual information (nats) over the moving image's whole grid, 32 bins a side.

    On the moving grid, which both ends share, so that they are compared on the same voxels.
    """
    pulled = resample_to(*fixed, moving[0].shape, moving[1], np.asarray(np.linalg.inv(matrix)))
    counts = np.histogram2d(pulled.ravel(), moving[0].ravel(), bins=32)[0]
    joint = counts / counts.sum()
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    positive = joint > 0
    return float((joint[positive] * np.log(joint[positive] / expected[positive])).sum())


def register_to_template(
    moving: NDArray[Any],
    moving_affine: NDArray[np.float64],
    template: NDArray[Any],
    template_affine: NDArray[np.float64],
    *,
    moving_mask: NDArray[np.bool_],
    template_mask: NDArray[np.bool_],
    out_file: Path,
    seed: int,
    kind: Literal["T1w", "boldref"] = "T1w",
) -> Path:
    """Write the ITK composite (h5) that resamples an image into template space; its path.

    As a map of points it goes from the template to the image. Rigid and affine with Mattes' mutual
    information of the brains at 2 mm; then a T1w image by a greedy diffeomorphism
    (`diffeomorphic`), and a BOLD reference ("boldref") by the boundary of the template's white
    matter, or by SyN (Avants et al. 2008, Med. Image Anal. 12) where that is not clear.

    Raises
    ------
    UserError
        If the two cannot be brought together.
    """
    if kind == "boldref":
        # a T1w image comes without its bias field, a BOLD reference with it
        moving = bias_correct(moving, moving_affine, moving_mask)
    # FSL's mask lacks parts of the ventricles, which are bright in a BOLD reference
    whole = _closed(template_mask, round(6.0 / float(_spacing(template_affine).min())))
    fixed_brain = _brain_image(template, template_affine, whole, None)
    moving_brain = _brain_image(moving, moving_affine, moving_mask)
    out_file = Path(out_file)
    with TemporaryDirectory() as folder:
        try:
            matrix = _affine_pull(fixed_brain, moving_brain, seed, folder)
            composite: Path | None = None
            if kind == "T1w":
                composite = _warp(fixed_brain, moving_brain, matrix, folder)
            else:
                surface = boundary.white_surface(template, template_affine, template_mask, seed)
                bold = moving, moving_affine, moving_mask
                refined = boundary.refine(surface, *bold, matrix, "affine")
                if refined is not None:
                    field = boundary.refine_field(surface, *bold, refined)
                    grid = _sampled(field, template.shape, template_affine)
                    composite = _composite(refined, *grid, folder)
            if composite is None:
                LOGGER.warning("no clear boundary of white matter: the BOLD reference is warped")
                composite = _syn(fixed_brain, moving_brain, seed, folder)
        except RuntimeError as error:
            raise UserError(f"the {kind} cannot be registered to the template: {error}") from error
        _store(composite, out_file)
    return out_file


BrainImage = tuple[NDArray[np.float32], NDArray[np.float64]]
N_PARAMETERS_AFFINE = 12  # 3 × 3 and a translation
DISPLACEMENT_STEP_MM = 2.0**-10  # a power of 2: the last bits are zeros, which compress well
AFFINE_FILE = "linear0GenericAffine.mat"  # ANTs' name, beside what it is a part of


def _affine_pull(fixed: BrainImage, moving: BrainImage, seed: int, folder: str) -> Any:
    """The (4, 4) RAS+ pull of an affine registration, from the centres of mass."""
    from ants.internal import get_pointer_string

    fixed_image, moving_image = _to_ants(*fixed), _to_ants(*moving)
    f, m = get_pointer_string(fixed_image), get_pointer_string(moving_image)
    stages = [
        *("-z", "1", "-r", f"[{f},{m},1]"),
        *("-t", "Rigid[0.1]", *_stage(f, m, (4, 2))),
        *("-t", "Affine[0.1]", *_stage(f, m, (4, 2))),
    ]
    _run_ants(stages, seed, f"{folder}/linear")
    return _affine_matrix(f"{folder}/{AFFINE_FILE}")


def _warp(fixed: BrainImage, moving: BrainImage, matrix: NDArray[np.float64], folder: str) -> Path:
    """The composite file of an affine pull and the diffeomorphism of the T1w image after it."""
    image, affine = fixed
    near = ndimage.binary_dilation(image != 0, iterations=RIM_VOXELS)
    index = np.argwhere(near)
    low = np.maximum(index.min(axis=0) - MARGIN_VOXELS, 0)
    high = np.minimum(index.max(axis=0) + MARGIN_VOXELS + 1, image.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    corner = affine.copy()
    corner[:3, 3] += affine[:3, :3] @ low
    pulled = resample_to(*moving, image[box].shape, corner, matrix)
    field = diffeomorphic.register(image[box], pulled, near[box])
    margins = [(a, n - b) for a, b, n in zip(low, high, image.shape)]
    whole = np.pad(field, [(0, 0), *margins], mode="edge")
    return _composite(matrix, np.moveaxis(whole, 0, -1) @ affine[:3, :3].T, affine, folder)


def _syn(fixed: BrainImage, moving: BrainImage, seed: int, folder: str) -> Path:
    """The composite file of `_affine_pull` in the same folder and a smooth SyN after it."""
    from ants.internal import get_pointer_string

    fixed_image, moving_image = _to_ants(*fixed), _to_ants(*moving)
    f, m = get_pointer_string(fixed_image), get_pointer_string(moving_image)
    stages = [
        *("-z", "1", "-a", "1", "-r", f"{folder}/{AFFINE_FILE}"),
        *("-t", "SyN[0.1,3,0]", "-m", f"MI[{f},{m},1,32]"),
        *("-c", "[100x50x0,1e-6,10]", "-f", "4x2x1", "-s", "2x1x0vox"),
    ]
    _run_ants(stages, seed, f"{folder}/out")
    return Path(f"{folder}/outComposite.h5")


def _sampled(
    field: boundary.Field, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A field's displacements (X, Y, Z, 3), mm, on a grid of `FIELD_MM`, and the grid's affine."""
    step = np.maximum(np.round(FIELD_MM / _spacing(affine)), 1)
    grid = affine @ np.diag([*step, 1.0])
    size = tuple(int(n) for n in np.ceil((np.array(shape) - 1) / step) + 1)
    points = np.indices(size).reshape(3, -1).T @ grid[:3, :3].T + grid[:3, 3]
    return field.displacement(points).reshape(*size, 3), grid


def _composite(
    matrix: NDArray[np.float64],
    displacements: NDArray[np.float64],
    grid: NDArray[np.float64],
    folder: str,
) -> Path:
    """The composite file of x -> matrix @ (x + u(x)), u (X, Y, Z, 3) in mm on a grid, RAS+."""
    import ants

    like = _to_ants(np.zeros(displacements.shape[:3]), grid)
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


def _store(composite: Path, out_file: Path) -> None:
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


# --- applying transforms ---------------------------------------------------------------------


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
    inverse = np.linalg.inv(affine)
    shape = tuple(int(n) for n in reference_shape)
    out = np.empty(shape, dtype=np.float32)
    step = max(1, SLAB_POINTS // (shape[0] * shape[1]))
    for start in range(0, shape[2], step):
        slab = out[:, :, start : start + step]
        index = np.indices(slab.shape).reshape(3, -1).T + np.array([0, 0, start])
        world = _pull(index @ reference_affine[:3, :3].T + reference_affine[:3, 3], pull)
        voxels = world @ inverse[:3, :3].T + inverse[:3, 3]
        values = ndimage.map_coordinates(data, voxels.T, order=order, prefilter=False)
        slab[...] = values.reshape(slab.shape)
    return out


def _pull(points: NDArray[np.float64], pull: Any) -> NDArray[np.float64]:
    if isinstance(pull, (str, Path)):
        return map_points(points, pull)
    if callable(pull):
        return np.asarray(pull(points))
    matrix = np.asarray(pull, dtype=np.float64)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


# --- files that repeat to the byte -----------------------------------------------------------
