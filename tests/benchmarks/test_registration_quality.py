"""The benchmark of registration quality: what it does to images, and its verdicts."""

import numpy as np
import pytest

from benchmarks import registration_quality as benchmark
from brainlm_bids.preproc.affine import apply
from brainlm_bids.preproc.registration.quality import Quality
from brainlm_bids.preproc.steps import Anatomy

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def person() -> benchmark.Person:
    rng = np.random.default_rng(0)
    head = benchmark.Head(rng.random((6, 7, 20)).astype(np.float32), AFFINE)
    brain = np.zeros((6, 7, 20), bool)
    brain[1:5, 1:6, 2:18] = True
    # found once, and kept
    vars(head)["anatomy"] = Anatomy(head.data, brain, "deepbet")
    boldref = rng.random((5, 6, 7)).astype(np.float32), AFFINE
    return benchmark.Person("someone", head, boldref, truth=np.eye(4))


@pytest.mark.parametrize("name", benchmark.TURNS)
def test_a_turned_header_turns_the_truth_with_it(name: str) -> None:
    """The same voxel shows the same place of the head, whatever the header says."""
    one = person()
    other = benchmark.turned(one, name, benchmark.TURNS[name])
    assert one.truth is not None and other.truth is not None
    place = np.array([[3.0, 4.0, 5.0]])
    voxels = [
        apply(np.linalg.inv(someone.boldref[1]) @ someone.truth, place)  # type: ignore[operator]
        for someone in (one, other)
    ]
    np.testing.assert_allclose(voxels[0], voxels[1])
    assert not np.allclose(one.boldref[1], other.boldref[1])


def test_a_coil_and_a_cut_are_as_they_say() -> None:
    one = person()
    bright = benchmark.shaded(one, "coil", 9.0, 1).boldref[0] / one.boldref[0]
    assert bright[0, -1, 0] / bright[0, 0, 0] == pytest.approx(9, rel=1e-5)
    cut = benchmark.without_top(one, 12.0).t1w
    # the brain's top is voxel 17 at 51 mm: below 39 mm are the voxels up to 12
    assert cut.data.shape == (6, 7, 13)
    np.testing.assert_array_equal(cut.data, one.t1w.data[:, :, :13])


@pytest.mark.parametrize(
    ("found", "right", "holds"),
    [
        (Quality(8.0, 0.5, 0.95), True, True),
        (Quality(8.0, 0.5, 0.95), False, False),
        (Quality(2.0, 0.9, 0.95), False, True),
        (Quality(2.0, 0.9, 0.95), True, False),
        (Quality(2.0, 0.9, 0.95), None, True),
    ],
)
def test_a_wrong_registration_without_a_warning_is_missed(
    found: Quality, right: bool | None, holds: bool
) -> None:
    row = benchmark.Outcome("someone", 0.1, found, right)
    assert row.holds == holds
    assert ("MISSED" in row.cells()[-1]) == (not holds)
