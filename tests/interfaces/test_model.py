"""The interface of the model stage: what it writes, and what it refuses."""

from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from brainlm_bids import files, resources
from brainlm_bids.bids.context import ModelInfo, RecordingContext
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.model import RunModel

STEM = "sub-01_task-rest"
LABEL = "randomtiny"
NAMING = {"stem": STEM, "space": "MNI152NLin2009aSym", "atlas": "A424approx"}
TR, START = 0.735, 4.41


class _Case:
    """A robust series of 230 volumes in an output folder, and the interface over it."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.names = list(resources.parcels().names)
        factors = rng.normal(size=(230, 6)) @ rng.normal(size=(6, 424))
        self.series = (factors + rng.normal(size=(230, 424))).astype(np.float32)
        self.series[:, 17] = 0
        self.naming = Naming(str(folder / "out"), **NAMING)
        self.tsv = self.naming.path("robust")
        data = np.zeros((8, 8, 8), dtype=np.int16)
        data.ravel()[:424] = np.arange(1, 425)
        self.atlas = folder / "atlas.nii.gz"
        nb.Nifti1Image(data, np.eye(4)).to_filename(self.atlas)

    def run(self, names: list[str], series: Any, **options: Any) -> None:
        files.write_series(self.tsv, names, series)
        sidecar = {"RepetitionTime": TR, "SourceRepetitionTime": 2.0, "StartTime": START}
        sidecar |= {"InterpolatedVolumes": [10, 11]}
        files.write_json(self.tsv.with_suffix(".json"), sidecar)
        model = ModelInfo(LABEL, "random:tiny", None, "seeded random weights", "Apache-2.0")
        context = RecordingContext(self.naming, None, None, (), {LABEL: model})
        interface = RunModel(
            context=context,
            robust_tsv=str(self.tsv),
            atlas=str(self.atlas),
            template=str(self.atlas),
            source="random:tiny",
            label=LABEL,
            mask_ratio=[0.5],
            input_gain=1.0,
            seed=42,
            configuration="abc",
            device="cpu",
            n_threads=1,
            **options,
        )
        interface._compute(self.tsv.parent)

    def table(self, key: str) -> pd.DataFrame:
        return pd.read_csv(self.naming.path(key, model=LABEL), sep="\t", na_values="n/a")

    def sidecar(self, key: str) -> dict[str, Any]:
        return files.read_json(self.naming.path(key, model=LABEL, extension=".json"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> _Case:
    case = _Case(tmp_path_factory.mktemp("model"))
    options = {"window_stride": 15, "token_orders": 2, "save_tokens": True, "pooling": "mean"}
    case.run(case.names, case.series, **options)
    return case


def test_figures_show_windows_bad_volumes_and_sides(written: _Case) -> None:
    drawn = {
        key: written.naming.figure(key, model=LABEL).read_text()
        for key in ("reconstruction", "embeddings", "networks")
    }
    # 230 volumes and windows of 200: one border
    assert "dashed: border between two windows" in drawn["reconstruction"]
    assert "triangles: 2 bad volumes" in drawn["reconstruction"]
    assert "3 windows × " in drawn["embeddings"]
    for words in (">L<", ">R<", " mm"):
        assert words in drawn["networks"].replace("<!-- ", ">").replace(" -->", "<"), words


def test_onsets_refer_to_the_run(written: _Case) -> None:
    table = written.table("embeddings")
    assert table["onset"].tolist() == pytest.approx(START + TR * np.array([0, 15, 30]))
    assert table["duration"].tolist() == pytest.approx([200 * TR] * 3)
    vectors = table.filter(like="mean_").to_numpy()
    whole = written.table("recording_embedding")
    assert whole.filter(like="mean_").to_numpy()[0] == pytest.approx(vectors.mean(axis=0), rel=1e-4)
    assert whole["n_windows"].tolist() == [3]
    assert whole["duration"].tolist() == pytest.approx([230 * TR])


def test_the_sidecar_says_how_it_was_embedded(written: _Case) -> None:
    said = written.sidecar("embeddings")
    assert written.sidecar("metrics")["SourceRepetitionTime"] == 2.0
    assert (said["WindowStride"], said["TokenOrders"], said["TokenOrderSeed"]) == (15, 2, 42)
    assert len(said["TokenOrderSpread"]) == 3 and min(said["TokenOrderSpread"]) > 0
    assert (said["Device"], said["Precision"]) == ("cpu", "float32")
    assert [warning["Kind"] for warning in said["Warnings"]] == ["untrained_model"]
    assert said["Model"]["untrained"] is True


def test_tokens_name_their_axes(written: _Case) -> None:
    with np.load(written.naming.path("tokens", model=LABEL)) as content:
        assert content["axes"].tolist() == ["window", "parcel", "time_patch", "dimension"]
        assert content["tokens"].shape == (3, 424, 10, 32)
        assert content["tokens"].dtype == np.float16
        assert content["parcel"].tolist() == written.names
        mean = content["tokens"].astype(float).mean(axis=(1, 2))
    vectors = written.table("embeddings").filter(like="mean_").to_numpy()
    assert np.allclose(mean, vectors, atol=5e-3)


def test_scores_of_parcels_and_of_all_agree(written: _Case) -> None:
    table = written.table("parcel_metrics")
    assert len(table) == 5 * 424
    assert set(table[table["mse"].isna()]["name"]) == {written.names[17]}
    pooled = written.table("metrics").set_index("predictor")
    for predictor, rows in table.groupby("predictor"):
        assert rows["mse"].mean() == pytest.approx(pooled.loc[predictor, "mse"], rel=1e-4)
    # Six factors are behind everything: the ridge finds them, untrained weights do not.
    assert pooled.loc["ridge", "r2"] > 0.6 > 0.1 > pooled.loc["model", "r2"]


def test_attention_and_networks(written: _Case) -> None:
    attention = written.table("attention").set_index("name")
    assert list(attention.columns) == list(attention.index) == written.names
    rows = attention.to_numpy().sum(axis=1)
    # A query spreads 1 over CLS and the 10 time patches of 424 parcels: 1/10 for a mean patch.
    assert rows == pytest.approx(np.full(424, 0.1), rel=1e-2)
    scores = written.sidecar("networks")["Scores"]
    null = {"coordinates", "spatial_null_mean", "spatial_null_95"}
    assert set(scores) == {"model", "attention", "series", "untrained"} | null
    measures = {"accuracy", "adjusted_rand", "knn_accuracy", "knn_accuracy_distant"}
    assert all(set(values) == measures for values in scores.values())
    # Untrained weights and a series without networks: nothing that smoothness would not reach.
    limit = scores["spatial_null_95"]
    assert all(scores["untrained"][name] <= limit[name] for name in measures)
    table = pd.read_csv(written.naming.path("networks", model=LABEL, extension=".tsv"), sep="\t")
    assert table["n_parcels"].sum() == 424
    assert table["color"].str.fullmatch("#[0-9a-f]{6}").all()


def test_bad_series_are_refused_with_the_file_and_nothing_is_written(tmp_path: Path) -> None:
    case = _Case(tmp_path)
    swapped = [case.names[1], case.names[0], *case.names[2:]]
    constant = case.series.copy()
    constant[:, 3] = 1.5
    missing = case.series.copy()
    missing[5, 4] = np.nan
    for names, series, message in (
        (case.names[:423], case.series[:, :423], "423 columns"),
        (swapped, case.series, "another order"),
        (case.names, constant, "1 parcels are constant but not 0, " + case.names[3]),
        (case.names, missing, "NaN or infinite values in 1 parcels"),
        (case.names, case.series * 0, "zero throughout"),
        (case.names, case.series[:19], "19 volumes"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            case.run(names, series)
        assert case.tsv.name in str(caught.value) and "\n" not in str(caught.value)
    made = {path.name for path in Path(case.naming.output_dir).rglob("*") if path.is_file()}
    assert made == {case.tsv.name, case.tsv.with_suffix(".json").name}
