"""The generator of a large cohort: derivatives that the program reads, with a truth to be found."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.group_level import Probe, table
from benchmarks.many_recordings import MODEL, VOLUMES, write_cohort
from brainlm_bids import resources
from brainlm_bids.bids.cohort import all_recordings
from brainlm_bids.bids.outputs import SERIES_STAGE, changed, model_stage, read_record
from brainlm_bids.bids.recordings import INCLUDED, Recording
from brainlm_bids.cohort.decoding import decode
from brainlm_bids.files import read_matrix, read_rows, read_tsv
from brainlm_bids.parcels.connectivity import fisher_z

RECORDINGS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    write_cohort(folder, RECORDINGS, variants=2, seed=3)
    return folder


@pytest.fixture(scope="module")
def recordings(folder: Path) -> list[Recording]:
    return all_recordings(folder / "out")


def test_every_recording_is_complete_and_readable(
    folder: Path, recordings: list[Recording]
) -> None:
    assert [one.status for one in recordings] == [INCLUDED] * RECORDINGS
    for one in recordings:
        for stage in (SERIES_STAGE, model_stage(MODEL)):
            record = read_record(folder / "out", one.stem, stage)
            assert record is not None
            assert changed(folder / "out", record[1]) is None
            assert all(one.participant in name for name in record[1])
    series = [one.read(resources.parcels().names) for one in recordings]
    assert {values.shape for values in series} == {(VOLUMES, 424)}
    assert len({values.tobytes() for values in series}) == RECORDINGS


def test_the_planted_truth_is_found_and_shuffled_ages_are_not(
    folder: Path, recordings: list[Recording]
) -> None:
    people = {row["participant_id"]: row for row in read_rows(folder / "bids" / "participants.tsv")}
    owners = [one.participant for one in recordings]
    age, noise = (
        np.array([float(people[name][column]) for name in owners]) for column in ("age", "noise")
    )
    features = np.stack(
        [fisher_z(read_matrix(one.naming.existing("pearson"))[1]) for one in recordings]
    )
    # of two variants, which know age by halves
    assert decode(features, age, owners).scores["r2"].value > 0.6
    assert decode(features, noise, owners).scores["r2"].value < 0.1
    path = [one.naming.path("recording_embedding", model=MODEL) for one in recordings]
    first = np.array([values[0, names.index("cls_0000")] for names, values in map(read_tsv, path)])
    assert np.corrcoef(first, age)[0, 1] > 0.4


def test_a_stage_within_another_counts_for_itself_alone(tmp_path: Path) -> None:
    probe = Probe(tmp_path / "stages.json")
    with probe.stage("outer"):
        for _ in range(2):
            with probe.stage("inner"):
                sum(range(2_000_000))
    assert probe.seconds["inner"] > 10 * probe.seconds["outer"] >= 0
    assert probe.memory_mb["outer"] >= probe.memory_mb["inner"] > 0


def test_the_table_has_a_column_for_each_size() -> None:
    one = {"code": 0, "reading": 0.5, "stages": {"report": [1.0, 200.0]}}
    lines = table({100: {"first": one, "second": one}, 1000: {"first": one, "second": one}})
    assert lines.splitlines()[0] == "| | 100 | 1,000 |"
    assert "| report | 1.0 s, 200 MB | 1.0 s, 200 MB |" in lines
    assert "| 50% | 50% |" in lines
