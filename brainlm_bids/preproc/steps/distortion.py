"""The steps that find how the magnetic field distorts a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.affine import Matrix
from brainlm_bids.preproc.distortion import placement
from brainlm_bids.preproc.distortion.field import Distortion, FieldMap, PhaseEncoding
from brainlm_bids.preproc.distortion.pair import (
    LARGEST_RESIDUAL,
    PairFieldMap,
    field_of_pair,
)
from brainlm_bids.preproc.distortion.phase import field_in_hertz, field_of_phases
from brainlm_bids.preproc.distortion.placement import Fit
from brainlm_bids.preproc.registration.transforms import resample_to

Mask = NDArray[np.bool_]
Image = tuple[NDArray[Any], Matrix]


@dataclass(frozen=True)
class Undistorted:
    """How a run is distorted, and its reference as it would be without distortion.

    Attributes
    ----------
    distortion
        From where tissue lies to where the run shows it; None if the field map was refused.
    boldref, brain_mask
        Those of the run without distortion, (X, Y, Z), for registration; as they were given if the
        field map was refused.
    fit
        How well the field map fits the run; None if it could not be compared.
    refused
        Why the field map was not used, in one line; empty if it was.
    """

    distortion: Distortion | None
    boldref: NDArray[np.float32]
    brain_mask: Mask
    fit: Fit | None = None
    refused: str = ""


def measure_field(
    kind: str,
    images: Sequence[Image],
    magnitude: Image | None = None,
    *,
    echo_times: Sequence[float] = (),
    units: str = "Hz",
    encodings: Sequence[PhaseEncoding] = (),
    seed: int = 42,
) -> FieldMap:
    """Compute the magnetic field from any of the images by which scanners measure it.

    Parameters
    ----------
    kind
        "phasediff" (a phase difference), "phases" (of two echoes), "field" (a map of the field), or
        "pair" (echo-planar images of opposite polarity).
    images
        Arrays (X, Y, Z), each with its affine (4, 4), voxel to RAS+ mm; those of a pair may be (X,
        Y, Z, T).
    magnitude
        Of the same head in the same place; not of a pair. An image (X, Y, Z, N) is averaged.
    echo_times
        s, of the two echoes of phases, or of their difference.
    units
        Of a map of the field: Hz, rad/s or T.
    encodings
        Of the two images of a pair.
    seed
        Of the unwrapping.

    Returns
    -------
    FieldMap
        In Hz.

    Raises
    ------
    UserError
        If the images cannot be used: their units are not known, they are empty, or they do not
        belong together.
    """
    if kind == "pair":
        return _field_of_pair(images, encodings)
    data, affine = images[0]
    if magnitude is None:
        raise UserError("the field map has no magnitude image, by which it is brought to the run")
    shown = _on_grid(_mean(magnitude), affine, _volume(data).shape)
    if kind == "field":
        return field_in_hertz(_volume(data), units, affine, shown)
    if len(echo_times) != 2:
        raise UserError("the two echo times of the phase are not known")
    if any(_volume(one).shape != _volume(data).shape for one, _ in images):
        raise UserError("the images of the two phases have different sizes")
    phases = [_volume(one) for one, _ in images]
    return field_of_phases(phases, (echo_times[0], echo_times[1]), affine, shown, seed=seed)


def undistort(
    boldref: NDArray[Any],
    affine: Matrix,
    brain_mask: Mask,
    encoding: PhaseEncoding,
    field_map: FieldMap,
    *,
    seed: int = 42,
) -> Undistorted:
    """Find how a measured field distorts a run, and show its reference without that.

    The reference, corrected by the field, is registered to the magnitude of the field map.

    Parameters
    ----------
    boldref
        (X, Y, Z) the reference of the run.
    affine
        (4, 4) of the run, voxel to RAS+ mm.
    brain_mask
        (X, Y, Z) of the run.
    encoding
        Of the run.
    field_map
        On a grid of its own.
    seed
        Of the points at which images are compared.

    Returns
    -------
    Undistorted
        A field map that does not fit the run is refused, and the run goes on as it is.

    References
    ----------
    Jezzard P, Balaban RS (1995). Correction for geometric distortion in echo planar images from B0
    field variations. Magn. Reson. Med. 34:65.
    """
    image = np.asarray(boldref, dtype=np.float32)
    try:
        distortion, fit = placement.place(field_map, image, affine, brain_mask, encoding, seed=seed)
    except (UserError, RuntimeError) as error:  # the latter of ITK
        text = " ".join(str(error).split())
        refused = f"it cannot be registered to the run ({text})"
        return Undistorted(None, image, brain_mask, refused=refused)
    if isinstance(field_map, PairFieldMap):
        before, after = field_map.residual_before, field_map.residual_after
        fit = replace(fit, pair_before=before, pair_after=after)
    refused = placement.misfit(fit)
    if refused:
        return Undistorted(None, image, brain_mask, fit, refused)
    straight = distortion.undistorted(brain_mask, 0) > 0.5
    return Undistorted(distortion, distortion.undistorted(image), straight, fit)


def _field_of_pair(images: Sequence[Image], encodings: Sequence[PhaseEncoding]) -> FieldMap:
    (first, affine), (second, affine_second) = images
    try:
        field_map = field_of_pair(
            first, second, affine, encodings[0], encodings[1], affine_second=affine_second
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    if not field_map.agrees:
        raise UserError(
            "the two images of opposite polarity differ by "
            f"{100 * field_map.residual_after:.0f} % of the brain's signal after correction, not "
            f"by {100 * LARGEST_RESIDUAL:.0f} % at most: they do not show one head, or their "
            "phase encoding is not what their sidecars say"
        )
    return field_map


def _volume(data: NDArray[Any]) -> NDArray[Any]:
    if data.ndim != 3:
        raise UserError(f"an image of the field map has the shape {data.shape}, not three axes")
    return data


def _mean(magnitude: Image) -> Image:
    data, affine = magnitude
    return (data if data.ndim == 3 else data.mean(axis=3)), affine


def _on_grid(image: Image, affine: Matrix, shape: tuple[int, ...]) -> NDArray[Any]:
    """An image on the grid of another; itself where it is already."""
    data, own = image
    if data.shape == shape and np.allclose(own, affine, atol=1e-3):
        return data
    return resample_to(data, own, shape, affine, np.eye(4))
