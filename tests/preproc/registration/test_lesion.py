"""Lesions: what is masked has no say, elsewhere and for every way of registration."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import apply
from brainlm_bids.preproc.registration import ants as registration
from brainlm_bids.preproc.registration import boundary, diffeomorphic, lesion
from brainlm_bids.preproc.registration.quality import of_normalisation

Head = tuple[np.ndarray, np.ndarray, np.ndarray]


def _ball(shape: tuple[int, ...], affine: np.ndarray, centre: list[float], mm: float) -> np.ndarray:
    points = apply(affine, np.indices(shape).reshape(3, -1).T)
    return (np.linalg.norm(points - centre, axis=1) < mm).reshape(shape)


def test_a_mask_is_carried_by_world_coordinates_onto_a_turned_and_finer_grid() -> None:
    coarse = np.diag([-3.0, 3.0, 3.0, 1.0])
    coarse[:3, 3] = [60, -60, -60]
    fine = np.array([[0, 1.5, 0, -60], [1.5, 0, 0, -60], [0, 0, 1.5, -60], [0, 0, 0, 1.0]])
    drawn = _ball((41, 41, 41), coarse, [12, -9, 6], 15)
    expected = _ball((80, 80, 80), fine, [12, -9, 6], 15)
    labelled = np.where(drawn, 3, 0), coarse
    found = lesion.union_on([labelled, (np.zeros((4, 4, 4)), np.eye(4))], expected.shape, fine)
    overlap = 2 * (found & expected).sum() / (found.sum() + expected.sum())
    assert overlap > 0.9


def test_the_bias_field_does_not_see_a_lesion_and_what_no_lesion_can_be_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape, affine = (40, 44, 40), np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-78, -86, -78]
    brain, hole = (
        _ball(shape, affine, centre, mm) for centre, mm in (([0, 0, 0], 65), ([30, 0, 0], 18))
    )
    image = np.where(brain, np.random.default_rng(0).normal(100, 1, shape), 0)
    seen = []

    def flat(data: np.ndarray, _: np.ndarray, where: np.ndarray) -> np.ndarray:
        seen.append(where)
        return data

    monkeypatch.setattr("brainlm_bids.preproc.steps.anatomical.bias_correct", flat)
    found = steps.prepare_t1w(np.where(hole, 10.0, image), affine, [(hole, affine)])
    assert found.method == "skull-stripped"
    np.testing.assert_array_equal(found.lesion, hole)
    np.testing.assert_array_equal(seen[0], brain & ~hole)
    known = found.lesion_found
    assert known is not None and known.problem == ""
    assert known.volume == pytest.approx(4 / 3 * np.pi * 1.8**3, rel=0.05)
    assert lesion.lesion_notices(known)[0].level == "note"
    whole = steps.prepare_t1w(image, affine, [(brain, affine)])
    np.testing.assert_array_equal(seen[1], brain)
    assert whole.lesion is not None and not whole.lesion.any()
    assert whole.lesion_found is not None and whole.lesion_found.sidecar() == {}
    (warning,) = lesion.lesion_notices(whole.lesion_found)
    assert warning.level == "warning" and "covers 100 % of the brain" in warning.text


def test_hidden_voxels_have_no_say_in_the_field(head: Head) -> None:
    """Whatever stands in a hidden place, the field is the same: also far from it."""
    template, mask, affine = head
    image = np.where(mask, template, 0).astype(np.float32)
    where = ndimage.binary_dilation(mask, iterations=2)
    noise = np.random.default_rng(2).standard_normal((3, *image.shape))
    bend = np.stack([ndimage.gaussian_filter(n, 8) for n in noise])
    grid = np.indices(image.shape)
    moving = ndimage.map_coordinates(image, grid + bend * 2 / np.abs(bend).max(), order=1)
    hole = _ball(image.shape, affine, [35, -20, 20], 24)
    full = diffeomorphic.register(image, moving, where)
    sick = np.where(hole, 0.1 * image.max(), moving)
    # plausible values in the hole, as the program puts them there
    healed = lesion.filled(sick, hole, mask, affine)
    hidden = diffeomorphic.register(image, healed, where, hole)
    seen = diffeomorphic.register(image, sick, where)
    nothing = diffeomorphic.register(image, moving, where, np.zeros_like(hole))
    np.testing.assert_allclose(nothing, full, atol=2e-3)
    points = apply(affine, grid.reshape(3, -1).T).reshape(*image.shape, 3)
    away = np.linalg.norm(points - [35, -20, 20], axis=-1) - 24
    around = mask & (away > 0) & (away < 24)

    def apart(field: np.ndarray, there: np.ndarray) -> float:
        return float(np.percentile(4 * np.linalg.norm(field - full, axis=0)[there], 95))

    assert apart(seen, around) > 1.5
    assert apart(hidden, around) < 0.5 * apart(seen, around)
    assert apart(hidden, mask & hole) < 0.5 * apart(seen, mask & hole)
    assert diffeomorphic.jacobian(hidden).min() > 0


def test_the_affine_stage_does_not_see_the_lesion(head: Head, tmp_path: Path) -> None:
    template, mask, affine = head
    hole = _ball(template.shape, affine, [35, -20, 20], 28)
    healthy = np.where(mask, template, 0)
    sick = np.where(mask & hole, 1.6 * template.max(), healthy)
    points = apply(affine, np.argwhere(mask)[::7])
    fixed = healthy.astype(np.float32), affine

    def there(image: np.ndarray, hidden: np.ndarray | None) -> np.ndarray:
        levels = registration.COARSE, registration.MIDDLE
        pull = registration._affine_pull(fixed, (image, affine), 1, str(tmp_path), hidden, levels)
        return apply(pull, points)

    right = there(healthy, None)
    healed = lesion.filled(sick, hole, mask, affine)
    seen, hidden = there(sick, None), there(healed, hole)
    assert np.median(np.linalg.norm(seen - right, axis=1)) > 1
    assert np.median(np.linalg.norm(hidden - right, axis=1)) < 0.1


@pytest.mark.parametrize(("method", "left"), [("fast", 0.1), ("syn", 0.6)])
def test_every_way_of_registration_leaves_the_lesion_out(
    head: Head, method: str, left: float
) -> None:
    template, mask, affine = head
    hole = _ball(template.shape, affine, [35, -20, 20], 24)
    args = {"moving_mask": mask, "template_mask": mask, "seed": 1, "method": method}

    def error(image: np.ndarray, cut: np.ndarray | None) -> float:
        found = registration.register_to_template(
            image, affine, template, affine, lesion=cut, **args
        )
        points = apply(affine, np.argwhere(mask & ~hole)[::7])
        near = np.linalg.norm(points - [35, -20, 20], axis=1) < 44
        return float(np.percentile(np.linalg.norm(found(points) - points, axis=1)[near], 95))

    bright = np.where(hole, 1.6 * template.max(), template)
    seen, hidden = error(bright, None), error(bright, hole)
    assert seen > 1.0
    assert hidden < left * seen


def test_brains_are_not_compared_where_the_lesion_is(head: Head) -> None:
    """A brain that lacks what the lesion covers is as good as the template's."""
    template, mask, affine = head
    hole = _ball(template.shape, affine, [45, -20, 20], 30)
    short = template, affine, mask & ~hole
    args = (*short, template, affine, mask, lambda points: points)
    assert of_normalisation(*args, kind="T1w", seed=0).dice < 0.98  # type: ignore[operator]
    assert of_normalisation(*args, kind="T1w", seed=0, lesion=hole).dice == 1.0


def test_the_rim_of_a_lesion_is_no_boundary_of_white_matter(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    template, mask, affine = head
    centre = [28, -20, 25]
    hole = _ball(template.shape, affine, centre, 20)
    sick = np.where(hole, 0.0, template)
    surfaces = []

    def refine(surface: boundary.Surface, *_: object) -> np.ndarray:
        surfaces.append(surface)
        return np.eye(4)

    monkeypatch.setattr(
        "brainlm_bids.preproc.steps.registration.register_rigid", lambda *_, **__: 0
    )
    monkeypatch.setattr(boundary, "refine", refine)
    bold = np.where(mask, 100.0, 1.0), affine, mask
    for cut in (None, hole):
        steps.coregister(*bold, sick, affine, mask, t1w_lesion=cut)
    rims = [np.linalg.norm(one.points - centre, axis=1) for one in surfaces]
    assert (np.abs(rims[0] - 20) < 3).sum() > 100
    assert rims[1].min() > 22
    assert len(rims[1]) > 0.5 * len(rims[0])


def test_parcels_in_a_lesion_are_listed_with_their_share() -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    cut = np.zeros((10, 10, 10), bool)
    cut[:5] = True
    points = np.array([[x, 4.0, 4.0] for x in (0, 2, 4, 14, 6, 8, 12, 16, 900, -900)])
    labels = np.array([1, 1, 1, 1, 2, 2, 2, 2, 3, 3])
    shares = lesion.parcel_shares(labels, points, cut, affine, 4)
    np.testing.assert_allclose(shares, [0.75, 0.5, 0, 0])
    damaged, (warning,) = lesion.damaged_parcels(shares, ["a", "b", "c", "d"])
    assert damaged == {"a": 0.75}
    assert warning.kind == "lesion_parcels" and "1 parcel lies in the lesion" in warning.text
