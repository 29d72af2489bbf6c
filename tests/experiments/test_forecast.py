"""`brainlm forecast`: closed forms of the baselines, no look ahead, resumption, failures."""

from pathlib import Path

import numpy as np
import pytest
from simulated_series import TR, autoregressive_process, robust, write_robust

from brainlm_bids import files, resources
from brainlm_bids.commands import brainlm as tools
from brainlm_bids.experiments.forecast import ForecastOptions, baseline_errors
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.future import (
    errors_by_horizon,
    forecast_origins,
    look_back,
    patches_span,
)

N_AHEAD = 10


def test_baselines_reach_what_theory_says() -> None:
    """Of an AR(1) process of unit variance: R²(h) = φ^2h, of persistence 1 − 2 (1 − φ^h)."""
    phi = 0.8
    series = autoregressive_process(phi, (900, 300), seed=0)
    origins = np.arange(500, 891, 30)
    places = look_back(series, origins, N_AHEAD, "robust")
    options = ForecastOptions(input=Path(), results=Path(), volumes=N_AHEAD, order=1)
    found = baseline_errors(places, options)
    ahead = np.arange(1, N_AHEAD + 1)
    assert np.abs(found["autoregressive"]["r2"] - phi ** (2 * ahead)).max() < 0.03
    assert np.abs(found["autoregressive"]["pearson_r"] - phi**ahead).max() < 0.03
    assert np.abs(found["persistence"]["r2"] - (2 * phi**ahead - 1)).max() < 0.06
    assert np.abs(found["persistence"]["pearson_r"] - phi**ahead).max() < 0.03
    assert np.isnan(found["median"]["pearson_r"]).all()
    assert np.abs(found["median"]["r2"]).max() < 1e-9
    # a gaussian of unit variance has an interquartile range of 1.349
    assert np.abs(found["median"]["rmse"] * 1.349 - 1).max() < 0.05


def test_the_scaling_of_the_whole_recording_tells_nothing() -> None:
    """A scaled recording's mean is 0, so its past tells the sign of its future's mean."""
    noise = np.random.default_rng(1).standard_normal((240, 424))
    found = [
        baseline_errors(
            look_back(series, np.array([200, 210, 220]), 20, "robust"),
            ForecastOptions(input=Path(), results=Path(), volumes=20),
        )
        for series in (noise, robust(noise))
    ]
    for name in ("autoregressive", "vector_autoregressive"):
        for metric, values in found[0][name].items():
            assert np.allclose(values, found[1][name][metric], atol=1e-6), name
        # 0.04: the mean of what was seen is a better guess than its median
        assert abs(found[0][name]["pearson_r"].mean()) < 0.06
        assert found[0][name]["r2"].mean() < 0.01


@pytest.mark.parametrize("kind", ["robust", "robustcohort"])
def test_nothing_is_known_of_what_comes(kind: str) -> None:
    series = robust(autoregressive_process(0.5, (120, 424), seed=2))
    series[:, 5] = 0
    before = look_back(series, np.array([80, 100]), 20, kind)
    changed = series.copy()
    changed[100:] = 50.0
    after = look_back(changed, np.array([80, 100]), 20, kind)
    for one, other in zip(before.seen, after.seen, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(before.scale, after.scale)
    # and back: what is seen is the series again
    again = before.seen[1] * before.scale[1] + before.location[1]
    assert np.allclose(again, series[:100])
    assert not before.has_data[5] and before.has_data.sum() == 423
    truth = before.truth[0] * before.scale[0] + before.location[0]
    assert np.allclose(truth, series[80:100])
    assert np.allclose(np.median(before.seen[0], axis=0), 0)


def test_origins_and_patches(tiny: LoadedModel, image: LoadedModel) -> None:
    assert forecast_origins(200, 20, 180, 5).tolist() == [180]
    assert forecast_origins(90, 20, 180, 5).tolist() == [70]
    with pytest.raises(Exception, match="at least 20 seen"):
        forecast_origins(39, 20, 180, 5)
    assert patches_span(tiny, 1) == (20, 180)
    assert patches_span(tiny, 2) == (40, 160)
    # as in the original: the last three columns of the 111M's picture are 44 volumes
    assert patches_span(image, 3) == (44, 156)
    for model, n in ((tiny, 10), (image, 13), (tiny, 0)):
        with pytest.raises(Exception, match="time patches"):
            patches_span(model, n)


def test_a_perfect_forecast_and_its_opposite() -> None:
    truth = np.random.default_rng(3).standard_normal((4, 5, 50))
    perfect = errors_by_horizon(truth, truth)
    assert np.allclose(perfect["r2"], 1) and np.allclose(perfect["rmse"], 0)
    assert np.allclose(errors_by_horizon(truth, -truth)["pearson_r"], -1)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    for k in range(3):
        series = robust(autoregressive_process(0.6, (70 if k else 30, 424), seed=k))
        write_robust(folder, f"sub-{k:02d}_task-rest_run-1", series)
    return folder


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return tools.main(
        ["forecast", *words, "--model", "random:tiny", "--volumes", "20", "--offline"]
    )


def test_tables_of_a_folder(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    assert call(out, results, "--origins", 2) == 1  # sub-00 is too short
    assert "failed: sub-00_task-rest_run-1: 30 volumes" in capsys.readouterr().err
    stem = "sub-01_task-rest_run-1_space-MNI152NLin2009aSym_atlas-A424approx"
    names, table = files.read_tsv(
        results / "sub-01" / "func" / f"{stem}_model-randomtiny_desc-forecast_timeseries.tsv"
    )
    assert names[4:] == list(resources.parcels().names)
    # one origin at 50 of 70 volumes, and the end of the recording
    assert table[:, 1].tolist() == [*range(1, 21)] * 2
    assert np.allclose(table[:, 2], (2 + np.arange(50, 90)) * TR)
    assert table[:, 3].tolist() == [1] * 20 + [0] * 20
    sidecar = files.read_json(
        results / "sub-01" / "func" / f"{stem}_model-randomtiny_desc-forecast_timeseries.json"
    )
    assert sidecar["Models"]["randomtiny"]["untrained"]
    assert sidecar["Warnings"][0]["Kind"] == "untrained_model"
    assert sidecar["Parameters"]["seed"] == 42 and sidecar["Origins"] == [50, 70]
    group = results / "group_task-rest_atlas-A424approx_desc-forecast_metrics.tsv"
    rows = files.read_rows(group)
    assert {row["predictor"] for row in rows} == {
        "randomtiny", "median", "persistence", "autoregressive", "vector_autoregressive",
    }  # fmt: skip
    assert {row["n_subjects"] for row in rows} == {"2"}
    assert group.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    page = (results / "forecast.html").read_text()
    assert "sub-00_task-rest_run-1: 30 volumes" in page and "randomtiny has random weights" in page
    _check_comparisons(results, rows)
    own = [
        files.read_rows(p) for p in sorted(results.glob("sub-*/func/*desc-forecast_metrics.tsv"))
    ]
    for k, row in enumerate(rows):
        mean = np.mean([float(table[k]["rmse"]) for table in own])
        assert float(row["rmse"]) == pytest.approx(mean, rel=1e-5)


def _check_comparisons(results: Path, means: list[dict[str, str]]) -> None:
    """The difference of two means over the same recordings is the mean of the differences."""
    r2 = {(row["predictor"], row["horizon"]): float(row["r2"]) for row in means}
    rows = files.read_rows(next(results.glob("group*desc-forecastcomparisons_metrics.tsv")))
    single = [row for row in rows if row["horizon"] != "n/a"]
    assert len(rows) == len(single) + 4 and len(single) == 4 * len(r2) / 5
    for row in single:
        gain = r2["randomtiny", row["horizon"]] - r2[row["compared_with"], row["horizon"]]
        assert float(row["r2_difference"]) == pytest.approx(gain, abs=2e-5)
        assert float(row["low"]) <= float(row["r2_difference"]) <= float(row["high"])


def test_the_same_call_goes_on_and_another_is_refused(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    call(out, results, "--participant-label", "01")
    file = next(results.glob("sub-01/func/*forecast_timeseries.tsv"))
    made = file.stat().st_mtime_ns
    assert call(out, results, "--participant-label", "01", "02") == 0
    assert file.stat().st_mtime_ns == made and (results / "sub-02").is_dir()
    capsys.readouterr()
    assert call(out, results, "--seed", 1) == 1
    assert "(seed: 42, now 1); give another folder" in capsys.readouterr().err
    assert call(out, out) == 1
    assert "a folder of their own" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    assert call(out, tmp_path / "full") == 1
    assert "neither empty nor an experiment" in capsys.readouterr().err


def test_a_series_that_others_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scaled or not, the result is the same."""
    raw = 10000 + 40 * autoregressive_process(0.6, (60, 424), seed=4)
    for name, values in (("raw", raw), ("scaled", robust(raw))):
        np.save(tmp_path / f"{name}.npy", values)
        assert call(tmp_path / f"{name}.npy", tmp_path / f"to_{name}", "--tr", 0.735) == 0
    tables = [
        files.read_rows(
            next((tmp_path / f"to_{name}").glob("sub-*/func/*desc-forecast_metrics.tsv"))
        )
        for name in ("raw", "scaled")
    ]
    for one, other in zip(*tables, strict=True):
        assert float(one["rmse"]) == pytest.approx(float(other["rmse"]), rel=1e-4)
    capsys.readouterr()
    assert call(tmp_path / "raw.npy", tmp_path / "b") == 1
    assert "give --tr" in capsys.readouterr().err
    assert call(tmp_path / "raw.npy", tmp_path / "c", "--tr", 1, "--run-id", 1) == 1
    assert "--run-id: selects in an output folder" in capsys.readouterr().err
