"""Numbers that judge a registration: closed forms, and good and failed registrations told apart."""

import sys
from typing import Any, Literal

import numpy as np
import pytest
from registration_scene import Scene, pose
from scipy import ndimage

from brainlm_bids.notices import Kind
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import apply, invert
from brainlm_bids.preproc.registration import boundary, brain, quality
from brainlm_bids.preproc.registration.ants import register_rigid
from brainlm_bids.preproc.registration.quality import Quality, registration_warnings
from brainlm_bids.preproc.registration.transforms import resample_to

Head = tuple[np.ndarray, np.ndarray, np.ndarray]


def test_contrast_and_cost_have_a_closed_form() -> None:
    """A plane between white (100) and grey matter (110): Q = 200 * 10 / 210 everywhere."""
    bold = np.full((20, 20, 20), 110.0)
    bold[:, :, :10] = 100.0
    points = np.stack(
        [*np.meshgrid(np.arange(5, 15.0), np.arange(5, 15.0)), np.full((10, 10), 9.5)]
    )
    surface = boundary.Surface(points.reshape(3, -1).T, np.tile([0.0, 0.0, 1.0], (100, 1)))
    brain = np.ones(bold.shape, dtype=bool)
    expected = 200 * 10 / 210
    for pull in (np.eye(4), lambda points: points):
        contrast, cost = quality.at_boundary(surface, bold, np.eye(4), brain, pull)
        assert contrast == pytest.approx(expected)
        assert cost == pytest.approx(1 - np.tanh(0.1 * expected))
    # out of view there is no evidence
    away = np.eye(4)
    away[:3, 3] = 500
    assert quality.at_boundary(surface, bold, np.eye(4), brain, away) == (0.0, 1.0)


def test_overlaps_have_closed_forms() -> None:
    first, second = np.zeros((10, 10, 10), bool), np.zeros((10, 10, 10), bool)
    first[:, :, :6], second[:, :, 3:] = True, True
    assert quality.dice(first, second) == pytest.approx(2 * 3 / (6 + 7))
    assert quality.dice(np.zeros(3), np.zeros(3)) == 0.0
    # a shift by three voxels brings them together, as far as they are in view
    shift = np.eye(4)
    shift[2, 3] = -3
    assert quality.overlap_in_view(first, np.eye(4), second, np.eye(4), shift) == pytest.approx(
        2 * 6 / (6 + 7)
    )
    # what a slab does not show is not held against it
    slab = first[:, :, :4]
    assert quality.overlap_in_view(slab, np.eye(4), first, np.eye(4), np.eye(4)) == 1.0


@pytest.mark.parametrize(
    ("known", "normalised", "beyond"),
    [
        (Quality(7.7, 0.42, 0.95, 0.98), "T1w", []),
        (Quality(4.9, 0.62, 0.93, 0.976), "T1w", []),
        (Quality(5.6, 0.71, 0.93, 0.978), "T1w", []),
        (Quality(2.7, 0.83, 0.87, 0.98), "T1w", ["contrast", "cost"]),
        (Quality(2.2, 0.87, 0.9, 0.98), "T1w", ["contrast", "cost"]),
        (Quality(6.9, 0.47, 0.95, 0.93), "T1w", ["template"]),
        (Quality(6.9, 0.47, 0.95, 0.965, 5472.0), "T1w", ["edge", "5472 mm²"]),
        (Quality(6.9, 0.47, 0.95, 0.965, 2600.0), "T1w", []),
        (Quality(6.9, 0.47, 0.6, 0.98), "T1w", ["brains"]),
        (Quality(6.9, 0.47, 0.95, 0.98, correlation=0.72), "T1w", []),
        (Quality(6.9, 0.47, 0.95, 0.98, correlation=-0.001), "T1w", ["correlation of the T1w"]),
        (Quality(), "T1w", []),
        (Quality(dice=0.4), "boldref", ["template"]),
        (Quality(dice=0.93), "boldref", []),
        (Quality(float("nan"), 0.5, 0.95, 0.98), "T1w", ["contrast"]),
    ],
)
def test_what_is_beyond_its_limit_is_a_danger(
    known: Quality, normalised: str, beyond: list[str]
) -> None:
    found = registration_warnings(known, normalised)
    assert [one.kind for one in found] == [Kind.SUSPECT_REGISTRATION] * bool(beyond)
    assert all(one.level == "danger" and "\n" not in one.text for one in found)
    for word in beyond:
        assert word in found[0].text


def _judged(scene: Scene, bold: np.ndarray, mask: np.ndarray, pull: np.ndarray) -> Quality:
    contrast, cost = quality.at_boundary(scene.surface, bold, scene.bold_affine, mask, pull)
    overlap = quality.overlap_in_view(
        scene.brain, scene.affine, mask, scene.bold_affine, invert(pull)
    )
    return Quality(contrast, cost, overlap)


@pytest.mark.parametrize(
    "off",
    [([0, 0, 0], [6, 0, 0]), ([0, 0, 0], [0, -6, 4]), ([0, 0, 15], [0, 0, 0])],
    ids=["6 mm", "7 mm", "15 degrees"],
)
def test_a_pose_that_is_off_is_told_from_the_right_one(
    scene: Scene, off: tuple[list[float], list[float]]
) -> None:
    right = _judged(scene, scene.bold, scene.bold_brain, scene.truth)
    assert registration_warnings(right) == []
    wrong = _judged(scene, scene.bold, scene.bold_brain, scene.truth @ pose(*off))
    assert registration_warnings(wrong)


def test_another_person_is_told_by_the_best_pose_that_there_is(scene: Scene) -> None:
    """Another head: bent by a few millimetres, and registered as well as it can be."""
    rng = np.random.default_rng(4)
    fields = [ndimage.gaussian_filter(rng.standard_normal(scene.t1w.shape), 8) for _ in range(3)]
    bent = np.stack([7 * field / np.abs(field).std() for field in fields])
    to_voxel = invert(scene.affine)

    def pull(points: np.ndarray) -> np.ndarray:
        head = apply(invert(scene.truth), points)
        voxels = apply(to_voxel, head).T
        return head + np.stack([ndimage.map_coordinates(u, voxels, order=1) for u in bent], axis=1)

    grid = scene.bold.shape, scene.bold_affine, pull
    contrast = np.where(scene.brain, 1.4 * scene.t1w.max() - scene.t1w, 0)
    bold = resample_to(contrast, scene.affine, *grid)
    mask = resample_to(scene.brain, scene.affine, *grid) > 0.5
    given = bold, scene.bold_affine, mask
    best = boundary.refine(scene.surface, *given, scene.truth)
    assert registration_warnings(_judged(scene, bold, mask, scene.truth if best is None else best))


def test_a_coil_at_one_side_misleads_neither_registration_nor_mask(scene: Scene) -> None:
    """Nine times as bright at the back: the pose is found, and the front stays in the brain."""
    shape = scene.bold.shape
    bold = scene.bold * np.geomspace(9, 1, shape[1])[:, np.newaxis]
    # a threshold loses what is far from a surface coil
    own = scene.bold_brain & (np.arange(shape[1]) < 42)[:, np.newaxis]
    seen = np.ones(shape, dtype=bool)
    seen[:, :, -6:] = False
    given = scene.t1w, scene.affine, scene.brain
    found = steps.coregister(bold, scene.bold_affine, own, *given, seen=seen)
    points = apply(scene.affine, np.argwhere(scene.brain)[::50])
    apart = apply(found.matrix, points) - apply(scene.truth, points)
    assert np.linalg.norm(apart, axis=1).mean() < 0.3
    assert registration_warnings(found.quality) == []
    assert found.mask_source == "T1w"
    kept = (found.brain_mask & scene.bold_brain).sum() / scene.bold_brain.sum()
    assert kept > 0.93 and own.sum() < 0.85 * scene.bold_brain.sum()
    # what was not always in view has values only where the run's own brain is
    assert not (found.brain_mask & ~own & ~seen).any()
    assert (found.brain_mask & own & ~seen).any()


def test_a_suspect_registration_leaves_the_run_its_own_brain(scene: Scene) -> None:
    upside_down = scene.bold[::-1, :, ::-1]
    own = brain.brain_mask_epi(upside_down, scene.bold_affine)
    given = scene.t1w, scene.affine, scene.brain
    found = steps.coregister(upside_down, scene.bold_affine, own, *given)
    assert registration_warnings(found.quality)
    assert found.mask_source == "BOLD"
    np.testing.assert_array_equal(found.brain_mask, own)


def test_without_a_boundary_the_fine_grids_decide(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coarse start is good enough only where something refines it."""
    found = []

    def register(*images: Any, quick: bool = False, **options: Any) -> np.ndarray:
        found.append((quick, register_rigid(*images, quick=quick, **options)))
        return found[-1][1]

    step = sys.modules[steps.coregister.__module__]
    monkeypatch.setattr(step, "register_rigid", register)
    monkeypatch.setattr(boundary, "refine", lambda *_: None)
    own = scene.bold_brain
    given = scene.t1w, scene.affine, scene.brain
    result = steps.coregister(scene.bold, scene.bold_affine, own, *given)
    assert result.method == "mutual information"
    assert [quick for quick, _ in found] == [True, False]
    np.testing.assert_array_equal(result.matrix, found[1][1])
    assert not np.array_equal(result.matrix, found[0][1])


def test_the_steps_carry_the_numbers(scene: Scene, head: Head) -> None:
    found = steps.coregister(
        scene.bold, scene.bold_affine, scene.bold_brain, scene.t1w, scene.affine, scene.brain
    )
    assert found.method == "boundary"
    assert found.quality.contrast is not None and found.quality.contrast > 3.5
    assert found.quality.cost is not None and found.quality.cost < 0.8
    assert found.quality.overlap is not None and found.quality.overlap > 0.95
    assert registration_warnings(found.quality) == []
    data, mask, affine = head
    whole = steps.normalise(data, affine, mask, data, affine, mask)
    assert whole.quality.dice is not None and whole.quality.dice > 0.97
    assert registration_warnings(whole.quality) == []


@pytest.mark.parametrize("kind", ["T1w", "boldref"])
def test_a_missing_top_counts_for_a_t1w_and_a_slab_does_not(
    head: Head, kind: Literal["T1w", "boldref"]
) -> None:
    """The image is the template itself, in its place, without the top 32 mm of the brain."""
    data, mask, affine = head
    top = int(np.flatnonzero(mask.any(axis=(0, 1))).max()) - 7
    slab = data[:, :, :top], affine, mask[:, :, :top]
    template = data, affine, mask
    found = quality.of_normalisation(*slab, *template, lambda points: points, kind=kind, seed=0)
    missing = int(mask[:, :, top:].sum())
    whole = int(mask.sum())
    expected = 2 * (whole - missing) / (2 * whole - missing) if kind == "T1w" else 1.0
    assert found.dice == pytest.approx(expected)
    area = 16 * int(slab[2][:, :, [0, -1]].sum())  # voxels of 4 mm
    assert area > 4000
    assert found.edge == (pytest.approx(area) if kind == "T1w" else None)
    assert bool(registration_warnings(Quality(edge=found.edge))) == (kind == "T1w")
