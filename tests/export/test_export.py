"""Exported series are the series, read back by the library that others read them with."""

import json
import shutil
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from simulated_cohort import TR, VOLUMES, simulated_series, write_recording
from small_stores import output_folder

from brainlm_bids import files
from brainlm_bids.bids.outputs import Naming, parcellation_stage, write_record
from brainlm_bids.commands.brainlm import main
from brainlm_bids.export import arrow
from brainlm_bids.export.rows import standardised
from brainlm_bids.resources import parcels

datasets.disable_progress_bars()


@pytest.fixture
def cohort(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Five people with two sessions each; one parcel without data, one bad volume."""
    rng = np.random.default_rng(0)
    truth = {}
    for k in range(5):
        for session in ("a", "b"):
            name = f"sub-{k}_ses-{session}_task-rest"
            truth[name] = simulated_series(rng, 1.0)
    truth["sub-0_ses-a_task-rest"][:, 7] = np.nan
    truth["sub-1_ses-a_task-rest"][20] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a volume without data
        for name, series in truth.items():
            write_recording(tmp_path / "out", name, series)
    raw = tmp_path / "raw"
    raw.mkdir()
    sites = "".join(f"sub-{k}\tsite{k % 2}\t{20 + k}\n" for k in range(5))
    (raw / "participants.tsv").write_text(f"participant_id\tsite\tage\n{sites}")
    return tmp_path, truth


def _export(folder: Path, *options: str) -> Path:
    out = folder / "exported"
    call = ["export", str(folder / "out"), str(out), "--bids-dir", str(folder / "raw"), *options]
    assert main(call) == 0
    return out


def test_brainmarks_layout_gives_the_series_back(cohort: tuple[Path, dict]) -> None:
    folder, truth = cohort
    loaded = datasets.load_from_disk(str(_export(folder, "--columns", "age")))
    assert list(loaded) == ["train", "validation", "test"]
    kept = datasets.Features(
        bold=datasets.Array2D(shape=(None, 424), dtype="float16"),
        mean=datasets.Array2D(shape=(1, 424), dtype="float32"),
        std=datasets.Array2D(shape=(1, 424), dtype="float32"),
        n_frames=datasets.Value("int32"),
        tr=datasets.Value("float32"),
    )
    parts: dict[str, set[str]] = {}
    seen = set()
    for part, rows in loaded.items():
        assert {name: rows.features[name] for name in kept} == dict(kept)
        for row in rows.with_format("numpy"):
            name = f"sub-{row['sub']}_ses-{row['ses']}_task-{row['task']}"
            seen.add(name)
            parts.setdefault(row["sub"], set()).add(part)
            assert row["site"] == f"site{int(row['sub']) % 2}" and row["age"] == str(
                20 + int(row["sub"])
            )
            assert row["tr"] == np.float32(TR) and row["n_frames"] == VOLUMES == len(row["bold"])
            back = row["bold"].astype(float) * row["std"] + row["mean"]
            good = ~np.isnan(truth[name]).all(axis=1)
            # float16 has 11 bits: at most 1e-3 of a value of up to 4 standard deviations
            tolerance = 4e-3 * row["std"] + 1e-3
            wrong = np.abs(back - truth[name])[good] > tolerance
            assert not wrong[:, np.arange(424) != 7].any()
            assert np.isfinite(row["bold"]).all()
    assert seen == set(truth)
    assert all(len(one) == 1 for one in parts.values()), "a subject is in one part"
    missing = loaded["train"].filter(lambda row: row["sub"] == "0" and row["ses"] == "a")
    missing = missing or loaded["test"].filter(lambda row: row["sub"] == "0" and row["ses"] == "a")
    missing = missing or loaded["validation"].filter(lambda row: row["sub"] == "0")
    row = missing.with_format("numpy")[0]
    assert np.isnan(row["mean"][0, 7]) and not row["bold"][:, 7].any() and row["std"][0, 7] == 0


def test_the_table_tells_of_every_recording(cohort: tuple[Path, dict]) -> None:
    folder, _ = cohort
    split = folder / "split.tsv"
    split.write_text(
        "participant_id\tsplit\n"
        + "".join(f"sub-{k}\ttrain\n" for k in range(3))
        + "3\tvalidation\n"
    )
    broken = next((folder / "out" / "sub-2" / "ses-a" / "func").glob("*denoised_timeseries.tsv"))
    broken.write_text("cut")
    out = folder / "exported"
    call = ["export", str(folder / "out"), str(out), "--split", str(split)]
    assert main(call) == 1
    rows = {row["recording"]: row for row in files.read_rows(out / "recordings.tsv")}
    assert len(rows) == 10
    assert rows["sub-2_ses-a_task-rest"]["status"] == "failed"
    assert "sub-2_ses-a" in rows["sub-2_ses-a_task-rest"]["reason"]
    assert rows["sub-4_ses-b_task-rest"]["status"] == "not in split"
    assert rows["sub-1_ses-a_task-rest"]["interpolated"] == "1"
    assert rows["sub-0_ses-a_task-rest"]["parcels_without_data"] == "1"
    assert len(datasets.load_from_disk(str(out))["train"]) == 5


def test_files_of_arrays_and_texts(cohort: tuple[Path, dict]) -> None:
    folder, truth = cohort
    name = "sub-0_ses-a_task-rest"
    out = _export(folder, "--format", "npz")
    with np.load(next(out.glob(f"*/{name}.npz"))) as held:
        np.testing.assert_allclose(held["bold"], truth[name], rtol=1e-6)
        assert held["tr"] == TR and tuple(held["parcels"]) == parcels().names
        np.testing.assert_allclose(held["std"][:7], truth[name].std(axis=0)[:7], rtol=1e-3)
    (folder / "exported").rename(folder / "npz")
    out = _export(folder, "--format", "csv")
    header, *lines = next(out.glob(f"*/{name}.csv")).read_text().splitlines()
    assert header.split(",")[0] == parcels().names[0] and len(lines) == VOLUMES
    assert lines[0].split(",")[7] == "", "no data is no number"


def _scaled(out: Path, **sizes: int) -> dict[str, np.ndarray]:
    """An output folder with scaled series and their sidecars."""
    written = output_folder(out, **sizes)
    for path in out.rglob("*desc-robust_timeseries.tsv"):
        files.write_json(path.with_suffix(".json"), {"RepetitionTime": TR})
    return written


def test_toolkit_layout_is_that_of_its_notebooks(tmp_path: Path) -> None:
    robust = _scaled(tmp_path / "out", n_subjects=4)
    out = tmp_path / "exported"
    assert main(["export", str(tmp_path / "out"), str(out), "--layout", "toolkit"]) == 0
    coordinates = datasets.load_from_disk(str(out / "Brain_Region_Coordinates"))
    np.testing.assert_allclose(coordinates["Y"], parcels().xyz[:, 1])
    rows = [
        row
        for part in ("train", "val", "test")
        for row in datasets.load_from_disk(str(out / part)).with_format("numpy")
    ]
    assert {row["Filename"] for row in rows} == {f"{name}.dat" for name in robust}
    training = np.stack(
        [
            row["Raw_Recording"]
            for row in datasets.load_from_disk(str(out / "train")).with_format("numpy")
        ]
    )
    for row in rows:
        name = row["Filename"].removesuffix(".dat")
        raw = row["Raw_Recording"]
        assert raw.shape == (424, len(robust[name])), "parcels by volumes, as the toolkit has it"
        scaled = row["Voxelwise_RobustScaler_Normalized_Recording"]
        np.testing.assert_allclose(scaled, robust[name], atol=1e-5)
        centred = raw - raw.mean(axis=1, keepdims=True)
        per_sd = row["Subtract_Mean_Divide_Global_STD_Normalized_Recording"]
        np.testing.assert_allclose(per_sd, centred / 41.44047, atol=1e-4)
        low, high = training.min(), training.max()
        unit = row["All_Patient_All_Voxel_Normalized_Recording"]
        np.testing.assert_allclose(unit, (raw - low) / (high - low), atol=1e-4)
        each = row["Per_Patient_Per_Voxel_Normalized_Recording"]
        assert each.min(axis=1).max() == 0 and each.max(axis=1).min() == 1
        low, high = training.min(axis=(0, 2))[:, None], training.max(axis=(0, 2))[:, None]
        voxel = row["Per_Voxel_All_Patient_Normalized_Recording"]
        np.testing.assert_allclose(voxel, (raw - low) / (high - low), atol=1e-4)


def test_filled_parcels_of_a_scaled_series_are_no_data(tmp_path: Path) -> None:
    _scaled(tmp_path / "out", n_subjects=3)
    for path in (tmp_path / "out").rglob("*desc-robust_timeseries.json"):
        files.write_json(path, {"RepetitionTime": TR, "FilledParcels": [parcels().names[7]]})
    out = tmp_path / "x"
    assert main(["export", str(tmp_path / "out"), str(out), "--series", "robust"]) == 0
    rows = files.read_rows(out / "recordings.tsv")
    assert {row["parcels_without_data"] for row in rows} == {"1"}
    row = datasets.load_from_disk(str(out))["train"].with_format("numpy")[0]
    assert np.isnan(row["mean"][0, 7]) and np.isfinite(row["mean"][0, :7]).all()
    assert not row["bold"][:, 7].any()


def test_short_recordings_are_left_out_of_the_toolkit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _scaled(tmp_path / "out", n_subjects=3, n_volumes=150)
    call = ["export", str(tmp_path / "out"), str(tmp_path / "x"), "--layout", "toolkit"]
    assert main(call) == 1
    assert "need 200" in capsys.readouterr().err and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layout", "toolkit", "--format", "csv"), "not --format csv"),
        (("--columns", "weight"), "--columns weight: no table has it; there are site, age"),
        (("--series", "robust"), "holds no series"),
    ],
)
def test_what_cannot_be_exported_says_so(
    cohort: tuple[Path, dict],
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    folder, _ = cohort
    call = ["export", str(folder / "out"), str(folder / "x"), "--bids-dir", str(folder / "raw")]
    assert main([*call, *options]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error and error.count("\n") == 0
    assert not (folder / "x").exists()


def test_a_folder_in_use_is_not_touched(
    cohort: tuple[Path, dict], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = cohort
    (folder / "x").mkdir()
    (folder / "x" / "mine").write_text("mine")
    assert main(["export", str(folder / "out"), str(folder / "x")]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in (folder / "x").iterdir()] == ["mine"]


def test_rows_are_written_as_they_come(tmp_path: Path) -> None:
    """200 MB in files of 50 MB, with a tenth of that in memory at any time."""
    n_rows, n_volumes = 600, 400
    rng = np.random.default_rng(0)
    block = rng.standard_normal((n_volumes, 424)).astype(np.float16)

    def rows() -> Iterator[dict[str, Any]]:
        for k in range(n_rows):
            yield {"number": k, "bold": np.roll(block, k, axis=0)}

    features = {"number": arrow.value("int32"), "bold": arrow.matrix(424, "float16")}
    tracemalloc.start()
    arrow.write_dataset(tmp_path / "set", features, rows(), "train", shard=50_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    loaded = datasets.load_from_disk(str(tmp_path / "set")).with_format("numpy")
    assert len(list((tmp_path / "set").glob("*.arrow"))) >= 4
    assert len(loaded) == n_rows and peak < 80e6
    row = loaded[433]
    assert row["number"] == 433
    np.testing.assert_array_equal(row["bold"], np.roll(block, 433, axis=0))


def test_the_same_input_gives_the_same_bytes(cohort: tuple[Path, dict]) -> None:
    folder, _ = cohort
    first = _export(folder).rename(folder / "first")
    second = _export(folder)
    for path in first.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (second / path.relative_to(first)).read_bytes(), path.name
    assert json.loads((second / "export.json").read_text())["RandomSeed"] == 42


def test_a_constant_parcel_is_not_blown_up() -> None:
    series = np.full((50, 1), 10000.1) + np.array([[1e-12]]) * np.arange(50)[:, None]
    scaled, mean, sd = standardised(series)
    assert not scaled.any() and sd[0, 0] == 0 and mean[0, 0] == np.float32(10000.1)


def test_another_parcellation_is_exported_where_it_is_asked_for(cohort: tuple[Path, dict]) -> None:
    folder, truth = cohort
    rng = np.random.default_rng(5)
    names = ["left", "right"]
    made = {}
    for stem in truth:
        naming = Naming(str(folder / "out"), stem, "MNI152NLin6Asym", "Mine")
        series = made[stem] = rng.normal(10000, 30, (VOLUMES, 2))
        table = files.write_tsv(naming.path("denoised"), names, series.T.tolist())
        sidecar = naming.path("denoised", extension=".json")
        files.write_json(sidecar, {"RepetitionTime": TR, "DummyVolumes": 0})
        write_record(folder / "out", stem, parcellation_stage("Mine"), "x", [table, sidecar])
    plain = np.load(next(_export(folder, "--format", "npz").rglob("*.npz")))
    assert plain["bold"].shape[1] == 424
    shutil.rmtree(folder / "exported")
    loaded = datasets.load_from_disk(str(_export(folder, "--atlas", "Mine")))
    row = loaded["train"].with_format("numpy")[0]
    stem = f"sub-{row['sub']}_ses-{row['ses']}_task-rest"
    assert np.allclose(row["bold"] * row["std"] + row["mean"], made[stem], atol=0.1)
