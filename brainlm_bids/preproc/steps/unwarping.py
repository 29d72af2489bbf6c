"""The step that finds the distortion of a run without a field map."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.preproc.affine import Matrix, apply, grid_points, invert
from brainlm_bids.preproc.distortion import boundary_field, expected, risk
from brainlm_bids.preproc.distortion.boundary_field import Evidence
from brainlm_bids.preproc.distortion.contrast import Contrasts, contrasts
from brainlm_bids.preproc.distortion.field import Distortion
from brainlm_bids.preproc.registration import boundary
from brainlm_bids.preproc.registration.brain import bias_correct
from brainlm_bids.preproc.registration.transforms import Chain, PointMap, resample_to
from brainlm_bids.preproc.steps.registration import carried_brain

Mask = NDArray[np.bool_]

# Where a distortion has less freedom than this, a run shows what the T1w image shows.
UNDISTORTED_FREEDOM = 0.3
# Points of the template, MNI mm, at which its way to the T1w image is made linear.
LINEAR_AT_MM = (-60.0, -20.0, 20.0, 60.0)


@dataclass(frozen=True)
class Unwarped:
    """What was found of a run's distortion without a field map.

    Attributes
    ----------
    distortion
        From where tissue lies to where the run shows it; None if what was found is not believed.
    refused
        Why it is not believed, in one line; empty if it is.
    evidence
        Numbers to judge it by.
    contrasts
        How sharp the boundary of white matter is where it moves by more than 2 mm, without the
        correction, with it and with its opposite; None if it was refused.
    brain_mask
        (X, Y, Z) of the run: the T1w's brain where the run shows it, or as it was given.
    """

    distortion: Distortion | None
    refused: str
    evidence: Evidence
    contrasts: Contrasts | None
    brain_mask: Mask


def unwarp_by_boundary(
    boldref: NDArray[Any],
    affine: Matrix,
    brain_mask: Mask,
    t1w: NDArray[Any],
    t1w_affine: Matrix,
    t1w_mask: Mask,
    matrix: Matrix,
    template_to_t1w: PointMap,
    axis: int,
    *,
    seen: Mask | None = None,
    t1w_lesion: Mask | None = None,
    seed: int = 42,
) -> Unwarped:
    """Find the distortion of a run from its T1w image, along the axis of phase encoding.

    The polarity and the total read-out time of the run are not needed.

    Parameters
    ----------
    boldref
        (X, Y, Z) the reference of the run.
    affine, t1w_affine
        (4, 4), voxel to RAS+ mm.
    brain_mask
        (X, Y, Z) of the run, as `coregister` returned it.
    t1w, t1w_mask
        (X, Y, Z) without bias field, and its brain.
    matrix
        (4, 4) points of the T1w image to those of the run, RAS+ mm, as `coregister` returned it.
    template_to_t1w
        Points (P, 3) of the template to those of the T1w image: where air may distort the run.
    axis
        Of phase encoding: 0, 1 or 2 of the array.
    seen
        (X, Y, Z) of the run, see `Realigned`: only these voxels are added to the brain. None: all.
    t1w_lesion
        (X, Y, Z) of the T1w image, where the two are not compared.
    seed
        Of the points of the boundary.

    Returns
    -------
    Unwarped
        The distortion, or why it is refused.
    """
    flat = bias_correct(boldref, affine, brain_mask)
    voxels = grid_points(flat.shape, affine)
    in_template = apply(invert(_linear(template_to_t1w)), apply(invert(matrix), voxels))
    freedom = risk.freedom(in_template).reshape(flat.shape).astype(np.float32)
    target = expected.expected_image(
        flat, affine, t1w, t1w_affine, t1w_mask, matrix, freedom < UNDISTORTED_FREEDOM
    )
    healthy, distance = t1w_mask, target.distance
    if t1w_lesion is not None:
        healthy = t1w_mask & ~t1w_lesion
        there = resample_to(t1w_lesion, t1w_affine, flat.shape, affine, invert(matrix)) > 0
        distance = np.where(there, distance.max(), distance)
    surface = boundary.white_surface(t1w, t1w_affine, healthy, seed)
    placed = boundary.Surface(
        apply(matrix, surface.points), surface.normals @ np.asarray(matrix)[:3, :3].T
    )
    scene = boundary_field.Scene(flat, affine, brain_mask, target.image, distance, freedom, placed)
    distortion, evidence = boundary_field.find(scene, axis)
    if evidence.refusal:
        return Unwarped(None, evidence.refusal, evidence, None, brain_mask)
    judged = contrasts(surface, flat, affine, brain_mask, matrix, distortion)
    to_t1w = Chain((distortion.inverse, invert(matrix)))
    carried = carried_brain(t1w_mask, t1w_affine, flat, affine, to_t1w, brain_mask, seen)
    return Unwarped(distortion, "", evidence, judged, carried)


def _linear(pull: PointMap) -> Matrix:
    """The affine map (4, 4) that is nearest to a map of points in the brain."""
    points = np.stack(np.meshgrid(*[LINEAR_AT_MM] * 3), axis=-1).reshape(-1, 3)
    design = np.column_stack([points, np.ones(len(points))])
    linear = np.eye(4)
    linear[:3] = np.linalg.lstsq(design, pull(points), rcond=None)[0].T
    return linear
