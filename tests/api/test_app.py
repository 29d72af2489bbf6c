"""The Python API and the BIDS App: the same numbers, and the App's outputs as tables."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm_bids import BrainLM, files, load_derivatives, resources, to_img
from brainlm_bids.api.derivatives import Derivatives

TR, VOLUMES = 2.0, 110
STEMS = ("sub-01_ses-1_task-rest", "sub-01_ses-2_task-rest", "sub-02_ses-1_task-rest")
DIMENSION = "cls_"


def _recording(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    series = rng.normal(size=(VOLUMES, 5)).cumsum(axis=0) @ rng.normal(size=(5, 424))
    series += 10000 + rng.normal(size=(VOLUMES, 424))
    series[:, 7] = np.nan
    return series


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the App makes of three series by two untrained models."""
    root = tmp_path_factory.mktemp("app")
    raw, out = root / "raw", root / "out"
    raw.mkdir()
    files.write_json(raw / "dataset_description.json", {"Name": "raw", "BIDSVersion": "1.8.0"})
    (raw / "participants.tsv").write_text(
        "participant_id\tsession_id\tage\tsex\tnote\n"
        "sub-01\tses-1\t30\tF\t1\nsub-01\tses-2\t32\tF\ta\nsub-02\tses-1\t51\tM\tn/a\n"
    )
    paths = []
    for seed, stem in enumerate(STEMS):
        paths.append(root / f"{stem}_timeseries.npy")
        np.save(paths[-1], _recording(seed))
    command = [sys.executable, "-m", "brainlm_bids", str(raw), str(out), "participant"]
    command += ["--timeseries", *map(str, paths), "--timeseries-tr", str(TR)]
    command += ["--model", "random:tiny", "demo", "--atlas", "A424approx"]
    command += ["--template", "MNI152NLin2009aSym", "--offline", "--nprocs", "1"]
    command += ["-w", str(root / "work"), "--device", "cpu", "--mask-ratio", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def tables(folder: Path) -> Derivatives:
    return load_derivatives(folder)


def _rows(table: pd.DataFrame, model: str, stem: str) -> pd.DataFrame:
    return table[(table["model"] == model) & (table["recording"] == stem)]


def _numbers(table: pd.DataFrame) -> np.ndarray:
    return table.filter(regex=f"^{DIMENSION}").dropna(axis=1).to_numpy()


@pytest.mark.parametrize(
    ("name", "label"), [("random:tiny", "randomtiny"), ("demo", "brainlmdemo")]
)
def test_embeddings_are_those_of_the_app(
    folder: Path, tables: Derivatives, name: str, label: str
) -> None:
    model = BrainLM.from_pretrained(name, device="cpu")
    for seed, stem in enumerate(STEMS):
        windows, whole = _rows(tables.windows, label, stem), _rows(tables.embeddings, label, stem)
        out = model.embed(_recording(seed), tr=TR)
        assert out.provenance["filled_parcels"] == [resources.parcels().names[7]]
        np.testing.assert_allclose(out.to_frame()["onset"], windows["onset"], rtol=1e-6)
        np.testing.assert_allclose(out.windows, _numbers(windows), atol=1e-5)
        np.testing.assert_allclose(out.recording, _numbers(whole)[0], atol=1e-5)
        # from the series that the App wrote: but for the rounding of float32, since the App
        # computes the tokens of all parcels in the last layer, and the API those that it returns
        robust = next(folder.rglob(f"{stem}_*desc-robust_timeseries.tsv"))
        again = model.embed(robust, already_scaled=True)
        np.testing.assert_allclose(again.windows, _numbers(windows), atol=2e-6)


def test_tables_of_a_folder(tables: Derivatives) -> None:
    recordings = tables.recordings.set_index("recording")
    assert recordings.index.tolist() == list(STEMS)
    assert recordings["participant_id"].tolist() == ["sub-01", "sub-01", "sub-02"]
    assert recordings["session_id"].tolist() == ["ses-1", "ses-2", "ses-1"]
    assert recordings["task"].tolist() == ["rest"] * 3
    assert recordings["age"].tolist() == [30, 32, 51]
    assert recordings["sex"].tolist() == ["F", "F", "M"]
    # a column with words is a column of words
    assert recordings["note"].tolist()[:2] == ["1", "a"] and pd.isna(recordings["note"].iloc[2])
    np.testing.assert_allclose(recordings["coverage"], 423 / 424)
    assert set(tables.metrics["predictor"]) >= {"model", "ridge"}
    assert sorted(tables.embeddings["model"].unique()) == ["brainlmdemo", "randomtiny"]
    demo = tables.features("brainlmdemo")
    assert demo.index.tolist() == list(STEMS)
    assert all(column.startswith(DIMENSION) for column in demo)
    assert np.isfinite(demo.to_numpy()).all()
    with pytest.raises(ValueError, match="brainlmdemo"):
        tables.features()


@pytest.mark.parametrize("prefix", ["", "sub-"])
def test_participants_as_a_table(folder: Path, prefix: str) -> None:
    given = pd.DataFrame({"participant_id": [f"{prefix}02", f"{prefix}01"], "iq": [90, 110]})
    assert load_derivatives(folder, given).recordings["iq"].tolist() == [110, 110, 90]
    with pytest.raises(ValueError, match="no column participant_id"):
        load_derivatives(folder, given[["iq"]])
    with pytest.raises(ValueError, match="two rows"):
        load_derivatives(folder, pd.concat([given, given]))
    with pytest.raises(ValueError, match="'sub-9'"):
        load_derivatives(folder, pd.DataFrame({"participant_id": [9]}))


def test_what_is_no_output_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        load_derivatives(tmp_path / "absent")
    with pytest.raises(ValueError, match="holds no recordings"):
        load_derivatives(tmp_path)


def test_a_column_of_a_table_as_an_image() -> None:
    table = (
        BrainLM.from_pretrained("random:tiny", device="cpu")
        .reconstruct(_recording(0), tr=TR)
        .parcel_metrics.loc["model"]
    )
    image = to_img(table["mae"], atlas="A424approx")
    labels = resources.find_atlas("A424approx").load()[0]
    painted = image.get_fdata()
    assert np.allclose(painted[labels == 1], table["mae"].iloc[0])
    np.testing.assert_array_equal(painted, to_img(table[["mae"]], atlas="A424approx").get_fdata())
    with pytest.raises(ValueError, match="columns"):
        to_img(table, atlas="A424approx")
