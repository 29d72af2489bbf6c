"""The store of training, the split by subject, and how an output folder becomes both."""

from pathlib import Path

import numpy as np
import pytest
from simulated_cohort import SPACE
from small_models import P
from small_stores import low_rank, output_folder, small_store

from brainlm_bids import files
from brainlm_bids.bids import outputs
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.errors import UserError
from brainlm_bids.model.config import ARCHITECTURES
from brainlm_bids.resources import parcels
from brainlm_bids.training import store as stores
from brainlm_bids.training.recordings import Example, find_series
from brainlm_bids.training.setup import PretrainOptions, divide
from brainlm_bids.training.split import read_split, split_subjects
from brainlm_bids.training.store import find_or_build, open_store, verify, write_store

# --- the store -----------------------------------------------------------------------------------


def test_a_store_gives_back_what_was_stored(tmp_path: Path) -> None:
    recordings = [*low_rank(3, 30), ("short", "sub-9", np.ones((5, P), np.float32))]
    bad = Example("bad", "sub-8", None, "holds NaN")
    store = write_store(tmp_path / "store", [*recordings[:2], bad, *recordings[2:]])
    assert [one.name for one in store.recordings] == [
        *(name for name, _, _ in recordings[:2]),
        "bad",
        *(name for name, _, _ in recordings[2:]),
    ]
    for index, (name, subject, series) in zip((0, 1, 3, 4), recordings, strict=True):
        one = store.recordings[index]
        assert (one.name, one.subject, one.n_volumes) == (name, subject, len(series))
        np.testing.assert_array_equal(store.series(index), series)
    assert store.recordings[2].reason == "holds NaN" and store.recordings[2].n_volumes == 0
    verify(store)
    again = write_store(tmp_path / "again", [*recordings[:2], bad, *recordings[2:]])
    assert again.sha256 == store.sha256
    other = [(name, subject, series + 1e-6) for name, subject, series in recordings]
    assert write_store(tmp_path / "store", other).sha256 != store.sha256
    assert {path.name for path in tmp_path.iterdir()} == {"store", "again"}


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (("b", "sub-2", np.full((30, P), np.nan)), "b: has missing or infinite values in 424"),
        (("b", "sub-2", np.zeros((30, P))), "b: is zero throughout"),
        (("b", "sub-2", np.ones((30, 7))), "b: has 7 parcels, the recordings before it 424"),
        (("sub-00_task-rest_run-1", "sub-2", np.ones((30, P))), "two recordings have this name"),
    ],
)
def test_what_no_store_holds(item: tuple[str, str, np.ndarray], said: str, tmp_path: Path) -> None:
    before = small_store(tmp_path / "store", 2)
    with pytest.raises(UserError, match=said):
        write_store(tmp_path / "store", [*low_rank(1, 30), item])
    verify(open_store(tmp_path / "store"))
    assert open_store(tmp_path / "store").sha256 == before.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_one_corrupt_recording_is_named(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", 4)
    with (store.folder / "series.f32").open("r+b") as stream:
        stream.seek(4 * P * (store.recordings[2].first_volume + 7))
        stream.write(b"\x01")
    with pytest.raises(UserError, match=r"sub-02_task-rest_run-1: changed after writing \(sha256"):
        find_or_build(store.folder, tmp_path)


@pytest.mark.parametrize(
    ("file", "said"),
    [("series.f32", "cut short"), ("recordings.tsv", "incomplete"), ("store.json", "incomplete")],
)
def test_a_store_that_was_cut_short(file: str, said: str, tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", 2)
    path = store.folder / file
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=said):
        open_store(store.folder)


def test_a_table_that_was_edited(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", 2)
    path = store.folder / "recordings.tsv"
    path.write_text(path.read_text().replace("sub-01", "sub-00"))
    with pytest.raises(UserError, match="was changed after it was written"):
        open_store(store.folder)


# --- from an output folder ---------------------------------------------------------------------


def test_an_output_folder_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    written = output_folder(out)
    store = find_or_build(out, tmp_path / "run")
    assert store.folder == out / "training_store" / "desc-robust"
    assert {one.name for one in store.recordings} == set(written)
    for index, one in enumerate(store.recordings):
        np.testing.assert_array_equal(store.series(index), written[one.name])
        assert one.subject == one.name.split("_")[0]
    assert "training_store" in (out / ".bidsignore").read_text().splitlines()

    monkeypatch.setattr(stores, "read_all", lambda sources: pytest.fail("read again"))
    assert find_or_build(out, tmp_path / "run").sha256 == store.sha256
    monkeypatch.undo()
    name = next(iter(written))
    naming = Naming(str(out), name, SPACE, "A424approx")
    changed = written[name] + 1
    path = files.write_series(naming.path("robust"), parcels().names, changed)
    outputs.write_record(out, name, "series", "made-again", [path])
    again = find_or_build(out, tmp_path / "run")
    assert again.sha256 != store.sha256
    np.testing.assert_allclose(again.series(0), changed, rtol=1e-6)


def test_recordings_that_cannot_be_used_have_a_reason(tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = list(output_folder(out, 6))
    paths = [Naming(str(out), name, SPACE, "A424approx").path("robust") for name in names]
    outputs.record_path(out, names[0], "series").unlink()  # never finished
    paths[1].write_bytes(paths[1].read_bytes()[:-3000])  # cut short after it was written
    text = paths[2].read_text().splitlines()
    cells = text[5].split("\t")
    text[5] = "\t".join(["n/a", *cells[1:]])
    paths[2].write_text("\n".join(text) + "\n")  # a missing value, with a record that knows it
    outputs.write_record(out, names[2], "series", "made", [paths[2]])
    store = find_or_build(out, tmp_path / "run")
    reasons = [one.reason for one in store.recordings]
    assert "not finished" in reasons[0] and "not as it was written" in reasons[1]
    assert "missing or infinite values in 1 parcels" in reasons[2]
    assert reasons[3:] == ["", "", ""]


def test_which_series_of_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="holds no series"):
        find_series(out)
    names = list(output_folder(out, 1))
    with pytest.raises(UserError, match="after the level group"):
        find_series(out, series="robustcohort")
    other = Naming(str(out), names[0], "MNI152NLin6Asym", "A424").path("robust")
    other.write_text("x\n")
    with pytest.raises(UserError, match="--space MNI152NLin6Asym --atlas A424"):
        find_series(out)
    (found,) = find_series(out, space=SPACE)
    assert found.stem == names[0] and not found.reason


# --- the split ---------------------------------------------------------------------------------


def test_split_by_subject() -> None:
    names = [f"sub-{k:03d}" for k in range(100)]
    split = split_subjects(names, 42)
    counts = {part: list(split.values()).count(part) for part in ("train", "validation", "test")}
    assert counts == {"train": 80, "validation": 10, "test": 10}
    # neither the order nor the number of recordings of a subject matters
    assert split_subjects([*reversed(names), *names[:7]], 42) == split
    other = split_subjects(names, 43)
    assert {name for name in names if other[name] == "test"} != {
        name for name in names if split[name] == "test"
    }
    few = split_subjects(["sub-1", "sub-2", "sub-3"], 1)
    assert sorted(few.values()) == ["test", "train", "validation"]
    with pytest.raises(UserError, match=r"2 subjects .* at least three"):
        split_subjects(["sub-1", "sub-2", "sub-1"], 1)


def test_recordings_are_divided_by_subject(tmp_path: Path) -> None:
    """Runs of a subject stay together; what is too short is left out with a row."""
    recordings = list(low_rank(10, runs=3))
    recordings[4] = (recordings[4][0], recordings[4][1], recordings[4][2][:199])
    store = write_store(tmp_path / "store", recordings)
    given = PretrainOptions(store.folder, tmp_path / "run")
    data = divide(store, ARCHITECTURES["tiny"], given)
    parts = {part: {store.recordings[k].subject for k in some} for part, some in data.parts.items()}
    assert not parts["train"] & parts["validation"] and not parts["train"] & parts["test"]
    assert not parts["validation"] & parts["test"]
    assert sum(map(len, data.parts.values())) == 29
    assert [len(parts[part]) for part in ("train", "validation", "test")] == [8, 1, 1]
    row = data.table[4]
    assert row[0] == recordings[4][0] and row[4:] == ("no", "has 199 volumes; a window has 200")
    small = write_store(tmp_path / "small", [one for one in recordings if one[1] < "sub-02"])
    with pytest.raises(UserError, match="2 subjects"):
        divide(small, ARCHITECTURES["tiny"], given)
    narrow = write_store(tmp_path / "narrow", [(n, s, x[:, :10]) for n, s, x in recordings])
    with pytest.raises(UserError, match="has 10 parcels"):
        divide(narrow, ARCHITECTURES["tiny"], given)


def test_a_split_of_one_s_own(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", 4)
    file = tmp_path / "split.tsv"
    file.write_text("participant_id\tsplit\n00\tvalidation\nsub-01\ttrain\nsub-02\ttrain\n")
    data = divide(store, ARCHITECTURES["tiny"], PretrainOptions(store.folder, tmp_path, split=file))
    assert data.parts == {"train": (1, 2), "validation": (0,), "test": ()}
    assert "participant is not in" in data.table[3][5]
    for text, said in (
        ("participant_id\tpart\n1\ttrain\n", "no column split"),
        ("participant_id\tsplit\n1\ttraining\n", "split is 'training'"),
        ("participant_id\tsplit\n1\ttrain\nsub-1\ttest\n", "two rows"),
        ("participant_id\tsplit\n1\ttrain\n", "no participant is in validation"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            read_split(file)
