"""What targets are decoded from, and what the tables of decodings are made of."""

import json
from pathlib import Path

import numpy as np
import pytest
from simulated_cohort import TR, simulated_series, write_recording

from brainlm_bids import files, resources
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort import sources
from brainlm_bids.cohort.decoding import decode
from brainlm_bids.interfaces.cohort.decoding import Decode, unit_keys
from brainlm_bids.interfaces.cohort.tokens import EmbedForDecoding, GatherFeatures
from brainlm_bids.model.checkpoint import control_seed, load_model, untrained_twin
from brainlm_bids.model.embedding import embed
from brainlm_bids.parcels import scaling

STEMS = ("sub-01_task-rest", "sub-02_task-rest", "sub-03_task-rest")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Naming, list[np.ndarray]]:
    """Three recordings; the second has no data in the first ten parcels."""
    out = tmp_path_factory.mktemp("out")
    rng, names = np.random.default_rng(0), list(resources.parcels().names)
    series = []
    for number, stem in enumerate(STEMS):
        steady = simulated_series(rng, 0.5 + number)
        if number == 1:
            steady[:, :10] = np.nan
        naming = write_recording(out, stem, steady)
        louder = np.where(np.isnan(steady), 0, (steady - steady.mean(axis=0)) / 10)
        files.write_series(naming.path("cohort_robust"), names, louder)
        series.append(steady)
    group = Naming(str(out), "group_task-rest", naming.space, naming.atlas, "cohort")
    return group, series


@pytest.fixture(scope="module")
def gathered(
    cohort: tuple[Naming, list[np.ndarray]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The files of the sources, from two nodes of two recordings and of one."""
    folder, made = tmp_path_factory.mktemp("nodes"), []
    for number, stems in enumerate((STEMS[:2], STEMS[2:])):
        node = EmbedForDecoding(
            naming=cohort[0],
            stems=list(stems),
            sources=[one.name for one in sources.SOURCES],
            model_tr=TR,
            source="random:tiny",
            input_gain=1.0,
            seed=42,
            token_orders=1,
            precision="float32",
            device="cpu",
            configuration="x",
        )
        (folder / str(number)).mkdir()
        node._compute(folder / str(number))
        made.append(node._results)
    measures = {"mean_fd": 0.1, "coverage": None, "n_volumes": 60, "repetition_time": TR}
    gather = GatherFeatures(
        naming=cohort[0],
        recordings=[{"stem": stem, **measures} for stem in STEMS],
        pooled=[one["pooled"] for one in made],
        stored=[one["stored"] for one in made],
        configuration="x",
    )
    gather._compute(folder)
    return {name: Path(path) for name, path in gather._results.items()}


def test_every_source_but_connectivity_has_a_file(gathered: dict[str, Path]) -> None:
    expected = {source.name for source in sources.SOURCES} - {sources.CONNECTIVITY.name}
    assert set(gathered) == expected


@pytest.mark.parametrize("features", ["embedding", "untrained"])
def test_embeddings_are_those_of_both_scalings(
    cohort: tuple[Naming, list[np.ndarray]], gathered: dict[str, Path], features: str
) -> None:
    model = load_model("random:tiny", seed=42)
    if features == "untrained":
        model = untrained_twin(model, control_seed(42))
    for number, steady in enumerate(cohort[1]):
        own, _ = scaling.scale(steady, scaling.recording_stats(steady))
        centred = np.where(np.isnan(steady), 0, (steady - steady.mean(axis=0)) / 10)
        for name, series in (("recording", own), ("cohort", centred)):
            xyz = resources.parcels().xyz
            expected = embed(model, series, xyz, tr=TR, seed=42).recording
            found = np.load(gathered[f"{features}_cls_{name}"])[number]
            np.testing.assert_allclose(found, expected, atol=1e-4)
            tokens = json.loads(gathered[f"{features}_attentive_{name}"].read_text())
            mean = np.load(gathered[f"{features}_mean_{name}"])[number]
            table = np.load(tokens[number])
            assert table.dtype == np.float16 and np.isfinite(table).all()
            np.testing.assert_allclose(table.mean(axis=(0, 1), dtype=float), mean, atol=1e-6)


def test_series_are_kept_under_both_scalings(
    cohort: tuple[Naming, list[np.ndarray]], gathered: dict[str, Path]
) -> None:
    steady = cohort[1][0]
    own, _ = scaling.scale(steady, scaling.recording_stats(steady))
    path = json.loads(gathered["series_mlp_recording"].read_text())[0]
    np.testing.assert_allclose(np.load(path), own, atol=2e-2)


def test_coordinates_know_only_which_parcels_are_missing(gathered: dict[str, Path]) -> None:
    table = np.load(gathered["coordinates_linear"]).reshape(3, -1, 3)
    np.testing.assert_array_equal(table[0], resources.parcels().xyz)
    np.testing.assert_array_equal(table[2], table[0])
    assert not table[1, :10].any() and np.array_equal(table[1, 10:], table[0, 10:])
    motion = np.load(gathered["motion_linear"])
    assert motion[0, 0] == 0.1 and np.isnan(motion[:, 1]).all()


def test_units_are_decoded_from_the_mean_of_their_recordings(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    features = rng.standard_normal((40, 5))
    people = [f"s{k:02d}" for k in range(20)]
    age = features[::2, 0] + features[1::2, 0]
    half = (age > np.median(age)).astype(float)
    np.save(tmp_path / "features.npy", features)
    node = Decode(
        source="motion_linear",
        features=str(tmp_path / "features.npy"),
        units=[[2 * k, 2 * k + 1] for k in range(20)],
        targets=[
            {"name": "age", "values": age.tolist(), "classes": []},
            {"name": "half", "values": half.tolist(), "classes": ["low", "high"]},
        ],
        subjects=people,
        confounds=[],
        permutations=19,
        seed=1,
    )
    (tmp_path / "node").mkdir()
    node._compute(tmp_path / "node")
    told = json.loads(Path(node._results["decoded"]).read_text())
    means = features.reshape(20, 2, 5).mean(axis=1)
    # together as each alone
    for found, name, target, n_classes in zip(
        told, ("age", "half"), (age, half), (0, 2), strict=True
    ):
        expected = decode(means, target, people, n_classes=n_classes, n_permutations=19, seed=1)
        np.testing.assert_allclose(found["predictions"], expected.predictions, atol=1e-9)
        assert found["target"] == name
        assert (found["n_folds"], found["n_repeats"], found["p"]) == (5, 10, expected.p)


def test_the_session_of_a_unit_is_named_where_it_is_one() -> None:
    row = {"participant_id": "sub-01", "session_id": "ses-1", "stem": "a"}
    other = {**row, "session_id": "ses-2", "stem": "b"}
    one = unit_keys("session", [row, {**row, "stem": "c"}])
    assert (one["session_id"], one["recordings"], one["n_recordings"]) == ("ses-1", "a,c", 2)
    assert unit_keys("subject", [row, other])["session_id"] is None


@pytest.mark.parametrize(
    ("source", "shape"),
    [("embedding_attentive_recording", (1, 12, 8)), ("series_mlp_recording", (30, 8))],
)
def test_probes_read_the_files_of_all_recordings_of_a_unit(
    tmp_path: Path, source: str, shape: tuple[int, ...]
) -> None:
    """Each class has its own mean; the files of 20 subjects with two recordings each."""
    rng, paths = np.random.default_rng(0), []
    sex = np.arange(20) % 2
    for number in range(40):
        paths.append(str(tmp_path / f"{number}.npy"))
        values = rng.standard_normal(shape)
        np.save(paths[-1], (values + 1.5 * sex[number // 2]).astype(np.float16))
    (tmp_path / "files.json").write_text(json.dumps(paths))
    given = {
        "source": source,
        "features": str(tmp_path / "files.json"),
        "units": [[2 * k, 2 * k + 1] for k in range(20)],
        "targets": [{"name": "sex", "values": sex.astype(float).tolist(), "classes": ["f", "m"]}],
        "subjects": [f"s{k:02d}" for k in range(20)],
        "confounds": [],
        "permutations": 99,
        "seed": 1,
    }
    node = Decode(**given)
    node._compute(tmp_path)
    (found,) = json.loads(Path(node._results["decoded"]).read_text())
    assert found["scores"]["auc"][0] > 0.9 and found["p"] < 0.05
    assert (found["n_folds"], found["n_repeats"]) == (5, 1)
