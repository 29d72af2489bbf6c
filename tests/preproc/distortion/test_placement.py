"""Field maps of a head that lies elsewhere, of another head, of a part of it, of the wrong sign."""

from dataclasses import replace

import numpy as np
import pytest
from distorted_head import READOUT, Head, centres, grid, moved
from scipy.spatial import cKDTree

from brainlm_bids.errors import UserError
from brainlm_bids.parcels.operator import build_operator, parcellate
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import world_to_voxel
from brainlm_bids.preproc.distortion.field import FieldMap, PhaseEncoding
from brainlm_bids.preproc.distortion.pair import PairFieldMap
from brainlm_bids.preproc.distortion.placement import unfolded
from brainlm_bids.preproc.registration.brain import brain_mask_epi

HEAD = Head(peak=55.0)


def field_map(head: Head, pose: bool = True) -> FieldMap:
    """On a grid of its own, in another place of the scanner."""
    own, shape = grid("RAS", 5.0)
    points = centres(own, shape)
    magnitude = head.magnitude(own, shape).astype(np.float32)
    elsewhere = moved(own, [3, -2, 4], [4, -3, 5]) if pose else own
    hertz = head.hertz(points).reshape(shape).astype(np.float32)
    return FieldMap(hertz, elsewhere, magnitude, magnitude > 0)


def run(direction: str, orientation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference with noise, its affine, and the displacements (mm, NaN outside of the brain)."""
    affine, shape = grid(orientation, 5.0)
    image = HEAD.epi(affine, shape, direction)
    image += np.random.default_rng(1).normal(0, 8, shape)
    points = centres(affine, shape)
    sign = -1 if direction.endswith("-") else 1
    millimetres = sign * HEAD.hertz(points) * READOUT * 5.0
    inside = HEAD.radius(points) < 0.97
    return np.abs(image), affine, np.where(inside, millimetres, np.nan).reshape(shape)


def found(direction: str, orientation: str, measured: FieldMap) -> steps.Undistorted:
    image, affine, _ = run(direction, orientation)
    encoding = PhaseEncoding.from_bids(direction, READOUT)
    return steps.undistort(image, affine, brain_mask_epi(image, affine), encoding, measured)


@pytest.mark.parametrize(
    ("direction", "orientation"), [("j-", "LAS"), ("i", "RAS"), ("k-", "PIR"), ("j", "oblique")]
)
def test_a_field_map_of_a_head_elsewhere_is_brought_to_the_run(
    direction: str, orientation: str
) -> None:
    result = found(direction, orientation, field_map(HEAD))
    assert result.distortion is not None and not result.refused, result.refused
    truth = run(direction, orientation)[2]
    brain = np.isfinite(truth)
    assert np.nanmax(np.abs(truth)) > 10
    errors = np.abs(result.distortion.millimetres - truth)[brain]
    assert errors.mean() < 0.3 and np.percentile(errors, 95) < 1.0
    fit = result.fit
    assert fit is not None and fit.corrected is not None
    assert fit.corrected > 1.1 * fit.uncorrected > 1.1 * fit.reversed
    assert fit.measured > 0.9 and fit.folded == 0
    assert fit.largest_mm == pytest.approx(np.nanmax(np.abs(truth)), abs=1.0)
    assert 5 < fit.moved_mm < 16
    # the reference and the brain go back to where they are
    own = HEAD.radius(centres(*grid(orientation, 5.0))).reshape(brain.shape)
    assert result.brain_mask[own < 0.9].mean() > 0.97 and not result.brain_mask[own > 1.15].any()


def test_parcels_are_averaged_where_the_run_shows_them() -> None:
    """Series of parcels that are displaced by more than 6 mm, against those without distortion."""
    rng = np.random.default_rng(2)
    affine, shape = grid("LAS", 4.0)
    head, measured = replace(HEAD, peak=60.0), field_map(replace(HEAD, peak=60.0))
    pieces = head.pieces()
    centroids = pieces[rng.choice(len(pieces), 424, replace=False)]
    labels = cKDTree(centroids).query(pieces)[1]
    courses = rng.standard_normal((16, len(centroids)))
    still = 1000 - 200 * head.tissue(pieces)

    def series(one: Head) -> np.ndarray:
        signals = (still * (1 + 0.02 * course[labels]) for course in courses)
        images = [one.acquired(pieces, signal, affine, shape, "j-") for signal in signals]
        return np.stack(images, axis=3).astype(np.float32)

    distorted, straight = series(head), series(replace(head, peak=0.0))
    encoding = PhaseEncoding.from_bids("j-", READOUT)
    reference = distorted.mean(axis=3)
    mask = brain_mask_epi(reference, affine)
    found = steps.undistort(reference, affine, mask, encoding, measured).distortion
    assert found is not None

    def parcels(run: np.ndarray, points: np.ndarray) -> np.ndarray:
        voxels = world_to_voxel(points[::3], affine)
        operator, _ = build_operator(labels[::3] + 1, voxels, shape, np.ones(shape, bool))
        return parcellate(operator, run)

    displacement = np.abs(head.hertz(pieces)) * READOUT * 4.0
    moved = np.bincount(labels, displacement) / np.bincount(labels) > 6
    assert 5 <= moved.sum() <= 50 and displacement.max() > 11
    truth = parcels(straight, pieces)

    def correlations(series: np.ndarray) -> np.ndarray:
        every = range(len(centroids))
        return np.array([np.corrcoef(series[:, k], truth[:, k])[0, 1] for k in every])

    corrected = correlations(parcels(distorted, found(pieces)))
    uncorrected = correlations(parcels(distorted, pieces))
    assert np.median(corrected[moved]) > 0.97 > 0.9 > np.median(uncorrected[moved])
    assert np.median(corrected) > 0.98


def test_a_pair_of_opposite_polarity_corrects_the_run() -> None:
    affine, shape = grid("LAS", 5.0)
    elsewhere = moved(affine, [2, -1, 3], [3, -2, 4])
    directions = ("j-", "j")
    images = [(HEAD.epi(affine, shape, one), elsewhere) for one in directions]
    encodings = [PhaseEncoding.from_bids(one, READOUT) for one in directions]
    measured = steps.measure_field("pair", images, encodings=encodings)
    assert isinstance(measured, PairFieldMap)
    result = found("j-", "LAS", measured)
    assert result.distortion is not None, result.refused
    truth = run("j-", "LAS")[2]
    errors = np.abs(result.distortion.millimetres - truth)[np.isfinite(truth)]
    assert errors.mean() < 0.5 and np.percentile(errors, 95) < 1.5
    assert result.fit is not None and result.fit.pair_before is not None
    assert result.fit.pair_after == measured.residual_after < 0.5 * result.fit.pair_before
    # two images of one polarity are none
    with pytest.raises(UserError, match="polarity"):
        steps.measure_field("pair", images, encodings=encodings[:1] * 2)


def test_a_wrong_sign_is_refused_and_named() -> None:
    measured = field_map(HEAD)
    result = found("j", "LAS", replace(measured, hertz=-measured.hertz))
    assert result.distortion is None
    assert "PhaseEncodingDirection" in result.refused


def test_another_head_is_refused() -> None:
    result = found("j", "LAS", field_map(replace(HEAD, seed=5)))
    assert result.distortion is None and "another head" in result.refused
    image = run("j", "LAS")[0]
    np.testing.assert_allclose(result.boldref, image, rtol=1e-6)


def test_a_part_of_the_head_is_refused() -> None:
    measured = field_map(HEAD)
    low = np.indices(measured.hertz.shape)[2] < 15
    part = replace(
        measured,
        magnitude=np.where(low, measured.magnitude, 0).astype(np.float32),
        brain_mask=measured.brain_mask & low,
    )
    result = found("j", "LAS", part)
    assert result.distortion is None and "covers" in result.refused


def test_impossible_displacements_are_refused() -> None:
    """As of read-out times or echo times in other units: ten times the field."""
    measured = field_map(HEAD)
    result = found("j", "LAS", replace(measured, hertz=10 * measured.hertz))
    assert result.distortion is None and result.refused


def test_folds_are_opened() -> None:
    rng = np.random.default_rng(0)
    shift = np.cumsum(rng.normal(0, 0.8, (4, 40, 3)), axis=1).astype(np.float32)
    index = np.arange(40).reshape(1, -1, 1)
    assert (np.diff(shift + index, axis=1) < 0).any()
    opened = unfolded(shift, 1)
    assert np.diff(opened + index, axis=1).min() >= 0.1 - 1e-4
    # what was in order stays as it was
    order = (np.maximum.accumulate(shift + 0.9 * index, axis=1) == shift + 0.9 * index) & (
        np.flip(np.minimum.accumulate(np.flip(shift + 0.9 * index, 1), axis=1), 1)
        == shift + 0.9 * index
    )
    assert order.any()
    np.testing.assert_allclose(opened[order], shift[order], atol=1e-4)
