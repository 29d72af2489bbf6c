"""Whole bad volumes spoil no other volume: steps of a run that was damaged.

The benign form of the same run is the truth. Without a search for bad volumes the correlation is
-0.03 for a zero tail, 0.67 for one zero volume, and 0.38 for one that is 8 times too bright.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from benchmarks import denoising, simulator
from brainlm_bids.errors import UserError
from brainlm_bids.parcels.connectivity import pearson
from brainlm_bids.parcels.sampling import interpolation_matrix
from brainlm_bids.parcels.steps import scale
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.denoising import aroma, temporal
from brainlm_bids.preproc.denoising.confounds import confounds_table
from brainlm_bids.preproc.denoising.fmriprep import confound_cleaning, motion_parameters

Array = NDArray[np.float64]
TR = 2.0
GOOD = np.ones(60, dtype=bool)
GOOD[[7, 20, 21, 59]] = False


def correlation(found: Array, truth: Array) -> float:
    """Median over parcels, on the rows and parcels that both have."""
    kept = np.isfinite(found).any(axis=0) & np.isfinite(truth).any(axis=0)
    found, truth = found[:, kept], truth[:, kept]
    rows = np.isfinite(found).all(axis=1) & np.isfinite(truth).all(axis=1)
    pairs = zip(found[rows].T, truth[rows].T, strict=True)
    return float(np.median([np.corrcoef(a, b)[0, 1] for a, b in pairs]))


# --- fits ------------------------------------------------------------------------------------


def _noise(good: NDArray[np.bool_] | None) -> Array:
    courses = np.random.default_rng(3).normal(size=(60, 6))
    noise = np.array([True, False, True, False, False, True])
    return aroma.removal_matrix(courses, noise, "nonaggr", good)


def _confounds(good: NDArray[np.bool_] | None) -> Array:
    design = np.random.default_rng(4).normal(size=(60, 5))
    kept = np.ones(60, dtype=bool) if good is None else good
    return confound_cleaning(design, kept, temporal.highpass_matrix(60, TR, 100.0, good))


FITS: dict[str, Callable[[NDArray[np.bool_] | None], Array]] = {
    "high-pass": lambda good: temporal.highpass_matrix(60, TR, 100.0, good),
    "low-pass": lambda good: temporal.gaussian_lowpass_matrix(60, TR, 10.0, good),
    "components": _noise,
    "components, all of them": lambda good: aroma.removal_matrix(
        np.random.default_rng(3).normal(size=(60, 2)), np.array([True, False]), "aggr", good
    ),
    "confounds": _confounds,
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_fit_with_all_volumes_good_is_that_without_weights(fit: Callable[..., Array]) -> None:
    assert np.allclose(fit(np.ones(60, dtype=bool)), fit(None), atol=1e-12)


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_fit_does_not_see_bad_volumes(fit: Callable[..., Array]) -> None:
    matrix = fit(GOOD)
    assert np.abs(matrix[np.ix_(GOOD, ~GOOD)]).max() < 1e-12
    assert np.abs(matrix[np.ix_(GOOD, GOOD)]).max() > 0.1


@pytest.mark.parametrize("low_pass", [None, 12.0])
def test_a_run_with_a_bad_tail_is_filtered_as_the_run_that_ended_there(
    low_pass: float | None,
) -> None:
    rng = np.random.default_rng(0)
    parcels, mixing = 10000 + 50 * rng.normal(size=(60, 8)), rng.normal(size=(60, 4))
    noise = np.array([True, False, False, True])
    short = steps.denoise(
        parcels[:50], TR, n_dummy=2, low_pass=low_pass, components=(mixing[2:50], noise)
    )
    good = np.arange(2, 60) < 50
    parcels[50:] = 0
    found = steps.denoise(
        parcels, TR, n_dummy=2, low_pass=low_pass, components=(mixing[2:], noise), good=good
    )
    assert np.allclose(found.series[2:50], short.series[2:], atol=1e-8)
    assert np.isnan(found.series[50:]).all()
    scaled, expected = (scale(one.series[2:], TR, model_tr=0.735) for one in (found, short))
    assert np.allclose(scaled.series, expected.series, atol=1e-8)
    assert np.allclose(pearson(found.series), pearson(short.series[2:]), atol=1e-10)


def test_features_of_components_leave_bad_volumes_out() -> None:
    rng = np.random.default_rng(0)
    mixing, parameters = rng.normal(size=(60, 5)), np.cumsum(rng.normal(size=(60, 6)), axis=0)
    everything = aroma.max_rp_corr(mixing, parameters, 1)
    ones = aroma.max_rp_corr(mixing, parameters, 1, good=np.ones(60, dtype=bool))
    assert np.array_equal(everything, ones)
    found = aroma.max_rp_corr(mixing, parameters, 1, good=GOOD)
    mixing[~GOOD] = 1e6
    assert np.array_equal(aroma.max_rp_corr(mixing, parameters, 1, good=GOOD), found)


# --- confounds -------------------------------------------------------------------------------


def _table(good: NDArray[np.bool_] | None, outlier: float) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    parameters = np.cumsum(rng.normal(0, 0.02, (60, 6)) * [1, 1, 1, 0.01, 0.01, 0.01], axis=0)
    signal = 10000 + 50 * rng.normal(size=60)
    voxels = 1000 + 10 * rng.normal(size=(60, 300))
    parameters[20], signal[20], voxels[20] = outlier, outlier, outlier
    return confounds_table(parameters, None, signal, signal, signal, voxels, 0, TR, good=good)


def test_confounds_of_a_bad_volume_are_missing_and_marked() -> None:
    good = np.arange(60) != 20
    benign, found = _table(None, 0.01), _table(good, 0.01)
    for name in ("framewise_displacement", "dvars", "std_dvars"):
        assert np.flatnonzero(np.isnan(found[name])).tolist() == [0, 20, 21]
    others = np.r_[1:20, 22:60]
    assert np.allclose(found["dvars"][others], _table(good, 5.0)["dvars"][others], rtol=0.01)
    assert found["bad_volume00"].nonzero()[0].tolist() == [20]
    assert not [name for name in benign if name.startswith("bad_volume")]
    assert not [name for name in found if name.startswith("motion_outlier")]


# --- a raw run -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run() -> simulator.Simulation:
    whole = simulator.simulate(8, n_volumes=60)
    coarse = whole.affine @ np.diag([2, 2, 1, 1.0])  # every second voxel: a quarter of the time
    return replace(whole, bold=whole.bold[::2, ::2].copy(), affine=coarse)


@pytest.fixture(scope="module")
def benign(run: simulator.Simulation) -> steps.Realigned:
    return steps.realign(run.bold, run.affine)


def _zero(bold: Array) -> None:
    bold[..., 34] = 0


def _missing(bold: Array) -> None:
    bold[..., 34] = np.nan


def _bright(bold: Array) -> None:
    bold[..., 34] *= 8


def _frozen(bold: Array) -> None:
    bold[..., 31:35] = bold[..., 30:31]


def _tail(bold: Array) -> None:
    bold[..., 50:] = 0


DAMAGES = {
    _zero: [34],
    _missing: [34],
    _bright: [34],
    _frozen: [31, 32, 33, 34],
    _tail: list(range(50, 60)),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__.strip("_"))
def test_a_damaged_raw_run_is_like_its_benign_form(
    damage: Callable[[Array], None], run: simulator.Simulation, benign: steps.Realigned
) -> None:
    bold = run.bold.copy()
    damage(bold)
    found = steps.realign(bold, run.affine)
    bad = found.motion.good
    assert bad is not None
    assert np.flatnonzero(~bad).tolist() == DAMAGES[damage]
    assert found.motion.parameters is not None
    assert benign.motion.parameters is not None
    moved = np.abs(found.motion.parameters - benign.motion.parameters)[bad, :3]
    assert np.median(moved) < 0.1  # mm
    assert abs(found.motion.n_dummy - benign.motion.n_dummy) <= 1
    assert np.isfinite(found.bold).all()
    voxels = benign.brain_mask & found.brain_mask
    first = max(found.motion.n_dummy, benign.motion.n_dummy)
    series = [one.bold[voxels].T.astype(np.float64) for one in (found, benign)]
    # every tenth voxel as a parcel, with the filter; the tail is one with the run that ended there
    truth = steps.denoise(series[1][: 50 if damage is _tail else 60, ::10], TR, n_dummy=first)
    made = steps.denoise(series[0][:, ::10], TR, n_dummy=first, good=bad[first:])
    assert correlation(made.series[: len(truth.series)], truth.series) > 0.99


def test_a_stopped_scan_is_the_scan_of_the_volumes_before(run: simulator.Simulation) -> None:
    short = denoising.denoise(replace(run, bold=run.bold[..., :50].copy()))
    bold = run.bold.copy()
    bold[..., 50:] = 0
    found = denoising.denoise(replace(run, bold=bold))
    assert np.isnan(found.denoised[50:]).all()
    assert correlation(found.denoised[:50], short.denoised) > 0.999
    assert np.array_equal(found.decisions.noise, short.decisions.noise)


def test_a_run_with_too_many_bad_volumes_fails_with_the_reason(run: simulator.Simulation) -> None:
    bold = run.bold.copy()
    bold[..., 45:] = 0
    with pytest.raises(UserError, match=r"15 of 60 volumes cannot be used \(zero: 45-59\)"):
        steps.realign(bold, run.affine)
    found = steps.realign(bold, run.affine, max_bad_volumes=0.3)
    assert found.motion.good is not None
    assert int(found.motion.good.sum()) == 45


# --- fMRIPrep's output -----------------------------------------------------------------------


def _preprocessed(n_volumes: int = 40) -> tuple[Array, dict[str, Array]]:
    rng = np.random.default_rng(2)
    level = 500 + 500 * rng.random((8, 9, 7, 1))
    drift = 20 * np.linspace(-1, 1, n_volumes)
    bold = level + drift + 10 * rng.normal(size=(8, 9, 7, n_volumes))
    table = {
        **{name: rng.normal(0, 0.1, n_volumes) for name in ("trans_x", "trans_y", "trans_z")},
        **{name: rng.normal(0, 0.001, n_volumes) for name in ("rot_x", "rot_y", "rot_z")},
        "csf": 1000 + rng.normal(size=n_volumes),
        "csf_derivative1": np.r_[np.nan, rng.normal(size=n_volumes - 1)],
        "framewise_displacement": np.r_[np.nan, 0.1 + 0.05 * rng.random(n_volumes - 1)],
    }
    return bold.astype(np.float32), table


def _through_fmriprep(bold: Array, table: dict[str, Array]) -> tuple[Array, steps.Extracted]:
    mask = np.ones(bold.shape[:3], dtype=bool)
    run = steps.take_preprocessed(bold, np.eye(4), table, brain_mask=mask)
    operator = sparse.csr_matrix(np.kron(np.eye(63), np.full((1, 8), 1 / 8)))
    made = steps.extract_preprocessed(run.bold, run.brain_mask, operator, table, run.motion)
    motion = run.motion
    cleaned = steps.denoise(made.parcels, TR, n_dummy=motion.n_dummy, good=motion.good_steady)
    return cleaned.series, made


@pytest.mark.parametrize(("first", "last"), [(33, 40), (20, 21), (0, 2)])
def test_zero_volumes_of_fmriprep_spoil_no_other(first: int, last: int) -> None:
    bold, table = _preprocessed()
    rest = [bold[..., :first], bold[..., last:]]
    damaged = bold.copy()
    damaged[..., first:last] = 0
    before = damaged.copy()
    found, extracted = _through_fmriprep(damaged, table)
    assert np.array_equal(damaged, before)
    assert np.isnan(found[first:last]).all()
    if 0 < first < 33:
        truth, _ = _through_fmriprep(bold, table)
    else:
        whole = {name: np.delete(column, slice(first, last)) for name, column in table.items()}
        truth = np.insert(
            _through_fmriprep(np.concatenate(rest, axis=3), whole)[0],
            [first] * (last - first),
            np.nan,
            axis=0,
        )
    assert correlation(found, truth) > 0.99
    marks = [name for name in extracted.confounds if name.startswith("bad_volume")]
    assert len(marks) == last - first
    assert np.isnan(extracted.confounds["framewise_displacement"][first:last]).all()


def test_too_many_zero_volumes_of_fmriprep_fail() -> None:
    bold, table = _preprocessed()
    bold[..., 30:] = 0
    with pytest.raises(UserError, match="10 of 40 volumes"):
        _through_fmriprep(bold, table)


def test_motion_and_signals_of_a_bad_volume_of_fmriprep_are_interpolated() -> None:
    bold, table = _preprocessed()
    truth = motion_parameters(table)
    for name in ("trans_x", "csf", "csf_derivative1"):
        table[name][20] = 1e5
    table["csf_derivative1"][21] = -1e5
    bold[..., 20] = 0
    _, extracted = _through_fmriprep(bold, table)
    confounds = extracted.confounds
    assert np.abs(confounds["csf_derivative1"][1:]).max() < 10
    expected = truth[[19, 21], 0].mean()
    assert confounds["trans_x"][20] == pytest.approx(expected)
    names = ["csf", "csf_derivative1", "trans_x"]
    columns = np.stack([table[name] for name in names], axis=1)
    good = np.arange(40) != 20
    design = steps.select_confounds(columns, names, None, good=good)
    assert not design.kept[20]
    assert np.abs(design.confounds[:, 1]).max() < 10


def test_zero_grayordinates_of_fmriprep_spoil_no_other() -> None:
    bold, table = _preprocessed()
    series = bold.reshape(-1, 40).T
    labels = np.repeat(np.arange(1, 425), 2)[: series.shape[1]]
    truth = steps.take_cifti(series, labels, table)
    damaged = series.copy()
    damaged[34:] = 0
    damaged[10] = np.nan
    found = steps.take_cifti(damaged, labels, table)
    good = found.motion.good
    assert good is not None
    assert np.flatnonzero(~good).tolist() == [10, *range(34, 40)]
    assert correlation(found.parcels[good], truth.parcels[good]) > 0.999
    assert np.array_equal(found.coverage.fraction, truth.coverage.fraction)
    damaged[30:] = 0
    with pytest.raises(UserError, match="11 of 40"):
        steps.take_cifti(damaged, labels, table)


# --- series ----------------------------------------------------------------------------------


def _series(n_volumes: int = 80) -> Array:
    rng = np.random.default_rng(0)
    return np.cumsum(rng.normal(size=(n_volumes, 424)), axis=0) + 5 * rng.normal(size=(1, 424))


def test_censored_rows_of_a_given_series_are_interpolated_and_do_not_count() -> None:
    series = _series()
    series[:, 3] = np.nan  # a parcel without data
    truth = scale(series, TR, model_tr=TR)
    censored = series.copy()
    censored[[10, 40, 41]] = np.nan
    given = steps.take_series(censored)
    found = scale(given.series, TR, model_tr=TR)
    assert found.filled.nonzero()[0].tolist() == [3]
    assert found.measured is not None
    assert np.flatnonzero(~found.measured).tolist() == [10, 40, 41]
    kept_parcels = np.arange(424) != 3
    both = (one.series[found.measured][:, kept_parcels] for one in (found, truth))
    assert correlation(*both) > 0.999
    assert np.allclose(found.series[10], found.series[[9, 11]].mean(axis=0))
    kept = np.delete(series, [10, 40, 41], axis=0)
    low, high = np.percentile(kept[:, 5], [25, 75])
    assert found.iqr[5] == pytest.approx(high - low)
    rows = np.delete(np.arange(80), [10, 40, 41])
    assert np.allclose(pearson(given.series)[:3, :3], np.corrcoef(series[rows, :3].T))


def test_the_ends_of_a_series_are_cut_off_and_the_time_axis_stays_true() -> None:
    series = _series()
    series[[0, 1, 79]] = np.nan
    found = scale(series, 1.47, model_tr=0.735)
    assert found.first == 2
    assert found.measured is None
    truth = scale(series[2:79], 1.47, model_tr=0.735)
    assert np.array_equal(found.series, truth.series)


def test_a_resampled_series_says_which_of_its_rows_were_measured() -> None:
    series = _series()
    series[40] = np.nan
    found = scale(series, TR, model_tr=1.0)
    assert found.measured is not None
    # volume 40 was at 80 s; the samples half a volume away lean on it too
    assert np.flatnonzero(~found.measured).tolist() == [79, 80, 81]


def test_too_many_missing_rows_of_a_series_fail() -> None:
    series = _series()
    series[10:27] = np.nan
    with pytest.raises(UserError, match="17 of 80 volumes cannot be used"):
        steps.take_series(series)
    assert steps.take_series(series, max_bad_volumes=0.5).motion.good is not None


def test_interpolation_sums_to_one_and_keeps_good_rows() -> None:
    matrix = interpolation_matrix(GOOD)
    assert np.allclose(matrix.sum(axis=1), 1)
    assert np.array_equal(matrix[GOOD], np.eye(60)[GOOD])
