"""Heads as small as an infant's and with wide ventricles: registered, and judged to be right."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.deformed_heads import VENTRICLES, widening
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import apply
from brainlm_bids.preproc.registration import quality
from brainlm_bids.preproc.registration.transforms import resample_to

Head = tuple[np.ndarray, np.ndarray, np.ndarray]
Map = Callable[[np.ndarray], np.ndarray]


def _there(points: np.ndarray, factor: float) -> np.ndarray:
    """Where tissue of the template lies after its ventricles were widened."""
    moved = points
    for _ in range(60):
        moved = points + widening(moved, factor)
    return moved


def test_ventricles_grow_by_a_factor_of_two_to_three() -> None:
    middle = np.mean(VENTRICLES, axis=1)
    ends = [_there(middle + one, 1.7) - _there(middle - one, 1.7) for one in 0.5 * np.eye(3)]
    growth = np.linalg.det(np.stack(ends, axis=-1))
    assert 2 < np.median(growth) < 3.2
    points = np.random.default_rng(0).uniform(-60, 60, (500, 3))
    moved = _there(points, 1.7)
    np.testing.assert_allclose(moved - widening(moved, 1.7), points, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "there", "back", "p95"),
    [
        ("infant", lambda p: 0.72 * p, lambda p: p / 0.72, 1.5),
        ("newborn", lambda p: 0.6 * p, lambda p: p / 0.6, 1.5),
        ("ventricles", lambda p: _there(p, 1.7), lambda p: p - widening(p, 1.7), 2.5),
        (
            *("both", lambda p: 0.8 * _there(p, 1.7)),
            *(lambda p: p / 0.8 - widening(p / 0.8, 1.7), 2.5),
        ),
    ],
)
def test_unusual_heads_are_registered(
    head: Head, name: str, there: Map, back: Map, p95: float
) -> None:
    template, mask, affine = head
    grid = np.diag([-3.0, 3.0, 3.0, 1.0])
    grid[:3, 3] = [96, -125, -90]
    shape = (65, 75, 62)
    image = resample_to(np.where(mask, template, 0), affine, shape, grid, back)
    brain = resample_to(mask, affine, shape, grid, back, 0) > 0.5
    rng = np.random.default_rng(1)
    image = np.where(brain, image + rng.normal(0, 0.02 * template.max(), shape), 0)
    found = steps.normalise(image, grid, brain, template, affine, mask, seed=1)
    points = apply(affine, np.argwhere(ndimage.binary_erosion(mask))[::5])
    errors = np.linalg.norm(found.transform(points) - there(points), axis=1)
    assert np.percentile(errors, 95) < p95, name
    assert quality.registration_warnings(found.quality) == []


@pytest.mark.parametrize("fault", ["newborn", "noise", "upside down"])
def test_what_has_only_the_outline_of_a_brain_is_refused(head: Head, fault: str) -> None:
    """The outline meets the template's; what is within it does not."""
    template, mask, affine = head
    small = affine.copy()
    small[:3] *= 0.72
    rng = np.random.default_rng(0)
    image = {
        "newborn": 1.2 * template.max() - template,
        "noise": rng.normal(template.mean(), template.std(), template.shape),
        "upside down": template,
    }[fault]
    if fault == "upside down":
        small = np.diag([1.0, -1.0, -1.0, 1.0]) @ small
    found = steps.normalise(np.where(mask, image, 0), small, mask, template, affine, mask, seed=1)
    (warning,) = quality.registration_warnings(found.quality)
    assert warning.level == "danger" and "correlation" in warning.text


def test_the_correlation_is_that_of_what_both_show_outside_of_the_lesion(head: Head) -> None:
    template, mask, affine = head
    args = (template, affine, mask, lambda points: points)
    kinds = {"kind": "T1w", "seed": 0}
    # another scale of intensities and a missing top change nothing
    short = mask & (np.indices(mask.shape)[2] < 34)
    found = quality.of_normalisation(5 * template + 70, affine, short, *args, **kinds)
    assert found.correlation == pytest.approx(1)
    hole = mask & (np.indices(mask.shape)[0] < 20)
    sick = np.where(hole, 0, template)
    seen = quality.of_normalisation(sick, affine, mask, *args, **kinds)
    hidden = quality.of_normalisation(sick, affine, mask, *args, **kinds, lesion=hole)
    assert seen.correlation < 0.7 < hidden.correlation
    assert hidden.correlation == pytest.approx(1)
