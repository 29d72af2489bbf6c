"""The field of two images of opposite polarity, which are simulated apart from the code.

Signal is taken from an analytic head at eight places per voxel and put where the field shows it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from brainlm_bids.preproc.affine import about, apply, compose, invert
from brainlm_bids.preproc.distortion.field import PhaseEncoding
from brainlm_bids.preproc.distortion.pair import PairFieldMap, field_of_pair

VOXEL = 6.0
SHAPE = (31, 38, 22)  # odd and even
READOUT = 0.04
PER_VOXEL = 8
NOISE = 0.015


def grid(shape=SHAPE, voxel=VOXEL, turn=(0.0, 0.0, 0.0), flips=(1, 1, 1)):
    """An affine with the head, which is about the origin, in the middle."""
    affine = np.eye(4)
    rotation = Rotation.from_rotvec(np.radians(turn)).as_matrix()
    affine[:3, :3] = rotation @ np.diag(voxel * np.array(flips, dtype=float))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


@dataclass(frozen=True)
class Head:
    """Tissue in an ellipsoid, and a field in Hz with peaks in front and at both sides."""

    seed: int = 1
    peak: float = 8.0  # mm

    def signal(self, points):
        x, y, z = points.T
        radius = (x / 68) ** 2 + (y / 86) ** 2 + (z / 58) ** 2
        inside = 1 / (1 + np.exp((np.sqrt(radius) - 1) * 30))
        rng = np.random.default_rng(self.seed)
        waves, phases = rng.normal(0, 0.16, (12, 3)), rng.uniform(0, 2 * np.pi, 12)
        texture = np.cos(points @ waves.T + phases).sum(axis=1) / 12
        ventricle = np.exp(-((x / 14) ** 2 + (y / 30) ** 2 + (z / 12) ** 2))
        return 1000 * inside * np.clip(1 + 0.8 * texture + 0.4 * ventricle, 0.2, None)

    def brain(self, points):
        x, y, z = points.T
        return (x / 64) ** 2 + (y / 82) ** 2 + (z / 54) ** 2 < 1

    def hertz(self, points):
        value = np.zeros(len(points))
        for centre, width, height in (
            ((0, 70, -30), 24, 1.0),
            ((58, -10, -35), 20, 0.7),
            ((-58, -10, -35), 20, -0.6),
        ):
            value += height * np.exp(-((points - centre) ** 2).sum(axis=1) / (2 * width**2))
        return self.peak / VOXEL / READOUT * value


def acquired(head, affine, encoding, motion=None, noise=NOISE, shape=SHAPE, seed=0, decay=0.0):
    """An image of a head that has moved, mm of the head at rest to those of the scanner.

    decay: TE / T2* of gradient echoes.
    """
    motion = np.eye(4) if motion is None else motion
    fine = list(shape)
    fine[encoding.axis] *= PER_VOXEL
    index = np.indices(fine).reshape(3, -1).T.astype(float)
    voxels = index.copy()
    voxels[:, encoding.axis] = (voxels[:, encoding.axis] + 0.5) / PER_VOXEL - 0.5
    points = apply(compose(invert(motion), affine), voxels)
    shown = voxels[:, encoding.axis] + encoding.sign * encoding.readout * head.hertz(points)
    image = np.zeros(shape)
    amount = head.signal(points) / PER_VOXEL
    if decay:
        step = apply(invert(motion), affine[:3, encoding.axis]) - apply(invert(motion), np.zeros(3))
        change = (head.hertz(points + 0.05 * step) - head.hertz(points - 0.05 * step)) / 0.1
        stretch = 1 + encoding.sign * encoding.readout * change
        amount *= np.exp(-decay * (1 / np.maximum(stretch, 0.1) - 1))
    low = np.floor(shown + 0.5 - 0.25).astype(int)
    for place, share in ((low, None), (low + 1, None)):
        # a sample fills half a voxel: its share in this voxel and the next
        begin, end = shown + 0.25, shown + 0.75
        share = np.clip(np.minimum(end, place + 1) - np.maximum(begin, place), 0, None) / 0.5
        kept = (place >= 0) & (place < shape[encoding.axis])
        target = index[kept].astype(int)
        target[:, encoding.axis] = place[kept]
        np.add.at(image, tuple(target.T), (amount * share)[kept])
    rng = np.random.default_rng(seed)
    return np.abs(image + 1000 * noise * rng.standard_normal(shape)).astype(np.float32)


def pair(head, affine, direction="j", readouts=(READOUT, READOUT), motion=None, **options):
    encodings = [
        PhaseEncoding.from_bids(direction, readouts[0]),
        PhaseEncoding.from_bids(direction[0] + ("" if "-" in direction else "-"), readouts[1]),
    ]
    images = [
        acquired(head, affine, encodings[0], seed=1, **options),
        acquired(head, affine, encodings[1], motion, seed=2, **options),
    ]
    return images, encodings


def spin_echoes(first, second, encodings, affine=None, **options):
    """The field, where it is known that these are spin echoes: half of the time."""
    affine = grid() if affine is None else affine
    return field_of_pair(first, second, affine, *encodings, echo_time=0.0, **options)


@lru_cache(maxsize=1)
def usual():
    """A head with a peak of 8 mm, its images, their encodings, and the field that is found."""
    head = Head()
    images, encodings = pair(head, grid())
    for image in images:
        image.flags.writeable = False
    return head, images, encodings, spin_echoes(*images, encodings)


def errors(found, head, centred=False):
    """Of the displacement in the brain, mm."""
    points = apply(found.affine, np.indices(found.hertz.shape).reshape(3, -1).T)
    inside = head.brain(points)
    error = (found.hertz.ravel() - head.hertz(points))[inside] * READOUT * VOXEL
    return np.abs(error - np.median(error) if centred else error)


def assert_near(found, head, mean=0.15, p95=0.45, centred=False):
    error = errors(found, head, centred)
    assert error.mean() < mean, error.mean()
    assert np.percentile(error, 95) < p95, np.percentile(error, 95)


@pytest.mark.parametrize("peak", [4.0, 8.0, 12.0])
def test_field_is_found(peak):
    head = Head(peak=peak)
    images, encodings = pair(head, grid())
    found = field_of_pair(*images, grid(), *encodings)
    assert isinstance(found, PairFieldMap)
    assert found.hertz.dtype == np.float32
    assert_near(found, head)
    assert found.agrees
    assert found.residual_after < 0.5 * found.residual_before
    assert not found.gradient_echo
    assert np.abs(found.motion - np.eye(4)).max() < 0.1


@pytest.mark.parametrize(
    ("direction", "flips", "turn"),
    [
        ("j-", (1, 1, 1), (0, 0, 0)),
        ("i", (-1, 1, 1), (0, 0, 0)),
        ("i-", (1, 1, 1), (0, 0, 20)),
        ("k", (-1, 1, 1), (15, 0, 0)),
    ],
)
def test_every_direction_on_every_grid(direction, flips, turn):
    head, affine = Head(), grid(flips=flips, turn=turn)
    images, encodings = pair(head, affine, direction)
    assert_near(spin_echoes(*images, encodings, affine), head)


def test_order_of_the_images_does_not_matter():
    _, images, encodings, there = usual()
    back = spin_echoes(*images[::-1], encodings[::-1])
    inside = there.brain_mask
    assert np.abs(there.hertz - back.hertz)[inside].mean() * READOUT * VOXEL < 0.03


def test_read_out_times_may_differ():
    head = Head()
    images, encodings = pair(head, grid(), readouts=(0.04, 0.025))
    assert_near(spin_echoes(*images, encodings), head, mean=0.2, p95=0.6)


def test_brightness_may_differ():
    head, images, encodings, _ = usual()
    found = spin_echoes(images[0], 3.0 * images[1], encodings)
    assert found.gain == pytest.approx(1 / 3, rel=0.01)
    assert_near(found, head)


def test_signal_that_delayed_gradient_echoes_lose():
    head = Head()
    images, encodings = pair(head, grid(), decay=0.03 / 0.045)
    found = field_of_pair(*images, grid(), *encodings)
    assert found.gradient_echo
    assert_near(found, head, mean=0.2, p95=0.6)
    # taken for spin echoes, they mislead
    spin = spin_echoes(*images, encodings)
    assert not spin.gradient_echo
    assert errors(spin, head).mean() > 2 * errors(found, head).mean()


def test_head_may_move_between_the_images():
    head = Head()
    turn = Rotation.from_rotvec(np.radians([1.0, -1.0, 1.0])).as_matrix()
    motion = about([0.0, 0.0, 0.0], turn, [1.0, 0.0, -1.0])
    images, encodings = pair(head, grid(), motion=motion)
    found = spin_echoes(*images, encodings)
    points = apply(grid(), np.indices(SHAPE).reshape(3, -1).T)
    points = points[head.brain(points)]
    error = apply(found.motion, points) - apply(motion, points)
    # along the phase axis a motion is the same as a constant field
    assert np.abs(error[:, [0, 2]]).mean() < 0.1
    assert_near(found, head, centred=True)


def test_motion_along_the_phase_axis_is_a_constant_field():
    head = Head()
    motion = about([0.0, 0.0, 0.0], np.eye(3), [0.0, 1.0, 0.0])
    images, encodings = pair(head, grid(), motion=motion)
    found = spin_echoes(*images, encodings)
    assert_near(found, head, centred=True)
    constant = found.hertz - head.hertz(apply(grid(), np.indices(SHAPE).reshape(3, -1).T)).reshape(
        SHAPE
    )
    assert np.median(constant[found.brain_mask]) * READOUT * VOXEL == pytest.approx(-0.5, abs=0.05)


def test_second_image_on_another_grid():
    head = Head()
    there = PhaseEncoding.from_bids("j", READOUT)
    # voxels of another size, and the array runs the other way: the same letter, opposite polarity
    shape = (34, 38, 24)
    other = grid(shape, 5.5, flips=(-1, -1, 1))
    scaled = READOUT * VOXEL / 5.5
    first = acquired(head, grid(), there, seed=1)
    second = acquired(head, other, PhaseEncoding(1, 1, scaled), shape=shape, seed=2)
    found = field_of_pair(
        first, second, grid(), there, PhaseEncoding(1, 1, scaled), affine_second=other
    )
    assert_near(found, head, mean=0.2, p95=0.6)


def test_second_image_does_not_show_the_whole_head():
    head, images, encodings, _ = usual()
    lower = grid()
    lower[2, 3] -= 36
    second = acquired(head, lower, encodings[1], seed=3)
    found = field_of_pair(images[0], second, grid(), *encodings, affine_second=lower)
    assert found.residual_after < 0.05
    assert not found.gradient_echo
    points = apply(grid(), np.indices(SHAPE).reshape(3, -1).T)
    error = np.abs(found.hertz - head.hertz(points).reshape(SHAPE)) * READOUT * VOXEL
    assert error[..., :15][head.brain(points).reshape(SHAPE)[..., :15]].mean() < 0.2
    # slices that the second image lacks are as bright as the others
    truth = acquired(Head(peak=0.0), grid(), encodings[0], noise=0.0)
    top = found.brain_mask[..., 15:].nonzero()
    assert np.median(found.magnitude[..., 15:][top] / truth[..., 15:][top]) > 0.9


def test_images_of_different_places_are_refused():
    _, images, encodings, _ = usual()
    elsewhere = grid()
    elsewhere[2, 3] += 110
    with pytest.raises(ValueError, match="do not show the same part"):
        spin_echoes(*images, encodings, affine_second=elsewhere)


def test_volumes_are_realigned():
    head, rng = Head(), np.random.default_rng(5)
    encodings = [PhaseEncoding.from_bids(name, READOUT) for name in ("j", "j-")]
    runs = []
    for k, encoding in enumerate(encodings):
        motions = [np.eye(4)] + [
            about(np.zeros(3), np.eye(3), [rng.uniform(-1, 1), 0.0, rng.uniform(-1, 1)])
            for _ in range(3)
        ]
        volumes = [
            acquired(head, grid(), encoding, m, noise=0.04, seed=10 * k + n)
            for n, m in enumerate(motions)
        ]
        runs.append(np.stack(volumes, axis=3))
    found = spin_echoes(*runs, encodings)
    assert_near(found, head, mean=0.25, p95=0.8, centred=True)


def test_no_line_folds_even_where_the_field_does():
    images, encodings = pair(Head(peak=45.0), grid())
    found = spin_echoes(*images, encodings)
    assert np.abs(np.diff(found.hertz, axis=1)).max() * READOUT < 1.05
    assert np.isfinite(found.hertz).all()


def test_two_heads_are_noticed():
    _, images, encodings, _ = usual()
    other, _ = pair(Head(seed=7), grid())
    found = field_of_pair(images[0], other[1], grid(), *encodings)
    assert not found.agrees


def test_empty_slices_and_values_that_are_not_finite():
    head = Head()
    images, encodings = pair(head, grid())
    for image in images:
        image[..., :3] = 0
        image[5, 5, 5] = np.nan
    found = spin_echoes(*images, encodings)
    assert np.isfinite(found.hertz).all()
    points = apply(grid(), np.indices(SHAPE).reshape(3, -1).T)
    known = head.brain(points).reshape(SHAPE)
    known[..., :4] = False
    error = np.abs(found.hertz - head.hertz(points).reshape(SHAPE))[known] * READOUT * VOXEL
    assert error.mean() < 0.15


def test_a_few_slices():
    head = Head()
    affine = grid((31, 38, 5))
    images, encodings = pair(head, affine, shape=(31, 38, 5))
    assert_near(spin_echoes(*images, encodings, affine), head, mean=0.25, p95=0.8)


def test_magnitude_is_the_head_without_distortion():
    _, images, encodings, found = usual()
    truth = acquired(Head(peak=0.0), grid(), encodings[0], noise=0.0)
    inside = found.brain_mask
    after, before = (
        np.corrcoef(image[inside], truth[inside])[0, 1] for image in (found.magnitude, images[0])
    )
    assert after > 0.985
    assert 1 - after < (1 - before) / 2


def test_the_same_polarity_is_refused():
    _, images, encodings, _ = usual()
    with pytest.raises(ValueError, match="same polarity"):
        field_of_pair(*images, grid(), encodings[0], encodings[0])
    # the letters differ, and so do the arrays
    with pytest.raises(ValueError, match="same polarity"):
        field_of_pair(*images, grid(), *encodings, affine_second=grid(flips=(1, -1, 1)))


def test_different_axes_are_refused():
    _, images, encodings, _ = usual()
    with pytest.raises(ValueError, match="different directions"):
        field_of_pair(*images, grid(), encodings[0], PhaseEncoding(0, -1, READOUT))


@pytest.mark.parametrize("value", [0.0, np.nan, 7.0])
def test_an_image_without_signal_is_refused(value):
    _, images, encodings, _ = usual()
    with pytest.raises(ValueError, match="second image of the pair has no signal"):
        field_of_pair(images[0], np.full(SHAPE, value), grid(), *encodings)


def test_same_input_same_numbers():
    _, images, encodings, found = usual()
    assert np.array_equal(spin_echoes(*images, encodings).hertz, found.hertz)
