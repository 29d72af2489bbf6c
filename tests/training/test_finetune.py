"""`brainlm finetune`: the head, the folds, what is known of a test fold, planted effects."""

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest
import torch
from simulated_series import autoregressive_process
from small_models import SMALL_IMAGE
from torch import nn

from brainlm_bids import files, resources
from brainlm_bids.cohort.decoding import decode, linear_predictions
from brainlm_bids.cohort.folds import splits
from brainlm_bids.cohort.permutations import within_fold_p
from brainlm_bids.commands import brainlm as tools
from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import LoadedModel, load_model, random_network
from brainlm_bids.model.config import ARCHITECTURES
from brainlm_bids.model.embedding import embed
from brainlm_bids.training import prediction_head as finetuning
from brainlm_bids.training.finetune_feeds import Whole
from brainlm_bids.training.heads import load_finetuned
from brainlm_bids.training.prediction_head import Finetuned, PredictionHead
from brainlm_bids.training.saving import save_checkpoint
from brainlm_bids.training.split import cross_validation, one_split, split_subjects
from brainlm_bids.training.store import find_or_build, write_store

# two time patches of 20 volumes, one layer: a second or two for an epoch of a small cohort
SMALL = dataclasses.replace(
    ARCHITECTURES["tiny"],
    hidden_size=16,
    num_hidden_layers=1,
    intermediate_size=16,
    decoder_hidden_size=16,
    decoder_intermediate_size=16,
    num_timepoints_per_voxel=40,
    conv_kernel_size=5,
    initializer_range=0.2,
)
N_SUBJECTS, N_VOLUMES = 24, 50


# --- kernels ---------------------------------------------------------------------------------


def test_the_head_is_the_references_mlp() -> None:
    torch.manual_seed(0)
    head = PredictionHead(12, 3, dropout=0.5).eval()
    nn.init.normal_(head.lin3.weight)
    plain = nn.Sequential(
        nn.Linear(12, 6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 6), nn.Dropout(0.5), nn.ReLU(),
        nn.Linear(6, 3),
    ).eval()  # fmt: skip
    names = {"0": "lin1", "3": "lin2", "6": "lin3"}
    plain.load_state_dict(
        {
            key: head.state_dict()[f"{names[key.split('.')[0]]}.{key.split('.')[1]}"]
            for key in plain.state_dict()
        }
    )
    x = torch.randn(5, 12)
    assert torch.allclose(head(x), plain(x), atol=1e-6)
    embeddings = np.random.default_rng(0).normal(3, [0, *range(1, 12)], size=(40, 12))
    head.standardise(embeddings)
    mean, sd = embeddings.mean(axis=0), embeddings.std(axis=0)
    sd[0] = np.inf  # does not vary
    expected = plain(((x.double() - torch.from_numpy(mean)) / torch.from_numpy(sd)).float())
    assert torch.allclose(head(x), expected, atol=1e-5)


def test_an_unfitted_head_predicts_the_mean() -> None:
    found = PredictionHead(8, 1)(torch.randn(4, 8)).detach().numpy()
    assert (finetuning.predictions(found, 0, mean=41.0, scale=9.0) == 41).all()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_encoder_with_a_head_is_embed_then_head(model: LoadedModel, pooling: str) -> None:
    series = np.random.default_rng(0).standard_normal((200, 424)).astype(np.float32)
    xyz = resources.parcels().xyz
    head = PredictionHead(model.embedding_dim, 1)
    nn.init.normal_(head.lin3.weight)
    found = embed(model, series, xyz, tr=1.0, seed=7, pooling=pooling).vectors
    feed = Whole.__new__(Whole)
    feed._model, feed._seed = model, 7
    order = feed._order(200, np.random.default_rng(7))
    whole = Finetuned(model.network, head, xyz, pooling)
    with torch.inference_mode():
        output = whole(torch.from_numpy(series.T[None]), torch.from_numpy(order)[None])
        assert torch.allclose(output, head(torch.from_numpy(found)), atol=1e-4)


def test_losses_by_hand() -> None:
    outputs_of, labels = torch.tensor([[0.3], [-1.2], [2.0]]), torch.tensor([1.0, 0.0, 0.0])
    weights = torch.from_numpy(finetuning.class_weights([1, 0, 0], 2))
    assert weights.tolist() == [2.0]
    p = torch.sigmoid(outputs_of[:, 0])
    expected = torch.stack([-2 * p[0].log(), -(1 - p[1]).log(), -(1 - p[2]).log()])
    assert torch.allclose(finetuning.losses(outputs_of, labels, 2, weights).float(), expected)
    assert finetuning.class_weights([0, 0, 1, 2], 3).tolist() == pytest.approx(
        [2 / 3, 4 / 3, 4 / 3]
    )
    three = torch.tensor([[0.0, 1.0, 2.0]])
    weights = torch.tensor([1.0, 2.0, 3.0])
    odds = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    found = finetuning.losses(three, torch.tensor([1.0]), 3, weights)
    assert float(found) == pytest.approx(-2 * np.log(odds[1]))
    assert finetuning.predictions(three, 3, 0, 1)[0] == pytest.approx(odds)
    assert finetuning.predictions([[0.0]], 2, 0, 1)[0].tolist() == [0.5, 0.5]
    squares = finetuning.losses(torch.tensor([[2.0]]), torch.tensor([5.0]), 0, torch.ones(1))
    assert squares.tolist() == [9.0]


def test_only_what_should_learns(model: LoadedModel) -> None:
    network = random_network(model.config, 0)
    module = network.module
    chosen = finetuning.trainable(network, {"vit": True, "decoder": False})
    names = {name for name, weight in module.named_parameters() if weight.requires_grad}
    assert chosen and all(name.startswith("vit.") for name in names)
    assert not any("position" in name for name in names)


# --- folds -----------------------------------------------------------------------------------


def test_folds_never_share_subjects() -> None:
    subjects = [f"sub-{k % 17:02d}" for k in range(60)]
    people = np.array(subjects)
    folds = cross_validation(subjects, 5, seed=3)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested) == list(range(60))
    for fold in folds:
        groups = [set(people[rows]) for rows in (fold.fit, fold.validation, fold.test)]
        assert all(groups) and not groups[0] & groups[1]
        assert not (groups[0] | groups[1]) & groups[2]
        assert sorted([*fold.train, *fold.test]) == list(range(60))
    # those of the group level
    for fold, (train, test) in zip(folds, splits(people, 5, 3), strict=True):
        assert np.array_equal(fold.train, train) and np.array_equal(fold.test, test)


def test_one_split_is_that_of_pretraining() -> None:
    subjects = [f"sub-{k % 20:02d}" for k in range(40)]
    parts = split_subjects(subjects, seed=1)
    (fold,) = one_split(subjects, parts)
    assert {parts[subjects[row]] for row in fold.test} == {"test"}
    assert len(fold.fit) == 32 and len(fold.validation) == len(fold.test) == 4
    with pytest.raises(UserError, match="no usable recording is in test"):
        one_split(subjects, dict.fromkeys(subjects, "train") | {"sub-00": "validation"})
    with pytest.raises(UserError, match="--folds 30"):
        cross_validation(subjects, 30, 0)


def test_the_linear_probe_is_that_of_decode() -> None:
    """Its repeats on the same folds give the same predictions."""
    rng = np.random.default_rng(0)
    features, subjects = rng.standard_normal((60, 6)), [f"s{k:04d}" for k in range(60)]
    target = features[:, 0] + rng.standard_normal(60)
    found = np.zeros((60, 2))
    n_repeats = decode(features, target, subjects, seed=4).n_repeats
    for repeat in range(n_repeats):
        for split in splits(np.array(subjects), 5, 4 + repeat):
            one = linear_predictions(features, target, subjects, split, seed=4 + repeat)
            found[split[1]] += one / n_repeats
    assert np.allclose(
        found[:, 0], decode(features, target, subjects, seed=4).predictions, atol=1e-9
    )


def test_p_within_a_fold_is_uniform_without_an_effect() -> None:
    rng = np.random.default_rng(5)
    subjects = [f"s{k}" for k in range(20)]
    folds = [np.arange(10), np.arange(10, 20)]
    found = []
    for k in range(200):
        guesses = np.stack([rng.standard_normal(20), np.zeros(20)], axis=1)
        found.append(
            within_fold_p(
                rng.standard_normal(20), guesses, subjects, folds,
                n_classes=0, n_permutations=99, seed=k,
            )
        )  # fmt: skip
    assert abs(np.mean(np.array(found) <= 0.2) - 0.2) < 0.09
    truth = rng.standard_normal(20)
    perfect = np.stack([truth, np.zeros(20)], axis=1)
    p = within_fold_p(truth, perfect, subjects, folds, n_classes=0, n_permutations=99, seed=0)
    assert p == pytest.approx(0.01)


# --- the command -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "small"
    save_checkpoint(folder, random_network(SMALL, seed=1), {})
    return folder


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store whose series' level follows age; and the table of participants."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(6)
    age = rng.uniform(20, 80, N_SUBJECTS)
    level = (age - 50) / 17
    recordings = [
        (
            f"sub-{k:02d}_task-rest",
            f"sub-{k:02d}",
            autoregressive_process(0.5, (N_VOLUMES, 424), k) + level[k],
        )
        for k in range(N_SUBJECTS)
    ]
    write_store(folder / "store", recordings)
    columns: dict[str, list[Any]] = {
        "participant_id": [f"sub-{k:02d}" for k in range(N_SUBJECTS)],
        "age": age.tolist(),
        "shuffled": rng.permutation(age).tolist(),
        "group": ["old" if one > 50 else "young" for one in age],
        "third": [("a", "b", "c")[int(one >= 40) + int(one >= 60)] for one in age],
        "constant": ["x"] * N_SUBJECTS,
    }
    files.write_tsv(folder / "participants.tsv", list(columns), list(columns.values()))
    return folder / "store", folder


def call(cohort: tuple[Path, Path], checkpoint: Path, run: Path, *more: object) -> int:
    words = [checkpoint, cohort[0], run, "--bids-dir", cohort[1], *more]
    words += [] if "--split" in more else ["--folds", 3]
    words += [] if "--readouts" in more else ["--readouts", "linear"]
    words += ["--permutations", 99]
    return tools.main(["finetune", *(str(one) for one in words), "--offline"])


def scores(run: Path, target: str) -> dict[tuple[str, str, str], dict[str, float]]:
    rows = files.read_rows(run / target / "decoding.tsv")
    number = {"n/a": "nan"}
    return {
        (row["features"], row["readout"], row["metric"]): {
            key: float(number.get(row[key], row[key]))
            for key in ("value", "low", "high", "permutation_p")
        }
        for row in rows
    }


FINETUNED = "finetuned_head_recording"
FROZEN = ("--frozen", "--epochs", 150, "--patience", 40, "--head-learning-rate", 0.003)


def test_a_planted_effect_is_found_and_a_shuffled_one_is_not(
    cohort: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    targets = ("age", "shuffled", "group", "third")
    assert call(cohort, checkpoint, tmp_path / "run", "--target", *targets, *FROZEN) == 0
    age, shuffled = scores(tmp_path / "run", "age"), scores(tmp_path / "run", "shuffled")
    assert (
        age["finetuned", "head", "r2"]["value"] > 0.7
        and age["embedding", "cls", "r2"]["value"] > 0.7
    )
    assert age["finetuned", "head", "r2"]["permutation_p"] == pytest.approx(1 / 100)
    assert age["baseline", "mean", "r2"]["value"] == 0
    assert age["connectivity", "linear", "r2"]["value"] < 0.3  # the level is in no correlation
    assert shuffled["finetuned", "head", "r2"]["value"] < 0.2
    assert shuffled["finetuned", "head", "r2"]["permutation_p"] > 0.05
    group, third = scores(tmp_path / "run", "group"), scores(tmp_path / "run", "third")
    assert group["finetuned", "head", "auc"]["value"] > 0.85
    assert group["baseline", "mean", "balanced_accuracy"]["value"] <= 0.6
    assert third["finetuned", "head", "balanced_accuracy"]["value"] > 0.6
    assert (tmp_path / "run" / "age" / "decoding.png").read_bytes().startswith(b"\x89PNG")
    compared = files.read_json(tmp_path / "run" / "age" / "decoding.json")["Comparisons"]
    for features, readout, name in (
        ("embedding", "cls", "embedding_cls_recording"),
        ("connectivity", "linear", "connectivity_linear"),
        ("baseline", "mean", "baseline_mean"),
    ):
        gain = age["finetuned", "head", "r2"]["value"] - age[features, readout, "r2"]["value"]
        assert compared[name]["Difference"] == pytest.approx(gain, abs=1e-5), name
    assert compared["baseline_mean"]["Low"] > 0
    _check_folds(tmp_path / "run" / "age")
    page = (tmp_path / "run" / "finetune.html").read_text()
    for target, verdict in (("age", "more"), ("shuffled", "not more")):
        section = page.partition(f"<h2>{target}</h2>")[2].partition("</section>")[0]
        assert f", {verdict} than with shuffled targets" in section


def _check_folds(folder: Path) -> None:
    """Scores by fold are those of the predictions."""
    predictions = files.read_rows(folder / "predictions.tsv")
    for row in files.read_rows(folder / "folds.tsv"):
        if row["metric"] == "mae":
            tested = [one for one in predictions if one["fold"] == row["fold"]]
            errors = [abs(float(one["truth"]) - float(one[row["source"]])) for one in tested]
            assert float(row["value"]) == pytest.approx(np.mean(errors), rel=1e-4)
            assert int(row["n_test"]) == len(tested)


def test_an_image_model_finds_it_too(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL_IMAGE, initializer_range=0.2)
    save_checkpoint(tmp_path / "image", random_network(config, seed=1), {})
    run = tmp_path / "run"
    assert call(cohort, tmp_path / "image", run, "--target", "age", *FROZEN) == 0
    assert scores(run, "age")["finetuned", "head", "r2"]["value"] > 0.7
    loaded = load_finetuned(run / "age" / "fold-1")
    rows = files.read_rows(run / "age" / "predictions.tsv")
    predicted = {row["recordings"]: float(row[FINETUNED]) for row in rows}
    store = find_or_build(cohort[0], run)
    name = loaded.provenance["Test"][0]
    index = next(k for k, one in enumerate(store.recordings) if one.name == name)
    found = loaded.predict(np.array(store.series(index)))
    assert found[0] == pytest.approx(predicted[name], rel=1e-4)


def test_the_encoder_learns_and_is_loaded_again(
    cohort: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = ("--target", "age", "--split", "--epochs", 12, "--learning-rate", 0.003)
    assert call(cohort, checkpoint, run, *more, "--head-learning-rate", 0.01) == 0
    curves = files.read_rows(run / "age" / "curves.tsv")
    losses = [float(row["validation_loss"]) for row in curves]
    assert min(losses) < 0.5 * losses[0]
    fold = run / "age" / "fold-1"
    before, after = load_model(checkpoint, seed=0), load_model(fold, seed=0)
    moved = [
        name
        for (name, one), other in zip(
            before.module.named_parameters(), after.module.parameters(), strict=True
        )
        if not torch.equal(one, other)
    ]
    assert moved and all(name.startswith("vit.") for name in moved)
    predicted = {
        row["recordings"]: float(row[FINETUNED])
        for row in files.read_rows(run / "age" / "predictions.tsv")
    }
    loaded, store = load_finetuned(fold), find_or_build(cohort[0], run)
    assert sorted(predicted) == sorted(loaded.provenance["Test"])
    for k, one in enumerate(store.recordings):
        if one.name in predicted:
            found = loaded.predict(np.array(store.series(k)))
            assert found[0] == pytest.approx(predicted[one.name], rel=1e-4)


@pytest.mark.parametrize(
    ("task", "launches"),
    [
        (
            ("--target", "age", "--split", "--readouts", "linear", "--permutations", 9),
            ("one", "two", "nodes"),
        ),
        (("--future", 1, "--folds", 2), ("one", "two")),
    ],
)
def test_two_processes_learn_what_one_does(
    cohort: tuple[Path, Path],
    checkpoint: Path,
    tmp_path: Path,
    task: tuple[object, ...],
    launches: tuple[str, ...],
) -> None:
    """Batches of 5 in two processes: shares of 3 and 2, and of 1 and none.

    Two launches of torchrun that find each other are two nodes: the same bytes as two processes.
    """
    words = ["-m", "brainlm_bids.commands.brainlm", "finetune", checkpoint, cohort[0], "RUN", *task]
    words += ["--bids-dir", cohort[1], "--epochs", 2, "--batch", 5, "--micro-batch", 2, "--offline"]
    for name in launches:
        n, before = _launch(name)
        command = [str(tmp_path / name) if one == "RUN" else str(one) for one in (*before, *words)]
        # torchrun sets it only where a machine has several processes
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen(
                [sys.executable, *command], stdout=PIPE, stderr=PIPE, text=True, env=environment
            )
            for _ in range(n)
        ]
        said = [one.communicate() for one in started]
        assert [one.returncode for one in started] == [0] * n, [text[1][-2000:] for text in said]
        assert sum(text[0].count(".tsv") for text in said) == 1  # one of them speaks
    tables = sorted((tmp_path / "one").rglob("*.tsv"))
    assert any(file.name == "curves.tsv" for file in tables)
    for file in tables:
        ours = files.read_rows(file)
        theirs = files.read_rows(tmp_path / "two" / file.relative_to(tmp_path / "one"))
        for a, b in zip(ours, theirs, strict=True):
            assert {key: _value(b[key]) for key in b} == {key: _near(a[key]) for key in a}
    for name in launches[2:]:
        same = _files(tmp_path / "two")
        assert {path.suffix for path in same} >= {".tsv", ".safetensors"}
        assert _files(tmp_path / name) == same


def _launch(name: str) -> tuple[int, list[str]]:
    """How many calls a launch is, and what stands before the words of each."""
    torchrun = ["-m", "torch.distributed.run", "--local-addr", "localhost"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-id", "nodes", "--nnodes", "2"]
    meeting += ["--rdzv-endpoint", f"localhost:{_free_port()}"]
    return {
        "one": (1, []),
        "two": (1, [*torchrun, "--standalone", "--nproc-per-node", "2"]),
        "nodes": (2, [*torchrun, *meeting, "--nproc-per-node", "1"]),
    }[name]


def _files(run: Path) -> dict[Path, bytes]:
    """The files of a run, but the records of calls and the page, which name it."""
    return {
        path.relative_to(run): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.parent.name != "logs" and path.suffix != ".html"
    }


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _near(text: str) -> Any:
    value = _value(text)
    if isinstance(value, str):
        return value
    return pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True)


def test_a_frozen_head_knows_its_checkpoint(
    cohort: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    few = ("--frozen", "--epochs", 2)
    assert call(cohort, checkpoint, run, "--target", "group", *few, "--pooling", "mean") == 0
    fold = run / "group" / "fold-1"
    assert not (fold / "model.safetensors").exists()
    loaded = load_finetuned(fold)
    assert loaded.classes == ("old", "young")
    rows = files.read_rows(run / "group" / "predictions.tsv")
    wanted = {(row["recordings"], row["class"]): float(row[FINETUNED]) for row in rows}
    store = find_or_build(cohort[0], run)
    name = loaded.provenance["Test"][0]
    index = next(k for k, one in enumerate(store.recordings) if one.name == name)
    found = loaded.predict(np.array(store.series(index)))
    assert found[1] == pytest.approx(wanted[name, "young"], rel=1e-4)
    assert found.sum() == pytest.approx(1)
    other = tmp_path / "other"
    save_checkpoint(other, random_network(SMALL, seed=2), {})
    with pytest.raises(UserError, match="is not the checkpoint"):
        load_finetuned(fold, other)


def test_nothing_of_the_test_fold_is_known(
    cohort: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    """Other targets and other series of the tested subjects change no weight and no scale."""
    store = find_or_build(cohort[0], tmp_path)
    few = ("--target", "age", "--split", "--frozen", "--epochs", 3)
    assert call(cohort, checkpoint, tmp_path / "a", *few) == 0
    tested = load_finetuned(tmp_path / "a" / "age" / "fold-1").provenance["Test"]
    changed = [
        (one.name, one.subject, store.series(k) * (9.0 if one.name in tested else 1.0))
        for k, one in enumerate(store.recordings)
    ]
    write_store(tmp_path / "changed", changed)
    rows = files.read_rows(cohort[1] / "participants.tsv")
    subjects = {name.split("_")[0] for name in tested}
    age = [999.0 + k if r["participant_id"] in subjects else r["age"] for k, r in enumerate(rows)]
    (tmp_path / "raw").mkdir()
    table = {"participant_id": [row["participant_id"] for row in rows], "age": age}
    files.write_tsv(tmp_path / "raw" / "participants.tsv", list(table), list(table.values()))
    assert call((tmp_path / "changed", tmp_path / "raw"), checkpoint, tmp_path / "b", *few) == 0
    heads = [load_finetuned(tmp_path / run / "age" / "fold-1") for run in "ab"]
    assert heads[1].provenance["Test"] == tested
    for name, value in heads[0].head.state_dict().items():
        assert torch.equal(value, heads[1].head.state_dict()[name]), name
    assert heads[0].provenance["TargetMean"] == heads[1].provenance["TargetMean"]
    tables = [tmp_path / run / "age" / "predictions.tsv" for run in "ab"]
    first, second = (files.read_rows(file) for file in tables)
    assert [row["baseline_mean"] for row in first] == [row["baseline_mean"] for row in second]
    assert [row[FINETUNED] for row in first] != [row[FINETUNED] for row in second]


def test_the_same_call_goes_on_and_gives_the_same(
    cohort: tuple[Path, Path], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--target", "age", "--frozen", "--epochs", 3)
    assert call(cohort, checkpoint, tmp_path / "a", *few) == 0
    assert call(cohort, checkpoint, tmp_path / "b", *few) == 0
    for name in ("decoding.tsv", "predictions.tsv", "curves.tsv", "fold-2/head.safetensors"):
        own = [(tmp_path / run / "age" / name).read_bytes() for run in "ab"]
        assert own[0] == own[1], name
    kept = (tmp_path / "a" / "age" / "fold-2" / "head.safetensors").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "a" / "age" / "fold-1")
    assert call(cohort, checkpoint, tmp_path / "a", *few) == 0
    assert (tmp_path / "a" / "age" / "fold-2" / "head.safetensors").stat().st_mtime_ns == kept
    own = [(tmp_path / run / "age" / "decoding.tsv").read_bytes() for run in "ab"]
    assert own[0] == own[1]
    capsys.readouterr()
    assert call(cohort, checkpoint, tmp_path / "a", *few, "--seed", 1) == 1
    assert "(seed: 42, now 1); give another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", "height"), "no such column; the columns are: age, shuffled, group"),
        (("--target", "constant"), "the same value 'x' everywhere"),
        ((), "give either --target or --future"),
        (("--target", "age", "--future", 1), "give either --target or --future"),
        (("--future", 2), "one of which must be seen"),
        (("--target", "age", "--split", "missing.tsv"), "missing.tsv: there is no such file"),
    ],
)
def test_bad_input_is_one_line(
    cohort: tuple[Path, Path],
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    said: str,
) -> None:
    assert call(cohort, checkpoint, tmp_path / "run", *arguments) == 1
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1


def test_the_future_of_sinusoids_is_learnt(tmp_path: Path) -> None:
    """A wave of either sign that every parcel has: the network learns how it goes on."""
    quiet = dataclasses.replace(SMALL, initializer_range=0.05)
    save_checkpoint(tmp_path / "quiet", random_network(quiet, seed=1), {})
    rng = np.random.default_rng(8)
    wave = np.sin(2 * np.pi * np.arange(40) / 20)[:, None]
    recordings = [
        (
            f"sub-{k:02d}_task-rest",
            f"sub-{k:02d}",
            (1 if k % 2 else -1) * wave + 0.1 * rng.standard_normal((40, 424)),
        )
        for k in range(16)
    ]
    write_store(tmp_path / "store", recordings)
    words = [tmp_path / "quiet", tmp_path / "store", tmp_path / "run", "--future", 1]
    words += ["--folds", 2, "--epochs", 25, "--patience", 25, "--learning-rate", 0.005]
    words += ["--batch", 1, "--micro-batch", 1]
    assert tools.main(["finetune", *(str(one) for one in words), "--offline"]) == 0
    rows = files.read_rows(tmp_path / "run" / "forecast.tsv")
    error = {
        name: np.mean([float(row["rmse"]) for row in rows if row["predictor"] == name])
        for name in {row["predictor"] for row in rows}
    }
    assert {row["n_subjects"] for row in rows} == {"16"}
    assert error["before"] > 0.9 * error["median"]
    assert error["after"] < 0.4 * error["median"]
    assert error["after"] < error["persistence"]
    assert (tmp_path / "run" / "forecast.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "run" / "finetune.html").read_text()
    assert "It is better than the model before fine-tuning" in page
    # the released layout: the other commands take it
    found = load_model(tmp_path / "run" / "fold-1" / "checkpoint", seed=0)
    assert found.config == quiet and not found.untrained
