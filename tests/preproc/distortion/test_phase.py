"""Fields from simulated echoes: the phase wraps, comes in any unit, and is noisy."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.distortion.continuation import continued
from brainlm_bids.preproc.distortion.field import FieldMap
from brainlm_bids.preproc.distortion.phase import (
    HERTZ_PER_TESLA,
    field_in_hertz,
    field_of_phases,
    in_radians,
    unwrapped,
)
from brainlm_bids.preproc.registration.transforms import resample_to

ECHO_TIMES = (0.00492, 0.00738)
VOXEL_MM, SHAPE = 4.0, (52, 60, 40)
# of a run with a total read-out time of 0.04 s
MM_PER_HERTZ = 0.04 * VOXEL_MM


class Echoes(NamedTuple):
    """A head without scalp in a field that turns the phase difference by more than a turn."""

    affine: np.ndarray
    hertz: np.ndarray
    brain: np.ndarray
    magnitude: np.ndarray
    phases: tuple[np.ndarray, np.ndarray]

    @property
    def difference(self) -> np.ndarray:
        first, second = self.phases
        return np.asarray(np.angle(np.exp(1j * (second - first))))


@pytest.fixture(scope="module")
def echoes() -> Echoes:
    rng = np.random.default_rng(3)
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = -VOXEL_MM * (np.array(SHAPE) - 1) / 2
    points = np.moveaxis(np.indices(SHAPE), 0, -1) @ affine[:3, :3] + affine[:3, 3]
    brain = ((points / [70, 86, 62]) ** 2).sum(axis=-1) < 1

    def bump(centre: list[float], peak: float) -> np.ndarray:
        return np.asarray(peak * np.exp(-((points - centre) ** 2).sum(axis=-1) / (2 * 15**2)))

    hertz = bump([0, 68, -15], 300.0) + bump([52, 10, -30], -150.0) + points @ [0.4, 0.8, -0.3]
    texture = 1 + ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.5)
    images = []
    coil = 2.5 * np.sin(points @ [0.02, 0.03, 0.01])
    for time in ECHO_TIMES:
        signal = (
            600 * brain * np.clip(texture, 0.4, 2) * np.exp(1j * (coil + 2 * np.pi * hertz * time))
        )
        noise = rng.standard_normal((2, *SHAPE))
        images.append(signal + 15 * (noise[0] + 1j * noise[1]))
    first, second = images
    return Echoes(affine, hertz, brain, np.abs(first), (np.angle(first), np.angle(second)))


def errors_mm(found: FieldMap, echoes: Echoes) -> np.ndarray:
    there = resample_to(found.hertz, found.affine, SHAPE, echoes.affine, np.eye(4))
    return np.abs(there - echoes.hertz)[echoes.brain] * MM_PER_HERTZ


def stored(radians: np.ndarray, unit: str) -> np.ndarray:
    """A phase as scanners and converters store it."""
    turns = radians / (2 * np.pi)
    return {
        "radians": radians,
        "0 to 2 pi": np.mod(radians, 2 * np.pi),
        "degrees": np.degrees(radians),
        "thousandths": np.rint(1000 * radians),
        "0 to 4095": np.rint(4095 * (turns + 0.5)),
        "-2048 to 2047": np.rint(4095 * (turns + 0.5)) - 2048,
        "-4096 to 4094": 2 * np.rint(4095 * (turns + 0.5)) - 4096,
        "slope": np.rint(4095 * (turns + 0.5)) * np.float32(2 * np.pi / 4095) - np.pi,
    }[unit]


@pytest.mark.parametrize(
    "unit",
    [
        *("radians", "0 to 2 pi", "degrees", "thousandths", "0 to 4095", "-2048 to 2047"),
        *("-4096 to 4094", "slope"),
    ],
)
def test_phase_in_any_unit_is_the_same_phase(echoes: Echoes, unit: str) -> None:
    found = in_radians(stored(echoes.difference, unit))[0]
    apart = np.angle(np.exp(1j * (found - echoes.difference)))
    assert np.abs(apart).max() < 0.01


@pytest.mark.parametrize("kind", ["difference", "phases"])
def test_the_field_is_that_of_the_simulation(echoes: Echoes, kind: str) -> None:
    phases = (echoes.difference,) if kind == "difference" else echoes.phases
    whole = [stored(one, "-4096 to 4094") for one in phases]
    assert np.ptp(echoes.hertz[echoes.brain]) > 1.1 / (ECHO_TIMES[1] - ECHO_TIMES[0]), "no wraps"
    found = field_of_phases(whole, ECHO_TIMES, echoes.affine, echoes.magnitude)
    errors = errors_mm(found, echoes)
    assert errors.mean() < 0.15 and np.percentile(errors, 95) < 0.4
    assert np.abs(found.hertz).max() < 1.5 * np.abs(echoes.hertz[echoes.brain]).max()


def test_two_phases_swapped_with_their_times_give_the_same_field(echoes: Echoes) -> None:
    there = field_of_phases(echoes.phases, ECHO_TIMES, echoes.affine, echoes.magnitude)
    back = field_of_phases(echoes.phases[::-1], ECHO_TIMES[::-1], echoes.affine, echoes.magnitude)
    np.testing.assert_allclose(there.hertz, back.hertz, atol=0.5)
    # a difference is that of the later echo less the earlier one, whichever is named first
    one = field_of_phases([echoes.difference], ECHO_TIMES[::-1], echoes.affine, echoes.magnitude)
    np.testing.assert_allclose(there.hertz, one.hertz, atol=0.5)


@pytest.mark.parametrize(
    ("units", "factor"), [("Hz", 1.0), ("rad/s", 2 * np.pi), ("T", 1 / HERTZ_PER_TESLA)]
)
def test_a_field_in_units(echoes: Echoes, units: str, factor: float) -> None:
    field = np.where(echoes.brain, echoes.hertz, np.nan) * factor
    found = field_in_hertz(field, units, echoes.affine, echoes.magnitude)
    errors = errors_mm(found, echoes)
    assert errors.mean() < 0.1 and np.percentile(errors, 95) < 0.3


def test_tesla_to_hertz() -> None:
    """The resonance of protons at 3 T is 127.73 MHz."""
    assert pytest.approx(127.732e6, rel=1e-5) == 3 * HERTZ_PER_TESLA


def test_whole_turns_do_not_shift_the_field(echoes: Echoes) -> None:
    """A field of 1.2 turns everywhere looks like one of 0.2 turns, which is the likelier one."""
    turn = 1 / (ECHO_TIMES[1] - ECHO_TIMES[0])
    radians = 2 * np.pi * (echoes.hertz + 1.2 * turn) / turn
    phase = unwrapped(np.angle(np.exp(1j * radians)), echoes.brain)
    expected = 2 * np.pi * (echoes.hertz + 0.2 * turn) / turn
    np.testing.assert_allclose(phase[echoes.brain], expected[echoes.brain], atol=1e-3)


def test_scattered_errors_are_left_out(echoes: Echoes) -> None:
    """Voxels off by whole turns or with no usable phase, one in twenty."""
    rng = np.random.default_rng(5)
    turn = 1 / (ECHO_TIMES[1] - ECHO_TIMES[0])
    wrong = rng.random(SHAPE) < 0.05
    field = echoes.hertz + wrong * turn * rng.choice([-1, 1], SHAPE)
    noise = rng.random(SHAPE) < 0.05
    field = np.where(noise, rng.uniform(-200, 200, SHAPE), field)
    weights = echoes.brain.astype(np.float32)
    for period in (turn, None):
        found = continued(field, weights, echoes.affine, deviation=5.0, period=period)
        errors = np.abs(found - echoes.hertz)[echoes.brain] * MM_PER_HERTZ
        assert errors.mean() < 0.1, period
    # without the weights these errors would spread
    spread = ndimage.gaussian_filter(field, 1) - ndimage.gaussian_filter(echoes.hertz, 1)
    assert np.abs(spread[echoes.brain]).mean() * MM_PER_HERTZ > 1.0


def test_a_field_goes_on_without_a_jump_where_it_was_not_measured(echoes: Echoes) -> None:
    half = echoes.brain & (np.indices(SHAPE)[1] < 34)
    found = continued(echoes.hertz, half, echoes.affine, deviation=5.0)
    steps = np.abs(np.diff(found, axis=1))
    assert steps[:, 33:36].max() < 1.2 * steps[:, 20:33].max()
    # it levels off instead of going on for ever
    assert np.abs(found).max() < 1.5 * np.abs(echoes.hertz[half]).max()


def test_zeros_of_a_masked_field_are_no_measurement(echoes: Echoes) -> None:
    """Of a field that a program masked more tightly than the magnitude shows the brain."""
    inner = ndimage.binary_erosion(echoes.brain, iterations=2)
    masked = np.where(inner, echoes.hertz + 60.0, 0.0)
    found = field_in_hertz(masked, "Hz", echoes.affine, echoes.magnitude)
    there = resample_to(found.hertz, found.affine, SHAPE, echoes.affine, np.eye(4))
    rim = echoes.brain & ~inner
    assert np.abs(there - 60 - echoes.hertz)[rim].mean() * MM_PER_HERTZ < 1.0
    assert not found.brain_mask.sum() > 1.02 * inner.sum()


def test_fine_images_are_averaged_and_lie_where_they_were(echoes: Echoes) -> None:
    fine = np.eye(4) @ echoes.affine
    fine[:3, :3] /= 3
    fine[:3, 3] -= echoes.affine[:3, :3].sum(axis=1) / 3
    blocks = np.ones((3, 3, 3))
    images = [np.kron(one, blocks) for one in (echoes.hertz, echoes.magnitude)]
    found = field_in_hertz(images[0], "Hz", fine, images[1])
    np.testing.assert_allclose(np.diag(found.affine)[:3], 2 * VOXEL_MM / 3)
    errors = errors_mm(found, echoes)
    assert errors.mean() < 0.15 and np.percentile(errors, 95) < 0.5


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        (np.linspace(-9, 9, 1000), "none of the ranges"),
        (np.linspace(-1000, 1200, 1000), "none of the ranges"),
        (np.zeros(1000), "none of the ranges"),
        (np.linspace(0, 1, 1000), "none of the ranges"),
    ],
)
def test_a_phase_of_unknown_unit_is_refused(phase: np.ndarray, said: str) -> None:
    with pytest.raises(UserError, match=said):
        in_radians(phase.reshape(10, 10, 10))


def test_what_cannot_be_is_refused(echoes: Echoes) -> None:
    with pytest.raises(UserError, match="are they in seconds"):
        field_of_phases([echoes.difference], (4.92, 7.38), echoes.affine, echoes.magnitude)
    with pytest.raises(UserError, match="are they in seconds"):
        field_of_phases([echoes.difference], (0.005, 0.005), echoes.affine, echoes.magnitude)
    with pytest.raises(UserError, match="none of Hz"):
        field_in_hertz(echoes.hertz, "ppm", echoes.affine, echoes.magnitude)
    with pytest.raises(UserError, match="not in T"):
        field_in_hertz(echoes.hertz, "T", echoes.affine, echoes.magnitude)
    with pytest.raises(UserError, match="empty"):
        field_in_hertz(0 * echoes.hertz, "Hz", echoes.affine, echoes.magnitude)
    with pytest.raises(UserError, match="no brain"):
        field_in_hertz(echoes.hertz, "Hz", echoes.affine, np.ones(SHAPE))
