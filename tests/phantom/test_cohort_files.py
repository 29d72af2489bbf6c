"""The files of a simulated cohort: what the participant level would have left, and raw tables."""

from pathlib import Path

import numpy as np
import pytest

from brainlm_bids import files
from brainlm_bids.bids.cohort import all_recordings
from brainlm_bids.bids.participants import read_variables
from brainlm_bids.commands import brainlm
from brainlm_bids.experiments.recordings import ExperimentOptions, find_items, read_scaled
from brainlm_bids.parcels.scaling import recording_stats, scale
from brainlm_bids.phantom.cohort import CohortOptions, draw_people, record
from brainlm_bids.phantom.cohort_files import DUMMIES
from brainlm_bids.resources import parcels
from brainlm_bids.training.recordings import find_series, read_all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("cohort") / "raw"
    flags = "--subjects 3 --sessions 2 --seconds 60 --trs 0.735 2 --sites 2 --states 2 --seed 5"
    assert brainlm.main(["simulate-cohort", str(raw), *flags.split()]) == 0
    return raw


OPTIONS = CohortOptions(
    subjects=3, sessions=2, seconds=60, trs=(0.735, 2.0), sites=2, states=2, seed=5
)


def test_the_group_level_finds_every_recording_whole(folder: Path) -> None:
    found = all_recordings(folder / "derivatives" / "brainlm-bids")
    assert [one.stem for one in found] == [
        f"sub-{k:02d}_ses-{s}_task-blocks" for k in (1, 2, 3) for s in (1, 2)
    ]
    people = draw_people(OPTIONS)
    for one in found:
        assert one.status == "included" and one.warnings == ["simulated"] and one.coverage == 1
        truth = record(OPTIONS, people, int(one.entities["sub"]), int(one.entities["ses"]))
        assert one.sidecar["RepetitionTime"] == truth.tr
        assert one.mean_fd == pytest.approx(truth.displacement[1:].mean())
        _, values = files.read_tsv(one.path)
        assert np.isnan(values[:DUMMIES]).all()
        assert values[DUMMIES:] == pytest.approx(truth.series, rel=1e-6)
        _, matrix = files.read_matrix(one.naming.path("pearson"))
        assert matrix == pytest.approx(np.corrcoef(truth.series.T), abs=1e-5)


def test_training_and_experiments_read_the_scaled_series(folder: Path) -> None:
    out = folder / "derivatives" / "brainlm-bids"
    examples = list(read_all(find_series(out)))
    assert len(examples) == 6 and all(one.series is not None for one in examples)
    for one in examples:
        assert one.series is not None
        assert np.median(one.series, axis=0) == pytest.approx(0, abs=1e-5)
        low, high = np.percentile(one.series, [25, 75], axis=0)
        assert high - low == pytest.approx(1, abs=1e-4)
    options = ExperimentOptions(input=out, results=folder / "results")
    scaled = [read_scaled(one, options) for one in find_items(options)]
    assert {one.tr for one in scaled} == {0.735}
    assert {one.start for one in scaled} == {2 * 0.735, 2 * 2.0}
    # one of a recording at the model's rate: nothing but scaled
    at_rate = next(k for k, one in enumerate(scaled) if one.start == 2 * 0.735)
    truth = record(OPTIONS, draw_people(OPTIONS), at_rate // 2 + 1, at_rate % 2 + 1).series
    expected = scale(truth, recording_stats(truth))[0]
    assert scaled[at_rate].series == pytest.approx(expected, abs=2e-4)


def test_tables_of_people_and_events_are_those_of_the_simulation(folder: Path) -> None:
    people = draw_people(OPTIONS)
    stems = [f"sub-{k:02d}_ses-1_task-blocks" for k in (1, 2, 3)]
    table = read_variables(folder, None, stems)
    assert not table.notices
    assert [float(value) for value in table.columns["age"]] == people.age.tolist()
    assert table.columns["site"] == [f"site{k + 1}" for k in people.site]
    truth = record(OPTIONS, people, 1, 2)
    rows = files.read_rows(
        folder / "sub-01" / "ses-2" / "func" / f"{stems[0]}_events.tsv".replace("ses-1", "ses-2")
    )
    assert [row["trial_type"] for row in rows] == [one.trial_type for one in truth.events]
    # of the first volume of the run, which comes before the steady state
    onsets = [float(row["onset"]) for row in rows]
    assert onsets == pytest.approx([one.onset + DUMMIES * truth.tr for one in truth.events])


def test_a_folder_with_files_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert brainlm.main(["simulate-cohort", str(folder)]) == 1
    assert capsys.readouterr().err == (
        f"brainlm: {folder}: is not an empty folder; name a new one for the cohort\n"
    )


def test_the_columns_of_the_atlas_are_the_parcels(folder: Path) -> None:
    out = folder / "derivatives" / "brainlm-bids"
    table = next(out.glob("tpl-*/*_dseg.tsv"))
    assert [row["name"] for row in files.read_rows(table)] == list(parcels().names)
