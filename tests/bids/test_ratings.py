"""Ratings by people: read as the pages write them, and obeyed by the group level."""

from pathlib import Path

import pytest

from brainlm_bids.bids.cohort import _judged
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.ratings import Rating, Verdict, read_ratings
from brainlm_bids.bids.recordings import EXCLUDED, INCLUDED, Recording
from brainlm_bids.errors import UserError
from brainlm_bids.notices import Kind, notice, to_json
from brainlm_bids.settings import Settings

HEADER = "recording\trating\treasons\tnote\trater\trated\n"


def _table(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "ratings.tsv"
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


def test_a_table_of_the_pages_is_read(tmp_path: Path) -> None:
    ratings = read_ratings(
        _table(
            tmp_path,
            "sub-01_task-rest\tpass\tn/a\tn/a\tAB\t2026-11-30T10:00:00Z",
            "sub-02_task-rest\tFail\tmotion, registration\tmoved at the end\tAB\t2026-11-30",
            "sub-03_task-rest\tn/a\tn/a\tlook again\tAB\tn/a",
        )
    )
    assert ratings.of_recording("sub-01_task-rest") == Rating(Verdict.PASS)
    failed = ratings.of_recording("sub-02_task-rest")
    assert str(failed) == "rated fail (motion, registration; moved at the end)"
    assert ratings.of_recording("sub-03_task-rest") is None, "a note is no rating"


def test_two_columns_and_names_of_files_are_enough(tmp_path: Path) -> None:
    row = "sub-01/func/sub-01_task-rest_bold.nii.gz\tdoubtful"
    ratings = read_ratings(_table(tmp_path, row, header="recording\trating\n"))
    assert ratings.of == {"sub-01_task-rest": Rating(Verdict.DOUBTFUL)}


def test_the_last_word_of_each_and_the_strictest_of_all(tmp_path: Path) -> None:
    name = "sub-01_task-rest"
    later = f"{name}\tpass\tn/a\tn/a\tAB\t2026-11-30T12:00:00Z"
    earlier = f"{name}\tfail\tn/a\tn/a\tAB\t2026-11-30T10:00:00Z"
    other = f"{name}\tdoubtful\tn/a\tn/a\tCD\t2026-11-29T10:00:00Z"
    assert read_ratings(_table(tmp_path, later, earlier)).of[name].verdict == Verdict.PASS
    assert read_ratings(_table(tmp_path, later, other)).of[name].verdict == Verdict.DOUBTFUL
    assert read_ratings(_table(tmp_path, other, earlier)).of[name].verdict == Verdict.FAIL


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (HEADER, "sub-01_task-rest\tgood\t\t\t\t", "line 2.*'good'.*pass, doubtful, fail"),
        (HEADER, "n/a\tpass\t\t\t\t", "line 2: a rating without the name"),
        ("participant_id\tage\n", "sub-01\t3", "no column recording or rating"),
    ],
)
def test_what_is_no_table_of_ratings_says_so(
    tmp_path: Path, header: str, row: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_ratings(_table(tmp_path, row, header=header))


def test_recordings_of_another_data_set_are_told(tmp_path: Path) -> None:
    ratings = read_ratings(
        _table(tmp_path, "sub-01_task-rest\tpass\t\t\t\t", "sub-9\tfail\t\t\t\t")
    )
    (warning,) = ratings.unmatched(["sub-01_task-rest"])
    assert warning.kind == Kind.RATINGS_UNMATCHED and "1 of 2" in warning.text
    assert not ratings.unmatched(["sub-01_task-rest", "sub-9"])


@pytest.mark.parametrize(
    ("verdict", "suspect", "status"),
    [
        (Verdict.FAIL, False, EXCLUDED),
        (Verdict.DOUBTFUL, False, INCLUDED),
        (Verdict.DOUBTFUL, True, EXCLUDED),
        (Verdict.PASS, True, INCLUDED),
        (None, True, EXCLUDED),
    ],
)
def test_the_group_level_obeys(
    tmp_path: Path, verdict: Verdict | None, suspect: bool, status: str
) -> None:
    """A person who has seen a recording is right: also about a registration that looks wrong."""
    warnings = [notice(Kind.SUSPECT_REGISTRATION, "The registration looks wrong.")] * suspect
    recording = Recording(
        Naming(str(tmp_path), "sub-01_task-rest", "MNI152NLin6Asym", "A424"),
        tmp_path / "series.tsv",
        sidecar={"Warnings": to_json(warnings)},
        coverage=1.0,
        rating=None if verdict is None else Rating(verdict, "motion"),
    )
    judged = _judged(recording, Settings(tmp_path, tmp_path))
    assert judged.status == status
    if verdict == Verdict.FAIL:
        assert judged.reason == "rated fail (motion) (--ratings)"
