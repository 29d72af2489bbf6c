"""Known rigid motion of a simulated head is recovered; the interpolation is told apart from it."""

import doctest
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from brainlm_bids.preproc.motion import realign as motion
from brainlm_bids.preproc.motion import splines, steady, target, view

HEAD_MM = np.array([65.0, 80.0, 58.0])


class Head:
    """A head as a function of place: an ellipsoid of smooth random texture, no grid anywhere."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        direction = rng.standard_normal((3, 40))
        wavelength = rng.uniform(12, 50, 40)
        self.waves = direction / np.linalg.norm(direction, axis=0) * 2 * np.pi / wavelength
        self.phase = rng.uniform(0, 2 * np.pi, 40)
        self.weight = rng.standard_normal(40) / np.sqrt(20)

    def __call__(self, xyz: np.ndarray) -> np.ndarray:
        radius = np.sqrt(((xyz / HEAD_MM) ** 2).sum(axis=1))
        edge = 1 / (1 + np.exp(np.clip((radius - 1) * 30, -50, 50)))
        return edge * (1000 + 200 * (np.cos(xyz @ self.waves + self.phase) @ self.weight))


def grid(shape: tuple[int, int, int], axes: np.ndarray, z_mm: float = 0.0) -> np.ndarray:
    """Affine whose grid is centred near the head."""
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = np.array([3.0, -5.0, z_mm]) - axes @ ((np.array(shape) - 1) / 2)
    return affine


def simulate(
    affine: np.ndarray,
    shape: tuple[int, int, int],
    parameters: np.ndarray,
    *,
    seed: int = 0,
    noise: float = 0.02,
    gain: float = 0.03,
) -> tuple[np.ndarray, np.ndarray]:
    """BOLD (X, Y, Z, T) and the pull matrices from the resting pose, volume 0's intensity 1."""
    head, rng = Head(seed), np.random.default_rng(seed + 1000)
    matrices = motion.parameters_to_matrices(parameters, np.zeros(3))
    voxels = np.indices(shape).reshape(3, -1).T
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    volumes = []
    for t, push in enumerate(np.linalg.inv(matrices)):
        values = head(world @ push[:3, :3].T + push[:3, 3]) * (1 + gain * np.sin(t))
        values += noise * 1000 * rng.standard_normal(len(values))
        volumes.append(values.reshape(shape).astype(np.float32))
    return np.stack(volumes, axis=3), matrices


def moves(n_volumes: int, mm: float, degrees: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    limits = np.array([mm] * 3 + [np.radians(degrees)] * 3)
    parameters = rng.uniform(-limits, limits, (n_volumes, 6))
    parameters[0] = 0
    return parameters


def displacement_errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean over the brain, per volume, mm. The pose of the reference is free: it is fitted."""
    free = np.linalg.inv(truth) @ found
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_matrix(free[:, :3, :3]).mean().as_matrix()
    pose[:3, 3] = free[:, :3, 3].mean(axis=0)
    lattice = np.stack(np.meshgrid(*[np.linspace(-80, 80, 13)] * 3), axis=-1).reshape(-1, 3)
    brain = lattice[((lattice / HEAD_MM) ** 2).sum(axis=1) < 1]
    brain = np.column_stack([brain, np.ones(len(brain))])
    apart = (found - truth @ pose) @ brain.T
    return np.linalg.norm(apart[:, :3], axis=1).mean(axis=1)


def recovered(affine: np.ndarray, shape: tuple[int, int, int], **options: float) -> np.ndarray:
    mm, degrees = options.pop("mm", 1.5), options.pop("degrees", 2.0)
    n_volumes = int(options.pop("n_volumes", 7))
    bold, truth = simulate(affine, shape, moves(n_volumes, mm, degrees), **options)  # type: ignore[arg-type]
    reference = motion.reference_volume(bold, 0, affine=affine)
    return displacement_errors(motion.realign(bold, affine, reference), truth)


def test_doctests() -> None:
    assert doctest.testmod(motion).failed == 0


def test_head_motion_is_recovered() -> None:
    """The bound of the project: moves to 2.6 mm and 2°, 2 % noise, 3.5 mm voxels."""
    shape = (64, 64, 36)
    errors = recovered(grid(shape, np.diag([3.5, 3.5, 3.5])), shape, n_volumes=10)
    assert errors.mean() <= 0.03
    assert errors.max() <= 0.06


RAS = np.diag([3.5, 3.5, 3.5])
OBLIQUE = Rotation.from_euler("xyz", [20, 10, -8], degrees=True).as_matrix()


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        pytest.param(RAS * [-1, 1, 1], (56, 64, 36), id="LAS"),
        pytest.param(RAS[:, [1, 2, 0]] * [-1, 1, 1], (64, 44, 54), id="PSR"),
        pytest.param(OBLIQUE @ np.diag([3.0, 3.0, 5.0]), (64, 72, 30), id="oblique, anisotropic"),
        pytest.param(-OBLIQUE @ np.diag([3.5, 3.5, 3.5]), (56, 64, 40), id="oblique, left-handed"),
    ],
)
def test_any_orientation(axes: np.ndarray, shape: tuple[int, int, int]) -> None:
    errors = recovered(grid(shape, axes), shape, n_volumes=5)
    assert errors.max() <= 0.06


def test_head_cut_off_by_the_field_of_view() -> None:
    shape = (64, 64, 24)  # 84 mm of a head of 116 mm
    errors = recovered(grid(shape, RAS, z_mm=6.0), shape)
    assert errors.max() <= 0.06


def test_batches_of_volumes_give_the_same_matrices() -> None:
    """What CUDA runs, on torch's CPU: with jumps, an empty volume and values that are missing."""
    from brainlm_bids.preproc.motion import batches as motion_torch

    shape = (44, 52, 30)
    affine = grid(shape, OBLIQUE @ np.diag([4.0, 4.0, 4.5]))
    parameters = moves(9, 1.5, 2.0)
    parameters[5] = [9.0, -8.0, 10.0, 0.12, -0.1, 0.15]
    bold, truth = simulate(affine, shape, parameters)
    bold[..., 3] = 0
    bold[:4, ..., 4] = np.nan
    reference = motion.reference_volume(bold, 0, affine=affine)
    one_by_one = motion.realign(bold, affine, reference)
    batched = motion_torch.realign(bold, affine, reference, "cpu")
    present = np.arange(9) != 3
    assert np.isfinite(batched).all()
    lattice = np.stack(np.meshgrid(*[[-50.0, 50.0]] * 3, [1.0]), axis=-1).reshape(-1, 4)
    apart = (batched - one_by_one)[present] @ lattice.T
    assert np.linalg.norm(apart[:, :3], axis=1).max() < 0.01
    assert displacement_errors(batched[present], truth[present]).max() < 0.1


def test_without_cuda_the_cpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from brainlm_bids.preproc.motion import batches as motion_torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [motion_torch.usable_device(d) for d in ("auto", "cpu", "cuda")] == ["cpu"] * 3
    bold = np.random.default_rng(0).uniform(0, 1, (20, 20, 12, 2)).astype(np.float32)
    on_cpu = motion.realign(bold, np.eye(4), bold[..., 0])
    np.testing.assert_array_equal(
        motion.realign(bold, np.eye(4), bold[..., 0], device="cuda"), on_cpu
    )
    with pytest.raises(ValueError, match="choose auto, cpu or cuda"):
        motion.realign(bold, np.eye(4), bold[..., 0], device="tpu")


def test_large_jumps() -> None:
    shape = (64, 64, 40)
    errors = recovered(grid(shape, RAS), shape, mm=12.0, degrees=10.0)
    assert errors.max() <= 0.1


def test_a_search_ends_where_further_steps_would_lead() -> None:
    """It begins with a part of the points and stops early; what is left is far below the noise."""
    shape = (44, 52, 30)
    affine = grid(shape, OBLIQUE @ np.diag([4.0, 4.0, 4.5]))
    parameters = moves(6, 0.3, 0.3)
    parameters[4] += [6.0, -5.0, 7.0, 0.1, -0.1, 0.1]
    bold, _ = simulate(affine, shape, parameters)
    reference = motion.reference_volume(bold, 0, affine=affine)
    found = motion.realign(bold, affine, reference)
    level = motion._level(reference, affine, target.SMOOTHING_FWHM_MM)
    for t, matrix in enumerate(found):
        spline = splines.coefficients(bold[..., t], level.filters)
        step, correlation = motion._fit(spline, level.target, matrix)
        assert correlation > 0.98
        assert target.step_mm(step) < 0.002


def test_an_empty_volume_does_no_harm() -> None:
    shape = (44, 52, 30)
    affine = grid(shape, np.diag([4.0, 4.0, 4.5]))
    bold, truth = simulate(affine, shape, moves(6, 1.0, 1.0))
    bold[..., 3] = 0
    bold[:4, ..., 4] = np.nan
    reference = motion.reference_volume(bold, 0, affine=affine)
    matrices = motion.realign(bold, affine, reference)
    assert np.isfinite(matrices).all() and np.isfinite(reference).all()
    others = [0, 1, 2, 4, 5]
    assert displacement_errors(matrices[others], truth[others]).max() < 0.06


def test_results_do_not_depend_on_the_type_of_the_data() -> None:
    shape = (30, 32, 20)
    affine = grid(shape, np.diag([5.0, 6.0, 6.0]))
    bold, _ = simulate(affine, shape, moves(4, 1.0, 1.0))
    bold = np.round(bold)
    reference = motion.reference_volume(bold, 0, affine=affine)
    as_float = motion.realign(bold, affine, reference)
    as_int = motion.realign(np.asfortranarray(bold.astype(np.int16)), affine, reference)
    assert as_float.tobytes() == as_int.tobytes()


def test_shapes_and_empty_references_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        motion.realign(np.ones((4, 4, 4, 2)), np.eye(4), np.ones((4, 4, 5)))
    with pytest.raises(ValueError, match="constant"):
        motion.realign(np.ones((8, 8, 8, 2)), np.eye(4), np.ones((8, 8, 8)))


def test_resampling_undoes_the_motion() -> None:
    shape = (64, 64, 36)
    affine = grid(shape, OBLIQUE @ np.diag([3.5, 3.5, 3.5]))
    parameters = moves(3, 2.0, 2.0, seed=4)
    bold, truth = simulate(affine, shape, parameters, noise=0.0, gain=0.0)
    still = splines.resample(bold, affine, truth)
    voxels = np.indices(shape).reshape(3, -1).T
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    brain = (((world / HEAD_MM) ** 2).sum(axis=1) < 0.8).reshape(shape)
    brain &= view.volumes_in_view(truth, affine, shape) == len(truth)
    before = np.abs(bold - bold[..., :1])[brain].mean()
    after = np.abs(still - bold[..., :1])[brain].mean()
    assert still.dtype == np.float32
    assert after < 0.02 * before


def test_no_motion_gives_the_volume_back() -> None:
    bold = np.random.default_rng(0).uniform(0, 1000, (9, 8, 7, 2)).astype(np.float32)
    affine = grid((9, 8, 7), OBLIQUE @ np.diag([3.0, 3.0, 4.0]))
    still = splines.resample(bold, affine, np.tile(np.eye(4), (2, 1, 1)))
    np.testing.assert_allclose(still, bold, atol=0.05)


def test_volumes_in_view() -> None:
    shape = (6, 5, 4)
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])  # left-handed: x decreases with the first index
    matrices = np.tile(np.eye(4), (3, 1, 1))
    assert (view.volumes_in_view(matrices, affine, shape) == 3).all()
    matrices[1, 0, 3] = 3.0  # pulled from 3 mm to the right: 1.5 voxels towards index 0
    matrices[2, 2, 3] = 2.1  # a bit more than half a voxel up
    expected = np.full(shape, 3)
    expected[0] -= 1
    expected[..., -1] -= 1
    np.testing.assert_array_equal(view.volumes_in_view(matrices, affine, shape), expected)


def test_what_is_out_of_view_is_interpolated_in_time() -> None:
    shape, n_volumes = (6, 6, 6), 7
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    matrices = np.tile(np.eye(4), (n_volumes, 1, 1))
    matrices[[0, 3, 4], 2, 3] = 4.5  # the top layer, and half of a voxel: one layer out of view
    times = np.arange(n_volumes, dtype=np.float32)
    bold = np.broadcast_to(10 + 2 * times, (*shape, n_volumes)).copy()
    truth = bold.copy()
    bold[:, :, 5, [0, 3, 4]] = 1e6
    bold[:, :, 4, 3] = 77.0  # in view: it stays
    mask = np.ones(shape, dtype=bool)
    mask[0] = False
    before = bold[0].copy()
    share = view.fill_unseen(bold, matrices, affine, mask)
    np.testing.assert_allclose(bold[1:, :, 5, 1:], truth[1:, :, 5, 1:], rtol=1e-6)
    np.testing.assert_allclose(bold[1:, :, 5, 0], truth[1:, :, 5, 1], rtol=1e-6)
    assert (bold[:, :, 4, 3] == 77).all()
    np.testing.assert_array_equal(bold[0], before)
    np.testing.assert_allclose(share, 3 / (6 * n_volumes))
    assert view.fill_unseen(bold, np.tile(np.eye(4), (n_volumes, 1, 1)), affine, mask) == 0


def test_resampling_in_place_saves_a_copy() -> None:
    shape = (12, 14, 10)
    affine = grid(shape, np.diag([5.0, 6.0, 6.0]))
    bold = np.asfortranarray(np.random.default_rng(0).normal(size=(*shape, 4)), dtype=np.float32)
    matrices = motion.parameters_to_matrices(moves(4, 1.0, 1.0), np.zeros(3))
    copied = splines.resample(bold, affine, matrices)
    assert splines.resample(bold, affine, matrices, out=bold) is bold
    np.testing.assert_array_equal(bold, copied)


def test_parameters_and_matrices_are_inverse() -> None:
    rng = np.random.default_rng(0)
    parameters = np.hstack([rng.normal(0, 3, (20, 3)), rng.normal(0, 0.2, (20, 3))])
    centre = np.array([4.0, -20.0, 13.0])
    matrices = motion.parameters_to_matrices(parameters, centre)
    np.testing.assert_allclose(motion.matrices_to_parameters(matrices, centre), parameters)
    # the centre goes where the translations say
    np.testing.assert_allclose(
        matrices[:, :3, :3] @ centre + matrices[:, :3, 3], centre + parameters[:, :3]
    )


def test_parameters_have_fsls_size() -> None:
    """FSL: matrices from volume to reference, in mm of the image's own axes, same centre."""
    parameters = moves(20, 0.5, 0.5, seed=3)
    centre = np.array([1.0, -12.0, 20.0])
    push = np.linalg.inv(motion.parameters_to_matrices(parameters, centre))
    theirs = motion.matrices_to_parameters(push, centre)
    assert np.abs(np.abs(theirs[:, :3]) - np.abs(parameters[:, :3])).max() < 0.02
    assert np.abs(np.abs(theirs[:, 3:]) - np.abs(parameters[:, 3:])).max() < 2e-4


def test_dummy_volumes_by_fmripreps_rule() -> None:
    from nipype.algorithms.confounds import is_outlier

    rng = np.random.default_rng(0)
    for n_dummy in range(5):
        signal = 100 + 0.1 * rng.standard_normal(40)
        signal[:n_dummy] += 20 * 0.5 ** np.arange(n_dummy)
        assert steady.detect_dummy_volumes(signal) == is_outlier(signal) == n_dummy
    late = 100 + 0.1 * rng.standard_normal(60)
    late[10] = 150
    assert steady.detect_dummy_volumes(late) == 0
    assert steady.detect_dummy_volumes(np.full(30, 7.0)) == 0


@pytest.mark.parametrize("excess", [0.3, 0.08, -0.1])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.6])
def test_the_approach_to_the_steady_state_is_followed_below_the_noise(
    excess: float, decay: float
) -> None:
    approach = excess * decay ** np.arange(40.0)
    true = int((np.abs(approach) > 0.005).sum())
    breath = 0.004 * np.sin(2 * np.pi * 0.54 * np.arange(40) + 2.0)
    found = steady.detect_dummy_volumes(800 * (1 + approach + breath))
    # what is left, in the worst case, is of the size of the breathing
    assert np.abs(approach[found:]).max() < 0.008
    assert found <= true + 2


def test_summary_is_clipped_and_short() -> None:
    bold = np.ones((10, 10, 10, 50), dtype=np.float32)
    bold[0, 0, 0, 0] = 1e9  # one spike in one voxel
    bold[1, 1, 1, 1] = -5000
    summary = steady.volumes_summary(bold)
    assert summary.shape == (40,)
    np.testing.assert_allclose(summary, 1.0, atol=0.01)


def test_reference_leaves_out_dummies_and_outliers() -> None:
    shape = (30, 32, 20)
    affine = grid(shape, np.diag([5.0, 6.0, 6.0]))
    bold, _ = simulate(affine, shape, np.zeros((10, 6)), gain=0.0)
    clean, _ = simulate(affine, shape, np.zeros((1, 6)), gain=0.0, noise=0.0)
    bold[..., :2] *= 3
    bold[..., 7] *= 0.3
    reference = motion.reference_volume(bold, 2, affine=affine)
    assert reference.shape == shape and reference.dtype == np.float32
    assert np.abs(reference - clean[..., 0]).mean() < 10


@pytest.mark.shared
def test_real_head_motion(shared: Path) -> None:
    """Studyforrest sub-02: another tool found 0.27 mm and 0.41 degrees over the run."""
    folder = shared / "data" / "studyforrest" / "sub-02" / "func"
    image = nib.load(folder / "sub-02_task-objectcategories_run-1_bold.nii.gz")
    bold = np.asanyarray(image.dataobj)[..., ::6].astype(np.float32)  # type: ignore[attr-defined]
    affine = image.affine  # type: ignore[attr-defined]
    reference = motion.reference_volume(bold, 0, affine=affine)
    matrices = motion.realign(bold, affine, reference)
    brain = reference > 0.3 * np.percentile(reference, 98)
    centre = nib.affines.apply_affine(affine, np.argwhere(brain).mean(axis=0))
    span = np.ptp(motion.matrices_to_parameters(matrices, centre), axis=0)
    assert 0.1 < span[:3].max() < 0.45
    assert 0.2 < np.degrees(span[3:]).max() < 0.55
    still = splines.resample(bold, affine, matrices)
    spread = [np.median(data[brain].std(axis=1)) for data in (bold, still)]
    assert spread[1] < 0.95 * spread[0]
