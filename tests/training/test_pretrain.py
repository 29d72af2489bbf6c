"""brainlm pretrain: what is learnt, resumption, processes, checkpoints, and what goes wrong."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import P
from small_stores import IMAGE, SERIES, output_folder, small_store, write_config
from torch import nn

from brainlm_bids.bids.calls import tool_calls
from brainlm_bids.commands import brainlm as tools
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_rows, read_tsv
from brainlm_bids.model import baselines
from brainlm_bids.model.checkpoint import load_model, random_network
from brainlm_bids.model.config import ModelConfig
from brainlm_bids.resources import parcels
from brainlm_bids.training import pretrain as engine
from brainlm_bids.training import saving
from brainlm_bids.training.loader import MicroBatch, Schedule, WindowSet, load, shares
from brainlm_bids.training.loop import Loop, Progress
from brainlm_bids.training.objective import (
    TRAINING,
    VALIDATION,
    MaskedPrediction,
    batches,
    decay_groups,
    draw,
    hidden_values,
    learning_rate,
)
from brainlm_bids.training.pretrain import pretrain
from brainlm_bids.training.processes import largest_batch, lock_folder
from brainlm_bids.training.setup import PretrainOptions
from brainlm_bids.training.store import Store

TIMES = ("windows_per_second", "seconds_waiting", "seconds_validating")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """10 subjects with 2 runs each: 8 train, 1 validation, 1 test."""
    return small_store(tmp_path_factory.mktemp("data") / "store", 10, runs=2)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield


def parameters(
    store: Store, run_dir: Path, config: ModelConfig = SERIES, **more: Any
) -> PretrainOptions:
    file = write_config(run_dir.parent / f"{config.family}{config.hidden_size}.json", config)
    small = {"epochs": 3, "batch": 6, "learning_rate": 5e-3, "baseline_windows": 0, "device": "cpu"}
    return PretrainOptions(store.folder, run_dir, config=file, **{**small, **more})


def curves(run_dir: Path) -> tuple[list[str], np.ndarray]:
    """Names and numbers of the curves, without what depends on the clock."""
    names, values = read_tsv(run_dir / "curves.tsv")
    kept = [k for k, name in enumerate(names) if name not in TIMES]
    return [names[k] for k in kept], values[:, kept]


def column(run_dir: Path, name: str) -> np.ndarray:
    names, values = curves(run_dir)
    return values[:, names.index(name)]


def scalars(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


# --- what is learnt ----------------------------------------------------------------------------


def test_learns_what_a_cohort_has_in_common(store: Store, tmp_path: Path) -> None:
    """A course that all parcels share: hidden parcels follow from those that are seen."""
    run_dir = tmp_path / "run"
    given = parameters(
        store, run_dir, epochs=10, windows_per_recording=10, batch=8, micro_batch=8,
        baseline_windows=4,
    )  # fmt: skip
    assert pretrain(given) == 0
    r2, mean = column(run_dir, "validation_r2"), column(run_dir, "mean_r2")
    assert r2[0] < 0.3 and r2.max() > 0.5
    assert mean.max() < 0.1
    names, values = read_tsv(run_dir / "test.tsv")
    scores = dict(zip(names, values[0], strict=True))
    assert scores["r2"] > 0.5 > scores["mean_r2"]
    # Ridge regression sees the one course too: the truth is 1 − noise variance / variance.
    assert scores["ridge_r2"] > 0.6
    best = load_model(run_dir / "best", seed=0)
    about = json.loads((run_dir / "best" / "training.json").read_text())
    assert about["Epoch"] == scores["epoch"]
    windows = WindowSet(store, _validation(run_dir, store), SERIES, seed=42, copies=10)
    task = MaskedPrediction(best.network, parcels().xyz, 0.5)
    batch = windows[MicroBatch(VALIDATION, 0, np.arange(20), np.ones(20, np.float32))]
    with torch.no_grad():
        found = task(batch.signal, batch.order)
    mse = float(found.errors.sum() / found.number.sum())
    assert mse == pytest.approx(column(run_dir, "validation_mse").min(), rel=1e-5)


def _validation(run_dir: Path, store: Store) -> list[int]:
    rows = read_rows(run_dir / "recordings.tsv")
    names = [one.name for one in store.recordings]
    return [names.index(row["recording"]) for row in rows if row["split"] == "validation"]


@pytest.mark.parametrize("config", [SERIES, IMAGE], ids=["brainlm", "vitmae"])
def test_steps_are_those_of_a_plain_loop(store: Store, tmp_path: Path, config: ModelConfig) -> None:
    """AdamW over whole batches, without accelerate, accumulation or the loader: same weights."""
    run_dir = tmp_path / "run"
    assert pretrain(parameters(store, run_dir, config, epochs=2, micro_batch=4)) == 0

    rows = read_rows(run_dir / "recordings.tsv")
    train = [k for k, row in enumerate(rows) if row["split"] == "train"]
    network = random_network(config, 42)
    task = MaskedPrediction(network, parcels().xyz, 0.5)
    decay = {SERIES: 1e-5, IMAGE: 0.05}[config]
    optimiser = torch.optim.AdamW(decay_groups(task, decay), lr=1.0)
    steps = [step for epoch in (0, 1) for step in batches(len(train), 6, 42, epoch)]
    for k, windows in enumerate(steps):
        optimiser.param_groups[0]["lr"] = learning_rate(k, len(steps), 5e-3, 0.05)
        optimiser.param_groups[1]["lr"] = optimiser.param_groups[0]["lr"]
        signals, orders = [], []
        for window in windows:
            series = store.series(train[window])
            first, order = draw(config, len(series), (42, TRAINING, k // 3, int(window)))
            signals.append(torch.from_numpy(series[first : first + config.window].T.copy()))
            orders.append(torch.from_numpy(order))
        optimiser.zero_grad()
        task(torch.stack(signals), torch.stack(orders)).loss.mean().backward()
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimiser.step()
    ours = load_model(run_dir / "last", seed=0).module.state_dict()
    for name, expected in network.module.state_dict().items():
        # Adam divides by |gradient|: where that is only rounding, a step is rounding too.
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=2e-4, msg=name)
    assert len(train) == 16 and len(steps) == 6


def test_baselines_are_computed_on_the_network_s_masks(store: Store, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    given = parameters(store, run_dir, IMAGE, epochs=2, baseline_windows=2)
    assert pretrain(given) == 0
    errors, values = 0.0, []
    for window, recording in enumerate(_validation(run_dir, store)):
        whole = np.ascontiguousarray(store.series(recording).T)
        first, order = draw(IMAGE, whole.shape[1], (42, VALIDATION, 0, window))
        hidden = np.zeros(whole.shape, dtype=bool)
        task = MaskedPrediction(random_network(IMAGE, 0), parcels().xyz, 0.5)
        hidden[:, first : first + 200] = hidden_values(task, order)
        guess = baselines.ridge(whole, ~hidden)
        errors += float(((guess - whole)[hidden] ** 2).sum())
        values.append(whole[hidden])
    truth = np.concatenate(values)
    assert column(run_dir, "ridge_mse") == pytest.approx(errors / truth.size, rel=1e-5)
    expected = 1 - errors / ((truth - truth.mean()) ** 2).sum()
    assert column(run_dir, "ridge_r2") == pytest.approx(expected, rel=1e-4)
    assert column(run_dir, "compared_mse") == pytest.approx(column(run_dir, "validation_mse"))


@pytest.mark.parametrize("config", [SERIES, IMAGE], ids=["brainlm", "vitmae"])
def test_hidden_values_are_those_that_the_loss_counts(config: ModelConfig) -> None:
    """A window of ones where a value is hidden and zeros elsewhere: the counted sum finds all."""
    task = MaskedPrediction(random_network(config, 0), parcels().xyz, 0.5)
    _, order = draw(config, config.window, (1, 2, 3, 4))
    hidden = hidden_values(task, order)
    assert 0.3 < hidden.mean() < 0.7
    with torch.no_grad():
        signal_ = torch.from_numpy(hidden.astype(np.float32) + 1)[None]
        found = task(signal_, torch.from_numpy(order)[None])
    assert float(found.number) == hidden.sum()
    assert float(found.total) == pytest.approx(2 * hidden.sum(), rel=1e-6)


def test_bfloat16_is_close_to_float32(store: Store, tmp_path: Path) -> None:
    """The autocast of CUDA, here on the CPU: matrix products lose digits, losses do not."""
    from accelerate.state import AcceleratorState

    assert pretrain(parameters(store, tmp_path / "full", IMAGE)) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    assert pretrain(parameters(store, tmp_path / "half", IMAGE, precision="bfloat16")) == 0
    half, full = (column(tmp_path / name, "validation_loss") for name in ("half", "full"))
    assert 0 < np.abs(half / full - 1).max() < 0.01
    weights = load_model(tmp_path / "half" / "best", seed=0).module.state_dict()
    assert {value.dtype for value in weights.values()} == {torch.float32}


# --- going on, and several processes -------------------------------------------------------------


def test_a_killed_run_goes_on_as_if_it_had_not_been(store: Store, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    more = {"epochs": 4, "save_minutes": 1e-9}  # saves after every step, also within an epoch
    assert pretrain(parameters(store, whole, **more)) == 0
    given = parameters(store, cut, **more)
    words = [
        sys.executable, "-c",
        "import sys, time, torch; from brainlm_bids.training.loop import Loop\n"
        # sums are rounded alike only where as many threads share them
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        "step = Loop.step\n"
        "def slow(self, *a): time.sleep(0.2); return step(self, *a)\n"
        "Loop.step = slow\n"
        "from brainlm_bids.commands import brainlm; sys.exit(brainlm.main(sys.argv[1:]))",
        "pretrain", str(store.folder), str(cut), "--config", str(given.config), "--epochs", "4",
        "--batch", "6", "--learning-rate", "5e-3", "--baseline-windows", "0", "--device", "cpu",
        "--save-minutes", "1e-9",
    ]  # fmt: skip
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    state = cut / "state" / saving.STATE
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        found = saving.load_state(state)
        if found is not None and found["step"] >= 4:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    stopped = saving.load_state(state)
    assert stopped is not None and 4 <= stopped["step"] < 12
    assert tools.main(["report", str(cut)]) == 0
    text = (cut / "pretrain.html").read_text()
    assert "The training is not complete" in text and "has not ended" in text
    assert pretrain(given) == 0
    names, expected = curves(whole)
    again, found_curves = curves(cut)
    assert again == names
    np.testing.assert_array_equal(found_curves, expected)
    for folder in ("best", "last"):
        ours = load_model(cut / folder, seed=0)
        assert ours.sha256 == load_model(whole / folder, seed=0).sha256
    assert "continuing after step" in (cut / "log.txt").read_text()


def test_sigterm_saves_and_leaves(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / "run"
    step = Loop.step

    def interrupted(self: Loop, fit: Any, progress: Progress, *arguments: Any) -> bool:
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, fit, progress, *arguments)

    monkeypatch.setattr(Loop, "step", interrupted)
    assert pretrain(parameters(store, run_dir)) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM after step 5 of 9" in capsys.readouterr().err
    page = run_dir / "pretrain.html"
    text = page.read_text()
    assert "was stopped (SIGTERM)" in text and "1 of 3 epochs (step 5 of 9)" in text
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    monkeypatch.setattr(Loop, "step", step)
    assert pretrain(parameters(store, run_dir)) == 0
    assert pretrain(parameters(store, tmp_path / "whole")) == 0
    np.testing.assert_array_equal(curves(run_dir)[1], curves(tmp_path / "whole")[1])
    text = page.read_text()
    assert "The training is complete: 3 epochs" in text and "was stopped" not in text
    first, second = tool_calls(run_dir)
    assert (first.facts["FromStep"], first.facts["ToStep"], first.outcome) == (0, 5, "stopped")
    assert (second.facts["FromStep"], second.facts["ToStep"], second.outcome) == (5, 9, "finished")
    for tag in ("step/loss", "epoch/validation_loss"):
        assert scalars(run_dir, tag) == scalars(tmp_path / "whole", tag)
    assert [step for step, _ in scalars(run_dir, "step/loss")] == list(range(1, 10))


@pytest.mark.parametrize("stops", [3, 6])
def test_events_that_were_not_yet_in_the_state_are_not_doubled(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: int
) -> None:
    """Killed after the events of an epoch and before its state: the epoch is trained again."""
    run_dir = tmp_path / "run"
    save = engine._Pretraining._save

    def killed(self: engine._Pretraining, **keywords: Any) -> None:
        if self.progress.step == stops:
            raise KeyboardInterrupt
        save(self, **keywords)

    monkeypatch.setattr(engine._Pretraining, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(parameters(store, run_dir))
    monkeypatch.setattr(engine._Pretraining, "_save", save)
    assert pretrain(parameters(store, run_dir)) == 0
    assert [step for step, _ in scalars(run_dir, "step/loss")] == list(range(1, 10))
    assert [step for step, _ in scalars(run_dir, "epoch/validation_loss")] == [3, 6, 9]


@pytest.mark.parametrize(
    "config",
    [pytest.param(SERIES, marks=pytest.mark.slow), IMAGE],
    ids=["brainlm", "vitmae"],
)
def test_two_processes_are_one(store: Store, tmp_path: Path, config: ModelConfig) -> None:
    """gloo on the CPU; 16 windows in steps of 6, 5 and 5, so that shares are filled up."""
    one, two = tmp_path / "one", tmp_path / "two"
    given = parameters(store, one, config, baseline_windows=1, micro_batch=6)
    assert pretrain(given) == 0
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost",
        "--nproc-per-node", "2",
        "-m", "brainlm_bids.commands.brainlm", "pretrain", str(store.folder), str(two),
        "--config", str(given.config), "--epochs", "3", "--batch", "6", "--learning-rate", "5e-3",
        "--baseline-windows", "1", "--device", "cpu",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in done.stderr
    names, expected = curves(one)
    again, found = curves(two)
    assert names == again
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    test = [read_tsv(folder / "test.tsv")[1] for folder in (one, two)]
    np.testing.assert_allclose(test[1], test[0], rtol=1e-4)


def test_shares_weigh_every_window_once() -> None:
    windows = np.array([7, 3, 9, 1, 4])
    for world, micro in ((1, 2), (2, 2), (3, 1), (8, 4)):
        parts = [shares(windows, rank, world, micro) for rank in range(world)]
        assert len({len(part) for part in parts}) == 1  # or processes would wait for one another
        total: dict[int, float] = {}
        for part in parts:
            for some, weights in part:
                assert 1 <= len(some) <= micro
                for window, weight in zip(some, weights, strict=True):
                    total[int(window)] = total.get(int(window), 0) + float(weight)
        assert total == pytest.approx(dict.fromkeys(windows.tolist(), 0.2))


def test_workers_read_the_same_windows(store: Store) -> None:
    windows = WindowSet(store, range(20), IMAGE, seed=1)
    schedule = Schedule(20, 8, 2, 1)
    runs = []
    for workers in (0, 2):
        steps = load(windows, schedule.plan(1, 0, 1, 3), workers=workers, pin=False)
        runs.append([torch.cat([batch.signal for batch in step]) for step in steps])
    assert [len(step) for step in runs[0]] == [7, 6, 7, 7, 6]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    recording, first, _ = windows.locate(TRAINING, 0, int(batches(20, 8, 1, 0)[1][0]))
    expected = store.series(recording)[first : first + 200].T
    np.testing.assert_array_equal(runs[0][0][0].numpy(), expected)


def test_only_the_training_ends_the_processes_that_read_for_it(store: Store) -> None:
    """Batch systems and terminals send a signal to all processes; the training answers it alone."""
    windows, schedule = WindowSet(store, range(20), IMAGE, seed=1), Schedule(20, 2, 2, 1)
    before = signal.getsignal(signal.SIGCHLD)
    steps = load(windows, schedule.plan(0, 0, 1, 2), workers=1, pin=False)
    next(steps)
    (reader,) = multiprocessing.active_children()
    # by another process than the training, as a batch system does
    for name in ("TERM", "INT"):
        subprocess.run(["kill", f"-{name}", str(reader.pid)], check=True)
    assert len(list(steps)) == 19
    reader.join(20)
    assert reader.exitcode == 0
    # torch would raise an error wherever the training is when one of them ends
    assert signal.getsignal(signal.SIGCHLD) == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_killed_process_that_reads_is_told_in_one_line(store: Store) -> None:
    windows, schedule = WindowSet(store, range(20), IMAGE, seed=1), Schedule(20, 2, 9, 1)
    steps = load(windows, schedule.plan(0, 0, 1, 2), workers=1, pin=False)
    next(steps)
    (reader,) = multiprocessing.active_children()
    assert reader.pid is not None
    os.kill(reader.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="a process that reads windows was killed"):
        list(steps)


def test_a_process_that_reads_ends_when_the_training_tells_it_to(store: Store) -> None:
    windows, schedule = WindowSet(store, range(20), IMAGE, seed=1), Schedule(20, 2, 9, 1)
    steps = load(windows, schedule.plan(0, 0, 1, 2), workers=1, pin=False)
    next(steps)
    (reader,) = multiprocessing.active_children()
    reader.terminate()
    reader.join(20)
    assert reader.exitcode == 0


# --- checkpoints and starting points -----------------------------------------------------------


@pytest.mark.parametrize("config", [SERIES, IMAGE], ids=["brainlm", "vitmae"])
def test_a_checkpoint_is_the_network(config: ModelConfig, tmp_path: Path) -> None:
    network = random_network(config, 7)
    saving.save_checkpoint(tmp_path / "best", network, {})
    loaded = load_model(tmp_path / "best", seed=0)
    assert loaded.config == config
    signal_, order = torch.randn(2, P, config.window), draw(config, config.window, (0, 0, 0, 0))[1]
    keep = torch.from_numpy(order[:40]).expand(2, -1)
    with torch.no_grad():
        xyz = torch.tensor(parcels().xyz).float()
        ours, theirs = (one.encode(signal_, xyz, keep) for one in (network, loaded.network))
    assert torch.equal(ours.latent, theirs.latent)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["brainlm_tiny", "vitmae_tiny_p16"])
def test_a_checkpoint_has_the_reference_s_layout(shared: Path, name: str, tmp_path: Path) -> None:
    """The same keys, shapes and config values as the original code writes."""
    from safetensors.torch import load_file

    golden = shared / "golden" / name
    model = load_model(golden, seed=0)
    saving.save_checkpoint(tmp_path, model.network, {})
    theirs, ours = (load_file(folder / "model.safetensors") for folder in (golden, tmp_path))
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items()
    }
    said = json.loads((golden / "config.json").read_text())
    written = json.loads((tmp_path / "config.json").read_text())
    differ = {key for key, value in written.items() if key in said and said[key] != value}
    assert not differ


def test_goes_on_from_a_checkpoint(store: Store, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert pretrain(parameters(store, first)) == 0
    given = parameters(store, second, epochs=1, learning_rate=1e-9)
    given = replace(given, config=None, start_from=str(first / "best"))
    assert pretrain(given) == 0
    (untrained,) = read_rows(first / "start.tsv")
    begun, control = read_rows(second / "start.tsv")
    assert [one["weights"] for one in (untrained, begun, control)] == [
        "untrained", "start", "untrained",
    ]  # fmt: skip
    assert float(begun["mse"]) == pytest.approx(column(first, "validation_mse").min(), rel=1e-6)
    assert control["mse"] == untrained["mse"] != begun["mse"]
    # With next to no learning rate it scores as the checkpoint did.
    losses = column(first, "validation_loss")
    assert column(second, "validation_loss")[0] == pytest.approx(losses.min(), rel=1e-5)
    assert np.ptp(losses) > 1e-3 * losses.min()
    made = json.loads((second / "config" / "run.json").read_text())
    assert made["StartedFrom"]["Sha256"] == load_model(first / "best", seed=0).sha256
    assert made["Network"]["mask_ratio"] == 0.5
    wrong = replace(given, run_dir=tmp_path / "third", size="tiny")
    with pytest.raises(UserError, match=r"another size: num_hidden_layers 1 \(not 2\)"):
        pretrain(wrong)


def test_the_licence_goes_with_the_weights(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adapted released weights, adapted once more: their licence still stands in the checkpoint."""
    released = tmp_path / "released"
    saving.save_checkpoint(released, random_network(SERIES, 7), {})
    (released / "README.md").write_text("---\nlicense: cc-by-nc-nd-4.0\n---\n")
    source = str(released)
    for name in ("once", "twice"):
        given = replace(parameters(store, tmp_path / name, epochs=1), config=None)
        assert pretrain(replace(given, start_from=source)) == 0
        assert "must not be shared" in capsys.readouterr().err
        source = str(tmp_path / name / "best")
        about = json.loads((Path(source) / "training.json").read_text())
        assert about["StartedFrom"]["Licence"].startswith("CC BY-NC-ND 4.0")
    assert pretrain(parameters(store, tmp_path / "own", epochs=1)) == 0
    assert "must not be shared" not in capsys.readouterr().err


def test_from_an_output_folder_to_embeddings(tmp_path: Path) -> None:
    """The series of OUT in, a checkpoint out that `brainlm-bids --model` takes."""
    from brainlm_bids.model.embedding import embed
    from brainlm_bids.resources import find_model

    written = output_folder(tmp_path / "out", 5)
    config = write_config(tmp_path / "config.json")
    given = PretrainOptions(
        tmp_path / "out", tmp_path / "run", config=config, epochs=1, device="cpu",
        baseline_windows=0,
    )  # fmt: skip
    assert pretrain(given) == 0
    rows = read_rows(tmp_path / "run" / "recordings.tsv")
    assert {row["recording"] for row in rows if row["used"] == "yes"} == set(written)
    assert [row["split"] for row in rows].count("train") == 3
    found = find_model(str(tmp_path / "run" / "best"))
    assert found is not None and found.path is not None and not found.random
    model = load_model(found.path, seed=0)
    series = next(iter(written.values()))
    vectors = embed(model, series, parcels().xyz, tr=0.735, seed=1).vectors
    assert vectors.shape == (11, 32) and np.isfinite(vectors).all()


def test_another_training_in_the_same_folder(store: Store, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    given = parameters(store, run_dir, epochs=1)
    assert pretrain(given) == 0
    before = (run_dir / "best" / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"learning_rate was 0\.005, is 0\.01"):
        pretrain(replace(given, learning_rate=0.01))
    with pytest.raises(UserError, match="hidden_size was 32, is 64"):
        other = replace(SERIES, hidden_size=64, decoder_hidden_size=64)
        pretrain(parameters(store, run_dir, other, epochs=1))
    assert (run_dir / "best" / "model.safetensors").read_bytes() == before
    # What only changes speed may differ, and a training that is done stays as it is.
    assert pretrain(replace(given, micro_batch=1, workers=1)) == 0
    assert (run_dir / "best" / "model.safetensors").read_bytes() == before


# --- what goes wrong ---------------------------------------------------------------------------


def test_a_full_disk_loses_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing fails in the second epoch: the first one's files are whole, and the run goes on."""
    run_dir = tmp_path / "run"
    given = parameters(store, run_dir)
    save, full = torch.save, []

    def fails(state: Any, stream: Any) -> None:
        save(state, stream)
        if state["step"] > 3:
            full.append(state["step"])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(UserError, match=r"No space left on device.*before is intact"):
        pretrain(given)
    assert full == [6]
    state = saving.load_state(run_dir / "state" / saving.STATE)
    assert state is not None and state["step"] == 3
    assert load_model(run_dir / "last", seed=0) and load_model(run_dir / "best", seed=0)
    assert not list(run_dir.rglob(".tmp-*"))
    monkeypatch.setattr(torch, "save", save)
    assert pretrain(given) == 0
    assert pretrain(parameters(store, tmp_path / "whole")) == 0
    np.testing.assert_array_equal(curves(run_dir)[1], curves(tmp_path / "whole")[1])


def test_weights_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving.save_checkpoint(tmp_path / "best", random_network(SERIES, 1), {})
    before = (tmp_path / "best" / "model.safetensors").read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        saving.save_checkpoint(tmp_path / "best", random_network(SERIES, 2), {})
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_the_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    rate = engine.learning_rate

    def explodes(step: int, *rest: Any) -> float:
        return 1e30 if step >= 4 else rate(step, *rest)

    monkeypatch.setattr(engine, "learning_rate", explodes)
    with pytest.raises(UserError, match=r"step 6 of 9: the loss is (nan|inf).*last good weights"):
        pretrain(parameters(store, run_dir))
    weights = load_model(run_dir / "last", seed=0).module.state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert len(column(run_dir, "epoch")) == 1


def test_a_damaged_state_is_said(store: Store, tmp_path: Path) -> None:
    given = parameters(store, tmp_path / "run", epochs=1)
    assert pretrain(given) == 0
    file = tmp_path / "run" / "state" / saving.STATE
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"state\.pt: damaged .*--from"):
        pretrain(given)


def test_one_training_at_a_time_in_a_folder(store: Store, tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    with pytest.raises(UserError, match="another process is training here"):
        pretrain(parameters(store, tmp_path, epochs=1))
    lock.release()


def test_a_batch_that_does_not_fit_is_halved() -> None:
    tried: list[int] = []

    def attempt(n: int) -> None:
        tried.append(n)
        if n > limit:
            raise torch.OutOfMemoryError

    limit = 9
    assert largest_batch(attempt, 64) == 8 and tried == [64, 32, 16, 8]
    limit = 0
    with pytest.raises(UserError, match=r"one window .* does not fit"):
        largest_batch(attempt, 4)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"config": None}, "give one of --size, --config and --from"),
        ({"size": "tiny"}, "give one of --size, --config and --from"),
        ({"config": None, "start_from": "random:tiny"}, "has no weights"),
        ({"mask_ratio": 0.999}, "hides 424 of 424 tokens"),
        ({"data": Path("/nowhere")}, "no such folder"),
        ({"config": None, "start_from": "/nowhere"}, "--from /nowhere: neither a folder nor"),
    ],
)
def test_arguments_that_contradict(
    store: Store, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        pretrain(replace(parameters(store, tmp_path / "run"), **more))


# --- what is written ---------------------------------------------------------------------------


def test_curves_for_people_and_for_tensorboard(store: Store, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    config = write_config(tmp_path / "config.json")
    words = ["pretrain", str(store.folder), str(run_dir), "--config", str(config), "--epochs", "2",
             "--batch", "6", "--baseline-windows", "0", "--device", "cpu"]  # fmt: skip
    assert tools.main(words) == 0
    losses = scalars(run_dir, "step/loss")
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 6]
    values = np.array([value for _, value in losses]).reshape(2, 3)
    np.testing.assert_allclose(values.mean(axis=1), column(run_dir, "train_loss"), rtol=1e-6)
    validation = scalars(run_dir, "epoch/validation_loss")
    assert [step for step, _ in validation] == [3, 6]
    np.testing.assert_allclose(
        [value for _, value in validation], column(run_dir, "validation_loss"), rtol=1e-6
    )
    assert (run_dir / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert (run_dir / "figures" / "group_desc-curves_pretrain.svg").is_file()
    assert "brainlm pretrain" in (run_dir / "pretrain.html").read_text()
    # as after a kill behind the last step, whose state is there
    late = (engine.TESTED, "curves.png", "figures/group_desc-curves_pretrain.svg")
    whole = {name: (run_dir / name).read_bytes() for name in late}
    trained = load_model(run_dir / "last", seed=0).sha256
    for name in late:
        (run_dir / name).unlink()
    shutil.rmtree(run_dir / "last")
    assert tools.main(words) == 0
    assert {name: (run_dir / name).read_bytes() for name in late} == whole
    assert load_model(run_dir / "last", seed=0).sha256 == trained
    made = json.loads((run_dir / "config" / "run.json").read_text())
    assert made["Parameters"]["seed"] == 42
    # 5e-3, the released checkpoint's at 256 windows, for the 16/3 that a step has here
    assert made["Parameters"]["learning_rate"] == pytest.approx(5e-3 * 16 / 3 / 256)
    assert made["Store"]["Sha256"] == store.sha256
