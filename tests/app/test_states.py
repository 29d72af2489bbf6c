"""States of a simulated cohort through the group level: events in, tables and a report out."""

from pathlib import Path

import pytest

from brainlm_bids import files
from brainlm_bids.commands import bids_app, brainlm

TABLE = "group_*_model-randomtiny_scaling-cohort_desc-states_decoding.tsv"
# one mask ratio: reconstructions tell nothing about states
COMMON = "--model random:tiny --mask-ratio 0.5 --atlas A424approx --template MNI152NLin2009aSym"
COMMON += " --offline"


def group(raw: Path, *flags: str) -> int:
    out = raw / "derivatives" / "brainlm-bids"
    work = ["-w", str(raw.parent / "work"), "--nprocs", "1", "--device", "cpu"]
    return bids_app.main([str(raw), str(out), "group", *COMMON.split(), *work, *flags])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("states") / "raw"
    flags = "--subjects 4 --seconds 300 --states 2 --state-effect 2 --seed 3"
    assert brainlm.main(["simulate-cohort", str(raw), *flags.split()]) == 0
    assert group(raw, "--decode-states", "--readouts", "linear", "--permutations", "99") == 0
    return raw


def scores(raw: Path) -> dict[tuple[str, str, str], float]:
    out = raw / "derivatives" / "brainlm-bids"
    rows = files.read_rows(next(out.glob(TABLE)))
    return {
        (row["features"], row["readout"], row["scaling"]): float(row["value"])
        for row in rows
        if row["metric"] == "balanced_accuracy"
    }


def test_planted_states_are_found_in_people_who_were_left_out(cohort: Path) -> None:
    found = scores(cohort)
    assert found["series", "linear", "recording"] > 0.9
    # blocks of one length that come in turns: neither tells the state
    assert found["coordinates", "linear", "n/a"] == pytest.approx(0.5)
    out = cohort / "derivatives" / "brainlm-bids"
    table = next(out.glob(TABLE))
    sidecar = files.read_json(table.with_suffix(".json"))
    assert sidecar["LeftOutTogether"] == "participants"
    assert sidecar["HaemodynamicDelay"] == 5.0
    assert set(sidecar["BlocksPerState"].values()) == {sum(sidecar["BlocksPerState"].values()) // 2}


def test_confusion_counts_every_block_once(cohort: Path) -> None:
    out = cohort / "derivatives" / "brainlm-bids"
    rows = files.read_rows(next(out.glob("group_*_desc-states_confusion.tsv")))
    blocks = files.read_rows(next(out.glob(TABLE)))[0]["n_blocks"]
    of_one = [row for row in rows if (row["features"], row["scaling"]) == ("connectivity", "n/a")]
    assert sum(int(row["n_blocks"]) for row in of_one) == int(blocks)
    assert len(of_one) == 4


def test_the_report_shows_them(cohort: Path) -> None:
    page = (cohort / "derivatives" / "brainlm-bids" / "group.html").read_text()
    assert "mean activity of the parcels" in page
    assert "folds of whole participants" in page
    assert "No states were decoded" not in page
    assert "p values come from states that were shuffled within recordings" in page


def test_a_column_that_is_not_there_is_a_line_and_the_rest_goes_on(
    cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert group(cohort, "--decode-states", "condition", "--readouts", "linear") == 0
    said = capsys.readouterr()
    assert "has no column condition; it has onset, duration, trial_type" in said.out + said.err
