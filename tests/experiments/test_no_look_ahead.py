"""Forecasts of white noise: whatever the repetition time, nothing can be known of its future."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_series import autoregressive_process, write_run

from brainlm_bids import files
from brainlm_bids.bids.outputs import write_record
from brainlm_bids.commands import brainlm as tools
from brainlm_bids.experiments import horizons
from brainlm_bids.experiments.autoregression import autoregressive
from brainlm_bids.experiments.forecast import ForecastOptions
from brainlm_bids.model.past import (
    at_volumes,
    course,
    origins_of,
    past_of,
    smoothness_warnings,
    window_at,
    window_origins,
)
from brainlm_bids.parcels.sampling import resample_series
from brainlm_bids.training.store import write_store

TRS = (0.72, 1.0, 2.0, 3.0)
OPTIONS = ForecastOptions(input=Path(), results=Path(), volumes=20)


def noise(n_volumes: int, seed: int, n_parcels: int = 424) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_volumes, n_parcels))


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a network, the best linear use of what a network sees."""

    def forecast(_: Any, series: np.ndarray, coords: Any, n_volumes: int, **rest: Any) -> Any:
        return autoregressive(series, n_volumes, order=10)

    monkeypatch.setattr(horizons, "forecast", forecast)


def all_errors(series: np.ndarray, tr: float) -> dict[str, dict[str, np.ndarray]]:
    recording = course(series, tr, 0.735)
    origins = origins_of(recording, 20, 180, 4)
    places = horizons.cut(recording, origins, OPTIONS)
    guesses = horizons.predicted(None, recording, origins, OPTIONS)  # type: ignore[arg-type]
    errors = {"model": horizons.model_errors(guesses, recording, places)}
    return errors | horizons.baseline_errors(places, OPTIONS)


@pytest.mark.parametrize("tr", TRS)
def test_white_noise_is_predicted_by_nothing(tr: float, linear: None) -> None:
    """With the series resampled before the past is cut, R² is .98 at a TR of 2 s."""
    for name, errors in all_errors(noise(round(260 / tr), seed=int(10 * tr)), tr).items():
        assert len(errors["r2"]) == int(20 * (0.72 if tr == 0.72 else 0.735) / tr), name
        assert errors["r2"].max() <= 0.05, name


@pytest.mark.parametrize("tr", TRS)
def test_what_can_be_predicted_still_is(tr: float, linear: None) -> None:
    """An AR(1) process in the volumes of the scanner: R² is φ² one volume ahead."""
    phi = 0.9
    errors = all_errors(autoregressive_process(phi, (round(400 / tr), 424), seed=3), tr)
    assert errors["autoregressive"]["r2"][0] == pytest.approx(phi**2, abs=0.07)
    # that sees the same at the rate of the model
    assert errors["model"]["r2"][0] == pytest.approx(phi**2, abs=0.1)
    assert errors["model"]["r2"][0] > errors["model"]["r2"][-1]


@pytest.mark.parametrize("tr", (0.5, 0.72, 2.0))
def test_nothing_that_a_model_sees_depends_on_what_follows(tr: float) -> None:
    series = noise(200, seed=1, n_parcels=6)
    series[:, 2] = np.nan
    series[[50, 51, 130]] = np.nan
    changed = series.copy()
    changed[120:] = 99 - changed[120:]
    one, other = course(series, tr, 0.735), course(changed, tr, 0.735)
    for n_samples in (None, 60):
        a, b = past_of(one, 120, n_samples), past_of(other, 120, n_samples)
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert a.series.shape == (60, 6) and not a.has_data[2] and a.has_data.sum() == 5
    a, b = window_at(one, 120, 60, 20), window_at(other, 120, 60, 20)
    assert np.array_equal(a[:60], b[:60]) and not np.allclose(a[60:], b[60:])
    assert np.isfinite(a).all() and not a[:, 2].any()
    # no window ends in a bad volume, and none leaves the recording
    origins = window_origins(one, 60, 20)
    assert not np.isin([51, 52, 131], origins).any()
    assert one.samples(int(origins[0])) >= 60 and one.ahead(20) + int(origins[-1]) <= 200


def test_samples_lie_where_they_are_said_to() -> None:
    """A slow wave, sampled every 2 s: the past ends in its last volume."""
    tr, rate, origin = 2.0, 0.735, 90
    wave = np.sin(2 * np.pi * np.arange(160)[:, None] * tr / 37)
    recording = course(wave, tr, rate)
    cut = window_at(recording, origin, 100, 40)
    past = past_of(recording, origin, 100)
    time = (origin - 1) * tr + np.arange(-99, 41) * rate
    expected = np.sin(2 * np.pi * time / 37)
    found = cut[:, 0] * past.scale[0] + past.location[0]
    assert np.abs(found[:98] - expected[:98]).max() < 0.02
    assert found[99] == pytest.approx(wave[origin - 1, 0])
    # towards the end the wave goes on less exactly, since nothing is known of what follows
    assert np.abs(found - expected).max() < 0.1
    read = at_volumes(recording, wave[origin - 1], expected[100:, None])
    assert len(read) == 14
    assert np.abs(read - wave[origin : origin + 14]).max() < 0.01


def test_resampling_from_a_later_start() -> None:
    series = noise(80, seed=4, n_parcels=3)
    whole = resample_series(series, 2.0, 0.735)
    later = resample_series(series, 2.0, 0.735, first=30 * 0.735)
    assert np.allclose(later, whole[30:])
    with pytest.raises(ValueError, match="a first sample at 200"):
        resample_series(series, 2.0, 0.735, first=200)


def test_a_series_that_was_resampled_is_recognised() -> None:
    assert not smoothness_warnings(noise(150, seed=5))
    assert not smoothness_warnings(autoregressive_process(0.9, (150, 424), seed=5))
    for tr in (1.0, 2.0, 3.0):
        assert smoothness_warnings(resample_series(noise(150, seed=5), tr, 0.735))


# --- the commands ----------------------------------------------------------------------------


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return tools.main(["forecast", *words, "--model", "random:tiny", "--offline"])


def rows_of(results: Path, pattern: str = "group*desc-forecast_metrics.tsv") -> list[Any]:
    return files.read_rows(next(results.glob(pattern)))


def test_a_folder_of_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recordings of three repetition times, one with bad volumes and a parcel without data."""
    out = tmp_path / "out"
    for k, tr in enumerate((2.0, 2.0, 3.0, 0.72)):
        series = 10000 + 40 * noise(round(200 / tr), seed=k)
        if k == 1:
            series[:3] = series[[20, 60]] = series[-1] = np.nan
            series[:, 7] = np.nan
        write_run(out, f"sub-{k:02d}_task-rest", series, tr)
    write_run(out, "sub-08_task-rest", noise(100, seed=8), 2.0, LowPassCutoff=10.0)
    lost = write_run(out, "sub-09_task-rest", noise(100, seed=9), 2.0)
    lost.path("denoised").unlink()
    kept = [lost.path("robust", extension=one) for one in (".tsv", ".json")]
    write_record(out, "sub-09_task-rest", "series", "made", kept)
    assert call(out, tmp_path / "results", "--origins", 3) == 1
    said = capsys.readouterr().err
    assert "was low-pass filtered (10 s)" in said
    assert "was brought from 2 s to 0.735 s" in said
    rows = rows_of(tmp_path / "results")
    by_tr = {float(row["repetition_time"]): int(row["n_subjects"]) for row in rows}
    assert by_tr == {2.0: 2, 3.0: 1, 0.72: 1}
    for row in rows:
        assert float(row["seconds"]) >= float(row["repetition_time"]) - 1e-9
        assert row["r2"] == "n/a" or float(row["r2"]) <= 0.05, row
    func = tmp_path / "results" / "sub-01" / "func"
    note = files.read_json(next(func.glob("*desc-forecast_metrics.json")))
    assert note["SourceRepetitionTime"] == 2.0 and len(note["ParcelsWithoutData"]) == 1
    assert note["FittedToWholeRecording"][0] == "high-pass filter, 100 s"
    assert note["Sources"][0].endswith("desc-denoised_timeseries.tsv")
    _, table = files.read_tsv(next(func.glob("*desc-forecast_timeseries.tsv")))
    assert np.isnan(table[:, 4 + 7]).all() and np.isfinite(np.delete(table, 11, axis=1)).all()
    # one sample after the last volume seen
    assert table[0, 2] == pytest.approx(table[0, 0] - 2.0 + 0.735)
    last = table[table[:, 3] == 1, 2].max()
    assert 98 * 2.0 - 0.735 < last <= 98 * 2.0


@pytest.mark.parametrize("tr", (1.0, 3.0))
def test_a_file_of_noise(tmp_path: Path, tr: float, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "noise.npy", noise(round(200 / tr), seed=6))
    assert call(tmp_path / "noise.npy", tmp_path / "results", "--tr", tr) == 0
    rows = rows_of(tmp_path / "results")
    assert len(rows) == 5 * int(20 * 0.735 / tr)
    assert all(float(row["r2"]) <= 0.05 for row in rows)
    assert "upper quarter" not in capsys.readouterr().err
    short = ("--tr", tr, "--volumes", 1)
    assert call(tmp_path / "noise.npy", tmp_path / "short", *short) == 1
    assert "ends before the next volume is measured" in capsys.readouterr().err


def test_what_was_resampled_before_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "made.npy", resample_series(noise(100, seed=7), 2.0, 0.735))
    assert call(tmp_path / "made.npy", tmp_path / "results", "--tr", 0.735) == 0
    assert "even white noise is predicted well" in capsys.readouterr().err
    note = next((tmp_path / "results").glob("sub-*/func/*desc-forecast_metrics.json"))
    assert "smooth_series" in {one["Kind"] for one in files.read_json(note)["Warnings"]}


def finetune(data: Path, run: Path) -> list[Any]:
    words = ["finetune", "random:tiny", data, run, "--future", 1, "--folds", 2]
    words += ["--epochs", 1, "--batch", 2, "--origins", 2]
    assert tools.main([*(str(one) for one in words), "--offline"]) == 0
    return files.read_rows(run / "forecast.tsv")


def test_fine_tuning_learns_no_future_of_noise(tmp_path: Path) -> None:
    for k in range(6):
        series = 10000 + 40 * noise(100, seed=k)
        series[30] = np.nan
        write_run(tmp_path / "out", f"sub-{k:02d}_task-rest", series, 2.0)
    rows = finetune(tmp_path / "out", tmp_path / "run")
    assert {row["predictor"] for row in rows} >= {"before", "after", "autoregressive"}
    assert {float(row["seconds"]) for row in rows} == {2.0 * k for k in range(1, 8)}
    assert all(float(row["r2"]) <= 0.05 for row in rows)
    store = tmp_path / "out" / "training_store" / "desc-robustvolumes"
    assert files.read_rows(store / "recordings.tsv")[0]["repetition_time"] == "2"
    # and a store that others made, which says the repetition time
    made = [(f"sub-{k}_task-a", f"sub-{k}", noise(70, seed=k), "", 3.0, 0.735) for k in range(6)]
    write_store(tmp_path / "store", made)
    rows = finetune(tmp_path / "store", tmp_path / "other")
    assert {float(row["repetition_time"]) for row in rows} == {3.0}
    assert all(float(row["r2"]) <= 0.05 for row in rows)
