"""A single-band reference of another contrast: found where it lies, or refused with the reason."""

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from scipy import ndimage

from brainlm_bids import resources
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import apply, grid_points
from brainlm_bids.preproc.motion import realign as motion
from brainlm_bids.preproc.motion.sbref import place_if_it_fits

SHAPE = (36, 42, 32)
AFFINE = np.diag([-5.0, 5.0, 5.0, 1.0])
AFFINE[:3, 3] = [87, -122, -64]
# grey matter, white matter, fluid: in the steady state, and fully magnetised
STEADY, FULL = (1000.0, 850.0, 1200.0), (1500.0, 1100.0, 4500.0)
POSE = np.array([1.5, -1.0, 2.0, 0.03, -0.02, 0.02])


class Scene(NamedTuple):
    """A run that moves, its single-band reference, and the pulls from that to the volumes."""

    bold: np.ndarray
    sbref: np.ndarray
    truth: np.ndarray
    run: steps.Realigned


@cache
def head(levels: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The packaged head every 2 mm and its affine, as tissues of some levels are seen."""
    maps = resources.tissue_maps()
    step = max(1, round(2 / abs(maps.affine[0, 0])))
    grey, white = (one[::step, ::step, ::step] for one in (maps.grey_matter, maps.white_matter))
    brain = ndimage.binary_closing(np.pad(grey + white, 4) > 0.25, iterations=2)
    fluid = ndimage.binary_fill_holes(brain)[4:-4, 4:-4, 4:-4] - grey - white
    seen = levels[0] * grey + levels[1] * white + levels[2] * np.clip(fluid, 0, 1)
    affine = maps.affine @ np.diag([step, step, step, 1.0])
    return ndimage.gaussian_filter(seen.astype(np.float32), 0.8), affine


def image(parameters: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """The head in a pose."""
    seen, affine = head(levels)
    pull = np.linalg.inv(motion.parameters_to_matrices(parameters[None], np.zeros(3))[0])
    there = apply(np.linalg.inv(affine) @ pull, grid_points(SHAPE, AFFINE))
    return ndimage.map_coordinates(seen, there.T, order=1).reshape(SHAPE)


@pytest.fixture(scope="module")
def scene() -> Scene:
    rng = np.random.default_rng(0)
    limits = np.array([1, 1, 1, 0.02, 0.02, 0.02])
    moves = rng.uniform(-limits, limits, (20, 6))
    volumes = [image(parameters, STEADY) for parameters in moves]
    bold = np.stack(volumes, axis=3) + rng.normal(0, 15, (*SHAPE, 20))
    sbref = image(POSE, FULL) + rng.normal(0, 15, SHAPE)
    here, there = (motion.parameters_to_matrices(p, np.zeros(3)) for p in (moves, POSE[None]))
    bold = bold.astype(np.float32)
    run = steps.realign(bold, AFFINE, n_dummy=0)
    return Scene(bold, sbref.astype(np.float32), here @ np.linalg.inv(there[0]), run)


def errors(found: np.ndarray | None, scene: Scene) -> np.ndarray:
    assert found is not None
    points = apply(AFFINE, np.argwhere(scene.run.brain_mask)[::7])
    apart = [apply(f, points) - apply(t, points) for f, t in zip(found, scene.truth)]
    return np.linalg.norm(np.array(apart), axis=2).mean(axis=1)


def test_volumes_are_brought_to_the_single_band_reference(scene: Scene) -> None:
    run = steps.realign(
        scene.bold, AFFINE, n_dummy=0, sbref=steps.SingleBand(scene.sbref, AFFINE, 1)
    )
    found = run.motion
    assert errors(found.matrices, scene).mean() < 0.12
    # least squares follows the contrast
    direct = motion.realign(scene.bold[..., :4], AFFINE, scene.sbref)
    assert errors(direct, scene).mean() > 1.5 * errors(found.matrices, scene).mean()
    assert (found.reference, found.sbref_refused) == ("sbref", "")
    assert found.sbref_likeness is not None and found.sbref_likeness > 0.8
    assert found.sbref_distance is not None and 1.5 < found.sbref_distance < 5
    # the image itself is the reference, in the brightness of the run
    within = run.brain_mask
    np.testing.assert_allclose(np.corrcoef(run.boldref[within], scene.sbref[within])[0, 1], 1)
    ratio = np.median(run.boldref[within]) / np.median(scene.run.boldref[within])
    assert 0.9 < ratio < 1.1
    # and the run lies where it lies
    mean = run.bold[..., :].mean(axis=3)
    there = image(POSE, STEADY)
    assert np.corrcoef(mean[within], there[within])[0, 1] > 0.98


def _upside_down(sbref: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(sbref[:, :, ::-1])


def _half(sbref: np.ndarray) -> np.ndarray:
    return np.where(np.arange(SHAPE[2]) < SHAPE[2] // 2, sbref, 0).astype(np.float32)


def _far(sbref: np.ndarray) -> np.ndarray:
    return ndimage.shift(sbref, (0, 3, 4), order=1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_upside_down, "too little like the run"),
        (_half, "too little like the run"),
        (_far, "shows the head 2[0-9].[0-9] mm from where it lies in the run"),
        (np.zeros_like, "no brain|the same|constant"),
        (lambda one: np.full_like(one, np.nan), "no brain|the same|constant"),
        (lambda one: np.stack([one, one], 3), "is an image of"),
        (lambda one: one[:, :, :-1], "is an image of"),
    ],
)
def test_one_that_does_not_fit_is_refused(
    scene: Scene, spoil: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    given = steps.SingleBand(spoil(scene.sbref), AFFINE, 1)
    own = scene.run.boldref, AFFINE, scene.run.brain_mask
    found, why = place_if_it_fits(given, *own)
    assert found is None and re.search(reason, why)
    assert "\n" not in why


def test_one_that_lies_elsewhere_is_refused(scene: Scene) -> None:
    moved = AFFINE.copy()
    moved[2, 3] += 2
    own = scene.run.boldref, AFFINE, scene.run.brain_mask
    found, why = place_if_it_fits(steps.SingleBand(scene.sbref, moved), *own)
    assert found is None and why == "lies up to 2 mm from where the run lies"


def test_a_refused_one_changes_nothing(scene: Scene) -> None:
    run = steps.realign(
        scene.bold, AFFINE, n_dummy=0, sbref=steps.SingleBand(scene.sbref[:-1], AFFINE)
    )
    np.testing.assert_array_equal(run.bold, scene.run.bold)
    np.testing.assert_array_equal(run.boldref, scene.run.boldref)
    assert (run.motion.reference, run.motion.sbref_likeness) == ("median of volumes", None)
    assert run.motion.sbref_refused.startswith("is an image of (35, 42, 32)")
