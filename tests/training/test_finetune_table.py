"""`brainlm finetune` and the group level decode alike: features, folds, units, predictions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_cohort import TR, simulated_series, write_recording

from brainlm_bids import files, resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort import sources
from brainlm_bids.cohort.decoding import decode
from brainlm_bids.cohort.folds import repeated_folds
from brainlm_bids.cohort.units import unit_means
from brainlm_bids.commands import brainlm as tools
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.cohort.tokens import EmbedForDecoding, GatherFeatures
from brainlm_bids.parcels import scaling
from brainlm_bids.training.finetune_features import gather
from brainlm_bids.training.finetune_start import FinetuneOptions, begin, usable

N_SUBJECTS, SEED = 12, 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Naming, list[str]]:
    """Twelve subjects, the first three with two runs, under both scalings; age moves a network."""
    folder = tmp_path_factory.mktemp("cohort")
    raw, out = folder / "raw", folder / "out"
    raw.mkdir()
    rng, names = np.random.default_rng(0), list(resources.parcels().names)
    age = rng.uniform(20, 80, N_SUBJECTS)
    people = [f"sub-{k:02d}" for k in range(N_SUBJECTS)]
    stems = []
    for k, person in enumerate(people):
        for run in ("1", "2") if k < 3 else ("1",):
            stem = f"{person}_task-rest_run-{run}"
            steady = simulated_series(rng, (age[k] - 20) / 30)
            if stem == "sub-04_task-rest_run-1":
                steady[:, :10] = np.nan
            naming = write_recording(out, stem, steady, mean_fd=float(rng.uniform(0.1, 0.3)))
            own, _ = scaling.scale(steady, scaling.recording_stats(steady))
            both = {"robust": own, "cohort_robust": np.nan_to_num(steady - 10000) / 40}
            for key, series in both.items():
                naming = replace(naming, scaling="cohort" if key == "cohort_robust" else "")
                path = files.write_series(naming.path(key), names, series)
                stage = outputs.COHORT_SERIES_STAGE if naming.scaling else outputs.SERIES_STAGE
                _, before = outputs.read_record(out, stem, stage) or ("", {})
                written = [*(out / file for file in before), path]
                outputs.write_record(out, stem, stage, f"made-{stem}", written)
            stems.append(stem)
    table = {"participant_id": people, "age": age.tolist()}
    files.write_tsv(raw / "participants.tsv", list(table), list(table.values()))
    text = {"Name": "simulated", "BIDSVersion": "1.11.0", "DatasetType": "derivative"}
    files.write_json(out / "dataset_description.json", text)
    return raw, out, Naming(str(out), "group", naming.space, naming.atlas, "cohort"), stems


@pytest.fixture(scope="module")
def of_group(
    cohort: tuple[Path, Path, Naming, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The features of the linear sources as the group level gathers them."""
    folder = tmp_path_factory.mktemp("group")
    _, out, group, stems = cohort
    node = EmbedForDecoding(
        naming=group,
        stems=stems,
        sources=[one.name for one in sources.selected(["linear"])],
        model_tr=TR,
        source="random:tiny",
        input_gain=1.0,
        seed=SEED,
        token_orders=1,
        precision="float32",
        device="cpu",
        configuration="x",
    )
    node._compute(folder)
    measures = {"coverage": 1.0, "n_volumes": 60, "repetition_time": TR}
    quality = [
        {"stem": stem, "mean_fd": _sidecar(out, group, stem)["MeanFramewiseDisplacement"]}
        for stem in stems
    ]
    gathered = GatherFeatures(
        naming=group,
        recordings=[{**one, **measures} for one in quality],
        pooled=[node._results["pooled"]],
        stored=[node._results["stored"]],
        configuration="x",
    )
    gathered._compute(folder)
    return {name: np.load(path) for name, path in gathered._results.items()}


def _sidecar(out: Path, group: Naming, stem: str) -> dict[str, Any]:
    naming = replace(group, stem=stem, scaling="")
    return dict(files.read_json(naming.path("denoised", extension=".json")))


def _options(cohort: tuple[Path, Path, Naming, list[str]], run: Path) -> FinetuneOptions:
    return FinetuneOptions(
        "random:tiny",
        cohort[1],
        run,
        target=("age",),
        bids_dir=cohort[0],
        readouts=("linear",),
        seed=SEED,
        device="cpu",
    )


def test_the_features_are_those_of_the_group_level(
    cohort: tuple[Path, Path, Naming, list[str]], of_group: dict[str, Any], tmp_path: Path
) -> None:
    start = begin(_options(cohort, tmp_path / "run"))
    assert start.scaling == sources.DEFAULT[1]
    places, _ = usable(start, 20)
    assert [start.store.recordings[place].name for place in places] == cohort[3]
    features = gather(start, places)
    assert not features.left_out
    assert set(features.tables) == {source.name for source in sources.selected(["linear"])}
    for name, table in of_group.items():
        # coverage of a recording without ten parcels is not in the table that was made by hand
        columns = [0, 2, 3] if name == sources.MOTION.name else slice(None)
        np.testing.assert_allclose(
            features.tables[name][:, columns], table[:, columns], atol=2e-4, err_msg=name
        )


def test_predictions_and_p_are_those_of_the_group_levels_first_repeat(
    cohort: tuple[Path, Path, Naming, list[str]], of_group: dict[str, Any], tmp_path: Path
) -> None:
    """Each of the twelve subjects counts once, from the mean of its runs."""
    run = tmp_path / "run"
    words = ["random:tiny", cohort[1], run, "--target", "age", "--bids-dir", cohort[0], "--frozen"]
    words += ["--epochs", 2, "--readouts", "linear", "--permutations", 20, "--seed", SEED]
    assert tools.main(["finetune", *(str(word) for word in words), "--offline"]) == 0
    people = sorted({stem.split("_")[0] for stem in cohort[3]})
    units = [[k for k, stem in enumerate(cohort[3]) if stem.startswith(one)] for one in people]
    ages = {
        row["participant_id"]: row["age"] for row in files.read_rows(cohort[0] / "participants.tsv")
    }
    values = np.array([float(ages[one]) for one in people])
    predicted = {row["participant_id"]: row for row in files.read_rows(run / "age/predictions.tsv")}
    assert {row["n_recordings"] for row in predicted.values()} == {"1", "2"}
    rows = files.read_rows(run / "age" / "decoding.tsv")
    assert tuple(rows[0]) == sources.DECODING_COLUMNS
    for name in ("embedding_cls_cohort", "embedding_mean_recording", "untrained_cls_cohort"):
        expected = decode(
            unit_means(of_group[name], units),
            values,
            people,
            n_permutations=20,
            seed=SEED,
            folds=repeated_folds(people, 1, SEED),
        )
        found = [float(predicted[one][name]) for one in people]
        np.testing.assert_allclose(found, expected.predictions, rtol=1e-3)
        source = sources.by_name(name)
        row = next(r for r in rows if r["metric"] == "r2" and _source(r) == source)
        assert float(row["value"]) == pytest.approx(expected.scores["r2"].value, abs=1e-3)
        assert float(row["permutation_p"]) == pytest.approx(expected.p)
        assert (row["n_subjects"], row["n_recordings"], row["n_folds"]) == ("12", "15", "5")
    sidecar = files.read_json(run / "age" / "decoding.json")
    assert sidecar["DefaultReadout"] == "embedding_mean_recording" and sidecar["Units"] == "subject"
    assert not (run / "tokens").exists()


def _source(row: dict[str, str]) -> sources.Source:
    return sources.find(row["features"], row["readout"], row["scaling"])


def test_probes_are_in_the_table_and_a_split_scores_its_test_subjects_alone(
    cohort: tuple[Path, Path, Naming, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = {f"sub-{k:02d}": ("train", "train", "validation", "test")[k % 4] for k in range(12)}
    files.write_tsv(tmp_path / "split.tsv", ["participant_id", "split"], [split, split.values()])
    words = ["random:tiny", cohort[1], tmp_path / "run", "--target", "age", "--bids-dir", cohort[0]]
    words += ["--frozen", "--epochs", 1, "--permutations", 5, "--split", tmp_path / "split.tsv"]
    words += ["--series", "robust"]
    assert tools.main(["finetune", *(str(word) for word in words), "--offline"]) == 0
    rows = files.read_rows(tmp_path / "run" / "age" / "decoding.tsv")
    found = list(dict.fromkeys(_source(row).name for row in rows))
    everything = [source.name for source in sources.SOURCES]
    assert found == ["finetuned_head_recording", *everything, "baseline_mean"]
    assert {row["n_subjects"] for row in rows} == {"3"}
    said = "attentive probe, scaled by the recording (default readout): r2"
    assert said in capsys.readouterr().out
    predictions = files.read_rows(tmp_path / "run" / "age" / "predictions.tsv")
    assert len(predictions) == 3 and all(row["embedding_attentive_cohort"] for row in predictions)


def test_without_the_cohorts_scaling_the_call_says_what_to_do(
    cohort: tuple[Path, Path, Naming, list[str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    naming = replace(cohort[2], output_dir=str(out), stem="sub-01_task-rest", scaling="")
    files.write_series(naming.path("robust"), list(resources.parcels().names), np.ones((30, 424)))
    options = replace(_options(cohort, tmp_path / "run"), data=out, series="robustcohort")
    with pytest.raises(UserError, match="after the level group"):
        begin(options)
