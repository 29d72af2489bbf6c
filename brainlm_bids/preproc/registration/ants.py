"""Linear and non-linear registration of images (X, Y, Z) with RAS+ affines, by ANTs (antspyx).

All transforms are pulls: they carry points (mm) of the fixed image or template to those of the
moving image. The same seed and number of threads give the same result.
"""

import logging
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.affine import Matrix, grid_points, invert, subgrid, voxel_sizes
from brainlm_bids.preproc.registration import boundary, diffeomorphic
from brainlm_bids.preproc.registration.brain import bias_correct, closed, finite
from brainlm_bids.preproc.registration.lesion import filled, on_coarse
from brainlm_bids.preproc.registration.transforms import ItkTransform, resample_to, to_ants

LOGGER = logging.getLogger(__name__)

# Registration gains nothing from voxels finer than those of the template and of a BOLD run.
WORKING_MM = 2.0
# Grid of a field of displacements whose control points are 25 mm apart.
FIELD_MM = 4.0
# Around the template's brain: what the registration of a T1w image sees, so that the brain's rim
# counts, and what it leaves for the field to fade in.
RIM_VOXELS = 2
MARGIN_VOXELS = 4
# Grids on which images are compared: by which factor they are coarser than the working grid, and
# the sigma by which images are smoothed before, in voxels of the working grid.
Level = tuple[int, int]
COARSE, MIDDLE, SHARP, FINE = (4, 3), (2, 2), (2, 1), (1, 1)
AFFINE_FILE = "linear0GenericAffine.mat"  # ANTs' name, beside what it is a part of

Mask = NDArray[np.bool_]
BrainImage = tuple[NDArray[np.float32], Matrix]


def _brain_image(
    data: NDArray[Any],
    affine: Matrix,
    mask: Mask | None,
    margin_mm: float | None = 15.0,
) -> tuple[NDArray[np.float32], Matrix]:
    """The brain alone, cropped with a margin (None: not cropped), at `WORKING_MM` or coarser."""
    brain = finite(data)
    if mask is not None:
        brain = np.where(mask, brain, np.float32(0))
    affine = np.asarray(affine, dtype=np.float64)
    spacing = voxel_sizes(affine)
    if margin_mm is not None and brain.any():
        index, margin = np.argwhere(brain != 0), np.ceil(margin_mm / spacing).astype(int)
        low = np.maximum(index.min(axis=0) - margin, 0)
        high = np.minimum(index.max(axis=0) + margin + 1, brain.shape)
        brain = brain[tuple(slice(a, b) for a, b in zip(low, high))]
        affine = subgrid(affine, low)
    factor = np.maximum(WORKING_MM / spacing, 1.0)
    if (factor < 1.1).all():
        return brain, affine
    # sigma of a resolution kernel that goes from 1 to `factor` voxels of width (FWHM)
    brain = ndimage.gaussian_filter(brain, np.sqrt(factor**2 - 1) / 2.355)
    shape = np.ceil((np.array(brain.shape) - 1) / factor).astype(int) + 1
    coarse = subgrid(affine, step=factor)
    return resample_to(brain, affine, tuple(shape), coarse, np.eye(4)), coarse


def _stage(fixed: str, moving: str, levels: Sequence[Level]) -> list[str]:
    """Arguments of a linear stage: Mattes' mutual information on levels, coarse first."""
    iterations = {4: "1000", 2: "500", 1: "100"}
    return [
        *("-m", f"MI[{fixed},{moving},1,32,Regular,0.25]"),
        *("-c", f"[{'x'.join(iterations[shrink] for shrink, _ in levels)},1e-6,10]"),
        *("-f", "x".join(str(shrink) for shrink, _ in levels)),
        *("-s", f"{'x'.join(str(sigma) for _, sigma in levels)}vox"),
    ]


def _run_ants(arguments: list[str], seed: int, out: str) -> None:
    import ants

    common = ["-d", "3", "--float", "1", "--random-seed", str(seed), "-u", "0"]
    ants.registration([*common, "-w", "[0.005,0.995]", "-o", out, *arguments], None)


def register_rigid(
    fixed: NDArray[Any],
    fixed_affine: Matrix,
    moving: NDArray[Any],
    moving_affine: Matrix,
    *,
    fixed_mask: Mask | None = None,
    moving_mask: Mask | None = None,
    seed: int,
    quick: bool = False,
) -> Matrix:
    """Register two images of one head rigidly.

    The metric is Mattes' mutual information of the brains, so contrasts may differ. The search
    starts once from the centres of mass and once from the scanner's coordinates, because the
    centre of a run that covers part of the brain lies elsewhere. Of the two coarse results, the
    one with more mutual information is refined.

    Parameters
    ----------
    fixed, moving
        (X, Y, Z) images.
    fixed_affine, moving_affine
        (4, 4) of each, voxel to RAS+ mm.
    fixed_mask, moving_mask
        Their brains; None for the whole image.
    seed
        Seed of the points at which the images are compared.
    quick
        Whether the images are compared on no finer grid than of 4 mm, because the result is refined
        by other means. It takes a fifth of the time, and moves the result by 0.1 mm.

    Returns
    -------
    ndarray
        M (4, 4) float64, RAS+ mm: x_moving = M @ x_fixed.

    Raises
    ------
    UserError
        If the images cannot be registered from either start.

    References
    ----------
    Mattes D, Haynor DR, Vesselle H, Lewellen TK, Eubank W (2003). PET-CT image registration in the
    chest using free-form deformations. IEEE Trans. Med. Imaging 22:120.
    """
    from ants.internal import get_pointer_string

    fixed_brain = _brain_image(fixed, fixed_affine, fixed_mask)
    moving_brain = _brain_image(moving, moving_affine, moving_mask)
    fixed_image, moving_image = to_ants(*fixed_brain), to_ants(*moving_brain)
    f, m = get_pointer_string(fixed_image), get_pointer_string(moving_image)
    coarse: list[tuple[float, str]] = []
    with TemporaryDirectory() as folder:
        # without -r ANTs starts from the identity
        for number, start in enumerate((["-r", f"[{f},{m},1]"], [])):
            out = f"{folder}/start{number}"
            try:
                _run_ants([*start, "-t", "Rigid[0.1]", *_stage(f, m, (COARSE,))], seed, out)
            except RuntimeError as error:
                LOGGER.info("rigid registration from start %d failed: %s", number, error)
                continue
            end = f"{out}0GenericAffine.mat"
            matrix = ItkTransform.from_file(end).rigid()
            shared = _mutual_information(fixed_brain, moving_brain, matrix)
            coarse.append((shared, end))
        if not coarse:
            raise UserError("the images cannot be registered: do they show the same brain?")
        best = max(coarse, key=lambda pair: pair[0])[1]
        levels = (SHARP,) if quick else (MIDDLE, FINE)
        _run_ants(["-r", best, "-t", "Rigid[0.05]", *_stage(f, m, levels)], seed, f"{folder}/fine")
        return ItkTransform.from_file(f"{folder}/fine0GenericAffine.mat").rigid()


def _mutual_information(
    fixed: tuple[NDArray[np.float32], Matrix],
    moving: tuple[NDArray[np.float32], Matrix],
    matrix: Matrix,
) -> float:
    """Mutual information (nats) over the moving image's whole grid, with 32 bins for each image.

    Both coarse results are evaluated on the moving grid, so that they are compared on the same
    voxels.
    """
    pulled = resample_to(*fixed, moving[0].shape, moving[1], invert(matrix))
    counts = np.histogram2d(pulled.ravel(), moving[0].ravel(), bins=32)[0]
    joint = counts / counts.sum()
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    positive = joint > 0
    return float((joint[positive] * np.log(joint[positive] / expected[positive])).sum())


def register_to_template(
    moving: NDArray[Any],
    moving_affine: Matrix,
    template: NDArray[Any],
    template_affine: Matrix,
    *,
    moving_mask: Mask,
    template_mask: Mask,
    seed: int,
    kind: Literal["T1w", "boldref"] = "T1w",
    method: Literal["fast", "syn"] = "fast",
    lesion: Mask | None = None,
) -> ItkTransform:
    """Find the non-linear transform that resamples an image into template space.

    Rigid and affine registration with Mattes' mutual information of the brains come first.
    A T1w image is then registered by a greedy diffeomorphism (`diffeomorphic`) or by SyN, a BOLD
    reference by the boundary of the template's white matter (`boundary`), or by SyN if that
    boundary is unclear.

    Parameters
    ----------
    moving, template
        (X, Y, Z) images.
    moving_affine, template_affine
        (4, 4) of each, voxel to RAS+ mm.
    moving_mask, template_mask
        Their brains.
    seed
        Seed of the points of the metric and of the surface.
    kind
        Whether `moving` is a T1w image or a BOLD reference.
    method
        Of a T1w image: "fast", the greedy diffeomorphism, or "syn", SyN of ANTs.
    lesion
        (X, Y, Z) of a T1w image: what is not compared. The transform is interpolated there.

    Returns
    -------
    ItkTransform
        A composite; as a map of points it goes from the template to the image.

    Raises
    ------
    UserError
        If the two cannot be registered.

    References
    ----------
    Avants BB, Epstein CL, Grossman M, Gee JC (2008). Symmetric diffeomorphic image registration
    with cross-correlation. Med. Image Anal. 12:26.

    Brett M, Leff AP, Rorden C, Ashburner J (2001). Spatial normalization of brain images with focal
    lesions using cost function masking. NeuroImage 14:486.
    """
    if kind == "boldref":
        # a T1w image comes without its bias field, a BOLD reference with it
        moving = bias_correct(moving, moving_affine, moving_mask)
    # FSL's mask lacks parts of the ventricles, which are bright in a BOLD reference
    whole = closed(template_mask, round(6.0 / float(voxel_sizes(template_affine).min())))
    fixed_brain = _brain_image(template, template_affine, whole, None)
    hidden = None
    if lesion is None:
        moving_brain = _brain_image(moving, moving_affine, moving_mask)
    else:
        healed = filled(moving, lesion, moving_mask, moving_affine)
        moving_brain = _brain_image(healed, moving_affine, moving_mask | lesion)
        grid = moving_brain[0].shape, moving_brain[1]
        hidden = on_coarse(lesion, moving_affine, *grid, np.eye(4))
    with TemporaryDirectory() as folder:
        try:
            fast = kind == "T1w" and method == "fast"
            # the diffeomorphism starts on a grid of 16 mm and needs no better start
            levels = (COARSE,) if fast else (COARSE, MIDDLE)
            matrix = _affine_pull(fixed_brain, moving_brain, seed, folder, hidden, levels)
            if fast:
                return _warp(fixed_brain, moving_brain, matrix, hidden)
            if kind == "T1w":
                return _syn(fixed_brain, moving_brain, seed, folder, hidden)
            surface = boundary.white_surface(template, template_affine, template_mask, seed)
            bold = moving, moving_affine, moving_mask
            refined = boundary.refine(surface, *bold, matrix, "affine")
            if refined is not None:
                field = boundary.refine_field(surface, *bold, refined)
                return ItkTransform.from_field(
                    refined, *_sampled(field, template.shape, template_affine)
                )
            LOGGER.warning("no clear boundary of white matter: the BOLD reference is warped")
            return _syn(fixed_brain, moving_brain, seed, folder)
        except RuntimeError as error:
            raise UserError(f"the {kind} cannot be registered to the template: {error}") from error


def _affine_pull(
    fixed: BrainImage,
    moving: BrainImage,
    seed: int,
    folder: str,
    hidden: Mask | None,
    levels: Sequence[Level],
) -> Any:
    """The (4, 4) RAS+ pull of an affine registration, from the centres of mass."""
    from ants.internal import get_pointer_string

    fixed_image, moving_image = to_ants(*fixed), to_ants(*moving)
    f, m = get_pointer_string(fixed_image), get_pointer_string(moving_image)
    seen = _mask_image(hidden, moving[1])
    stages = [
        *("-z", "1", "-r", f"[{f},{m},1]", *_masked(seen)),
        *("-t", "Rigid[0.1]", *_stage(f, m, (COARSE,))),
        *("-t", "Affine[0.1]", *_stage(f, m, levels)),
    ]
    _run_ants(stages, seed, f"{folder}/linear")
    return ItkTransform.from_file(f"{folder}/{AFFINE_FILE}").matrix()


def _mask_image(hidden: Mask | None, affine: Matrix) -> Any:
    """What may be compared, as an image of the type in which ANTs expects masks; or None."""
    # of any other type, ANTs takes the bytes for voxels without a word
    return None if hidden is None else to_ants(~hidden, affine).clone("unsigned char")


def _masked(seen: Any) -> list[str]:
    """Arguments by which all stages compare only what an image of ANTs, if there is one, marks."""
    from ants.internal import get_pointer_string

    return [] if seen is None else ["-x", f"[NA,{get_pointer_string(seen)}]"]


def _warp(
    fixed: BrainImage, moving: BrainImage, matrix: Matrix, hidden: Mask | None
) -> ItkTransform:
    """An affine pull and the diffeomorphism of the T1w image after it."""
    image, affine = fixed
    near = ndimage.binary_dilation(image != 0, iterations=RIM_VOXELS)
    index = np.argwhere(near)
    low = np.maximum(index.min(axis=0) - MARGIN_VOXELS, 0)
    high = np.minimum(index.max(axis=0) + MARGIN_VOXELS + 1, image.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    shape, grid = image[box].shape, subgrid(affine, low)
    pulled = resample_to(*moving, shape, grid, matrix)
    covered = None if hidden is None else on_coarse(hidden, moving[1], shape, grid, matrix)
    field = diffeomorphic.register(image[box], pulled, near[box], covered)
    margins = [(a, n - b) for a, b, n in zip(low, high, image.shape)]
    whole = np.pad(field, [(0, 0), *margins], mode="edge")
    return ItkTransform.from_field(matrix, np.moveaxis(whole, 0, -1) @ affine[:3, :3].T, affine)


def _syn(
    fixed: BrainImage, moving: BrainImage, seed: int, folder: str, hidden: Mask | None = None
) -> ItkTransform:
    """The result of `_affine_pull`, from the same folder, and a smooth SyN after it."""
    from ants.internal import get_pointer_string

    fixed_image, moving_image = to_ants(*fixed), to_ants(*moving)
    f, m = get_pointer_string(fixed_image), get_pointer_string(moving_image)
    seen = _mask_image(hidden, moving[1])
    stages = [
        *("-z", "1", "-a", "1", "-r", f"{folder}/{AFFINE_FILE}", *_masked(seen)),
        *("-t", "SyN[0.1,3,0]", "-m", f"MI[{f},{m},1,32]"),
        *("-c", "[100x50x0,1e-6,10]", "-f", "4x2x1", "-s", "2x1x0vox"),
    ]
    _run_ants(stages, seed, f"{folder}/out")
    return ItkTransform.from_composite(f"{folder}/outComposite.h5")


def _sampled(
    field: boundary.Field, shape: tuple[int, ...], affine: Matrix
) -> tuple[Matrix, Matrix]:
    """A field's displacements (X, Y, Z, 3), mm, on a grid of `FIELD_MM`, and the grid's affine."""
    step = np.maximum(np.round(FIELD_MM / voxel_sizes(affine)), 1)
    grid = subgrid(affine, step=step)
    size = tuple(int(n) for n in np.ceil((np.array(shape) - 1) / step) + 1)
    return field.displacement(grid_points(size, grid)).reshape(*size, 3), grid
