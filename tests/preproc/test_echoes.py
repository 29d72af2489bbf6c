"""Echoes are combined as their decay, known in advance, asks for; tedana agrees where installed."""

import numpy as np
import pytest

from benchmarks.multi_echo import MultiEcho, simulate
from brainlm_bids.errors import UserError
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.echoes import Decay, combine, fit_decay, weights_of

TIMES = (0.014, 0.030, 0.046)
SMALL = (24, 30, 16)


def _decayed(t2star: np.ndarray, times: tuple[float, ...], level: float = 4000.0) -> list:
    """Echoes (X, Y, Z, 20) of voxels with a known decay, which fluctuate by a few percent."""
    rng = np.random.default_rng(0)
    change = 1 + 0.03 * rng.standard_normal((*t2star.shape, 20))
    return [
        (level * change * np.exp(-time / t2star[..., None])).astype(np.float32) for time in times
    ]


def _tsnr(bold: np.ndarray, mask: np.ndarray) -> float:
    return float(np.median((bold.mean(axis=-1) / bold.std(axis=-1))[mask]))


@pytest.fixture(scope="module")
def run() -> MultiEcho:
    return simulate(TIMES, shape=SMALL, n_volumes=30, response=True)


@pytest.fixture(scope="module")
def realigned(run: MultiEcho) -> steps.RealignedEchoes:
    copies = (echo.copy(order="F") for echo in run.echoes)
    return steps.realign_echoes(copies, run.affine, TIMES, n_dummy=0)


# --- the kernel --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [4000.0, 3e-4, 4e7])
@pytest.mark.parametrize("times", [(0.015, 0.04), (0.0102, 0.0245, 0.0388, 0.0531, 0.0674)])
def test_t2star_is_exact_without_noise_in_any_units(times: tuple, level: float) -> None:
    truth = np.linspace(0.035, 0.09, 5 * 4 * 3).reshape(5, 4, 3)
    decay = fit_decay(_decayed(truth, times, level), times, np.ones(truth.shape, bool))
    assert (decay.n_good == len(times)).all()
    assert np.abs(decay.t2star / truth - 1).max() < 0.01
    assert abs(decay.median * np.median(1 / truth) - 1) < 0.01


def test_weights_are_those_of_posse() -> None:
    t2star = np.array([0.03, 0.05]).reshape(2, 1, 1)
    decay = Decay(t2star.astype(np.float32), np.full((2, 1, 1), 3, np.int8), 0.04)
    expected = np.array(TIMES)[:, None] * np.exp(-np.array(TIMES)[:, None] / t2star.ravel())
    found = weights_of(decay, TIMES)[:, :, 0, 0]
    assert np.allclose(found, expected / expected.sum(axis=0), atol=1e-6)


def test_echoes_without_signal_have_no_weight() -> None:
    truth = np.full((24, 6, 6), 0.04)
    truth[0], truth[1] = 0.005, 0.0005
    rng = np.random.default_rng(1)
    echoes = [
        np.abs(echo + 20 * rng.standard_normal(echo.shape)).astype(np.float32)
        for echo in _decayed(truth, TIMES)
    ]
    echoes[2][2] = 0  # an echo that an export has masked
    echoes[0][3] = 0
    decay = fit_decay(echoes, TIMES, np.ones(truth.shape, bool))
    weights = weights_of(decay, TIMES)
    assert (decay.n_good[1] <= 1).all()
    assert (decay.n_good[2] == 2).all()
    assert (decay.n_good[3] == 0).all()
    assert (decay.n_good[4:] == 3).all()
    assert np.allclose(weights.sum(axis=0), 1, atol=1e-6)
    assert (weights[2][decay.n_good < 3] == 0).all()
    assert (weights[0][decay.n_good < 2] == 1).all()
    combined = combine(echoes, weights)
    assert np.array_equal(combined[1], echoes[0][1])
    assert np.isfinite(combined).all()


def test_signal_that_grows_with_the_echo_time_is_no_tissue() -> None:
    truth = np.full((4, 4, 4), 0.04)
    echoes = _decayed(truth, TIMES)[::-1]
    decay = fit_decay(echoes, TIMES, np.ones(truth.shape, bool))
    assert decay.median < 0
    assert not decay.is_plausible
    assert np.allclose(weights_of(decay, TIMES)[0], 1, atol=1e-4)
    same = fit_decay([echoes[0]] * 3, TIMES, np.ones(truth.shape, bool))
    assert not same.is_plausible
    assert np.isfinite(combine([echoes[0]] * 3, weights_of(same, TIMES))).all()


@pytest.mark.parametrize("times", [(0.03, 0.014), (0.014, 0.014), (0.0, 0.014), (0.014,)])
def test_times_must_ascend(times: tuple[float, ...]) -> None:
    echoes = _decayed(np.full((2, 2, 2), 0.04), (0.014, 0.03))
    with pytest.raises(ValueError, match=r"echo times|two or more"):
        fit_decay(echoes, times, np.ones((2, 2, 2), bool))


@pytest.mark.parametrize("times", [TIMES, (0.015, 0.04), (0.0125, 0.0276, 0.0426, 0.0577)])
def test_tedana_agrees(times: tuple[float, ...]) -> None:
    """The same mask, T2* and combination, wherever two echoes or more have signal."""
    combination = pytest.importorskip("tedana.combine", reason="tedana is not installed")
    from tedana import decay as tedana_decay
    from tedana.utils import make_adaptive_mask

    run = simulate(times, shape=SMALL, n_volumes=20, mm=0.0)
    mask = run.brain
    own = fit_decay(run.echoes, times, mask)
    data = np.stack([echo[mask] for echo in run.echoes], axis=1).astype(np.float64)
    milliseconds = 1000 * np.array(times)
    _, n_good = make_adaptive_mask(data, threshold=1, methods=["dropout"])
    assert np.array_equal(own.n_good[mask], n_good)
    t2star, s0, *_ = tedana_decay.fit_decay(data, milliseconds, n_good, "loglin")
    t2star = tedana_decay.modify_t2s_s0_maps(t2star, s0, n_good, milliseconds)[0]
    theirs = combination.make_optcom(data, milliseconds, n_good, t2s=t2star)
    ours = combine(run.echoes, weights_of(own, times))[mask]
    several = n_good >= 2
    assert several.mean() > 0.95
    assert np.abs(own.t2star[mask] * 1000 / t2star - 1)[several].max() < 1e-4
    assert np.abs(ours[several] / theirs[several] - 1).max() < 1e-4


# --- the step ----------------------------------------------------------------------------------


def test_a_run_of_echoes_against_its_truth(run: MultiEcho, realigned: steps.Realigned) -> None:
    decay = realigned.decay
    inner = realigned.brain_mask & run.brain & (run.t2star > 0.02)
    assert abs(decay.median / np.median(run.t2star[inner]) - 1) < 0.02
    error = np.abs(decay.t2star / run.t2star - 1)[inner]
    assert np.median(error) < 0.02
    assert np.percentile(error, 95) < 0.06
    # the air cavity: a few milliseconds leave nothing in the later echoes
    lost = run.brain & (run.t2star < 0.009)
    assert lost.sum() > 3
    assert (decay.n_good[lost] <= 2).mean() > 0.9
    expected = sum(w * c for w, c in zip(weights_of(decay, TIMES), run.clean))
    assert np.median(np.abs(realigned.bold.mean(axis=-1) / expected - 1)[inner]) < 0.02


def test_the_combination_gains_over_the_best_echo() -> None:
    """Thermal noise: 1.166 is what the weights give at a T2* of 45 ms."""
    still = simulate(TIMES, shape=SMALL, n_volumes=40, mm=0.0)
    decay = fit_decay(still.echoes, TIMES, still.brain)
    inner = still.brain & (decay.n_good == 3)
    best = max(_tsnr(echo, inner) for echo in still.echoes)
    assert _tsnr(combine(still.echoes, weights_of(decay, TIMES)), inner) >= 1.15 * best


def test_a_response_is_clearer_than_in_any_echo(run: MultiEcho, realigned: steps.Realigned) -> None:
    inner = realigned.brain_mask & run.brain & (run.t2star > 0.03)

    def clarity(bold: np.ndarray) -> float:
        series = bold[inner] / bold[inner].mean(axis=1, keepdims=True)
        return float(np.median([np.corrcoef(one, run.response)[0, 1] for one in series[::7]]))

    still = simulate(TIMES, shape=SMALL, n_volumes=30, response=True, mm=0.0)
    assert clarity(realigned.bold) > max(clarity(echo) for echo in still.echoes)


def test_echoes_kept_elsewhere_give_the_same(run: MultiEcho, realigned: steps.Realigned) -> None:
    copies = (echo.copy(order="F") for echo in run.echoes)
    kept = []

    def keep(echo: np.ndarray) -> np.ndarray:
        kept.append(np.array(echo))
        echo[:] = np.nan  # nobody reads what was put aside
        return kept[-1]

    again = steps.realign_echoes(copies, run.affine, TIMES, n_dummy=0, keep=keep)
    assert len(kept) == 3
    assert np.array_equal(again.bold, realigned.bold)
    assert np.array_equal(again.motion.parameters, realigned.motion.parameters)


def test_a_volume_that_is_bad_in_one_echo_is_bad_in_all(
    run: MultiEcho, realigned: steps.Realigned
) -> None:
    copies = [echo.copy(order="F") for echo in run.echoes]
    copies[1][..., 7] = 0
    copies[2][..., 12] = np.nan
    copies[0][..., 20] *= 8
    copies[2][5, 6, 7, 3] = np.inf
    found = steps.realign_echoes(copies, run.affine, TIMES, n_dummy=0)
    assert found.motion.reasons is not None
    assert list(np.flatnonzero(found.motion.reasons != "")) == [7, 12, 20]
    assert np.isfinite(found.bold).all()
    # what is bad in a later echo alone still has the motion of the first one
    assert np.allclose(found.motion.parameters[7], realigned.motion.parameters[7], atol=0.02)
    inner = found.brain_mask & run.brain
    good = found.motion.reasons == ""
    apart = found.bold[inner][:, good] / realigned.bold[inner][:, good] - 1
    assert np.percentile(np.abs(apart), 99) < 0.01


def test_errors_name_the_echo(run: MultiEcho) -> None:
    short = [run.echoes[0].copy(order="F"), run.echoes[1][..., :20].copy(order="F")]
    with pytest.raises(UserError, match=r"echo 2: has the shape \(24, 30, 16, 20\)"):
        steps.realign_echoes(short, run.affine, TIMES[:2], n_dummy=0)
    frozen = [run.echoes[0].copy(order="F"), np.zeros_like(run.echoes[1])]
    with pytest.raises(UserError, match="echo 2: all its values are the same"):
        steps.realign_echoes(frozen, run.affine, TIMES[:2], n_dummy=0)
    lost = [echo.copy(order="F") for echo in run.echoes]
    lost[1][..., :4], lost[2][..., 20:24] = 0, 0
    with pytest.raises(UserError, match="8 of 30 volumes cannot be used"):
        steps.realign_echoes(lost, run.affine, TIMES, n_dummy=0)


def test_slices_of_every_echo_are_corrected_in_time(run: MultiEcho) -> None:
    """With echoes that are copies of one, the series is that of one corrected run."""
    tables = steps.SliceTimes(np.linspace(0, 1.9, SMALL[2]), 0.95, 2.0)
    one = steps.realign(run.echoes[0].copy(order="F"), run.affine, n_dummy=0, slices=tables)
    copies = (run.echoes[0].copy(order="F") * np.float32(scale) for scale in (1, 0.7, 0.49))
    found = steps.realign_echoes(copies, run.affine, TIMES, n_dummy=0, slices=tables)
    inner = one.brain_mask
    scale = found.bold[inner].mean(axis=1) / one.bold[inner].mean(axis=1)
    assert np.allclose(found.bold[inner], one.bold[inner] * scale[:, None], rtol=2e-3)
