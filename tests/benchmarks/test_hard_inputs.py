"""Hard inputs that need no volume are run; the harness calls wrong what is wrong."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hard import page
from benchmarks.hard.batches import BATCHES
from benchmarks.hard.call import Call
from benchmarks.hard.case import REFUSED, RIGHT, WARNED, Case, Result, Verdict
from benchmarks.hard.judge import correlation, is_about, judge_call, judge_recording
from benchmarks.hard_inputs import chosen, run

# A few of each kind that are quick: planning, refusals, and four series that are computed.
QUICK = (
    *(
        "series/bom",
        "series/few",
        "series/naColumn",
        "series/twice",
        "series/empty",
        "series/tr735",
    ),
    *("series, data set/noDescription", "series, data set/bomDescription"),
    *("command line/hz", "command line/memMB", "command line/flag", "command line/tr735"),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    wanted: dict[str, tuple] = {}
    for name in QUICK:
        for batch, cases in chosen(name):
            same = [case for case in cases if f"{batch.name}/{case.name}" == name]
            wanted.setdefault(batch.name, (batch, []))[1].extend(same)
    found = run(list(wanted.values()), tmp_path_factory.mktemp("hard"), workers=1)
    return [result for _, batch in found.values() for result in batch]


def test_quick_inputs_are_right_warned_or_refused(results: list[Result]) -> None:
    assert len(results) == len(QUICK)
    wrong = [f"{one.case.name}: {one.why}; {one.told}" for one in results if one.why]
    assert not wrong, "\n".join(wrong)
    assert {result.verdict for result in results} >= {RIGHT, REFUSED}
    naked = [one.told for one in results if "/tmp/" in one.told or "brainlm-bids: " in one.told]
    assert not naked


def test_the_page_lists_every_input(results: list[Result]) -> None:
    text = page.markdown({"series": ("About.", results)})
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == len(results) + 1
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)


def test_the_documentation_has_a_row_for_every_input() -> None:
    """Written by `python -m benchmarks.hard_inputs --page docs/difficult-data.md`."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "difficult-data.md").read_text()
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and "| verdict |" not in line
    ]
    assert len(rows) == sum(len(batch.cases) for batch in BATCHES)
    assert not [row for row in rows if Verdict.WRONG in row]


def test_there_are_inputs_of_every_kind() -> None:
    names = Counter(f"{batch.name}/{case.name}" for batch in BATCHES for case in batch.cases)
    assert len(names) >= 60 and max(names.values()) == 1
    routes = {batch.name.partition(",")[0] for batch in BATCHES}
    assert {"raw", "fMRIPrep", "series", "people", "command line"} <= routes


# --- the judge -------------------------------------------------------------------------------

ANY = Case("x", "about", (RIGHT, WARNED, REFUSED))


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (Result(ANY, "done", r=0.999), RIGHT),
        (Result(ANY, "done", r=0.98), Verdict.WRONG),
        (Result(ANY, "done", r=float("nan")), Verdict.WRONG),
        (Result(ANY, "done", warnings=["w"], r=0.5), WARNED),
        (Result(ANY, "failed", told="because"), REFUSED),
        (Result(ANY, "failed"), Verdict.WRONG),
        (Result(ANY, "done", r=1.0, fault="a traceback"), Verdict.WRONG),
        (Result(Case("x", "", (RIGHT,)), "failed", told="because"), Verdict.WRONG),
        (Result(Case("x", "", (REFUSED,), says="mask"), "failed", told="why"), Verdict.WRONG),
        (Result(Case("x", "", (REFUSED,), says="a|why"), "failed", told="Why"), REFUSED),
        (Result(Case("x", "", (WARNED,), least_r=0.9), "done", "", ["w"], 0.8), Verdict.WRONG),
        (Result(Case("x", "", (WARNED,), least_r=0.9), "done", "", ["w"], 0.95), WARNED),
    ],
)
def test_verdicts(result: Result, verdict: Verdict) -> None:
    assert result.verdict is verdict
    assert bool(result.why) == (verdict is Verdict.WRONG)


def test_what_must_never_happen_is_a_fault(tmp_path: Path) -> None:
    lost = judge_recording(ANY, Call(0, "", "", ()), tmp_path)
    assert "nothing is said" in lost.why
    row = {"source": "sub-01_task-x_bold.nii.gz", "status": "failed", "reason": "KeyError: 'x'"}
    assert "Python error" in judge_recording(ANY, Call(1, "", "", (row,)), tmp_path).why
    for done in (Call(70, "", "internal"), Call(1, "", "Traceback (most recent call last)")):
        assert judge_call(ANY, done, tmp_path).verdict is Verdict.WRONG
    refused = judge_call(ANY, Call(2, "", "usage: x\nbrainlm-bids: error: no such flag"), tmp_path)
    assert refused.verdict is REFUSED and refused.told == "no such flag"


def test_names_and_correlations() -> None:
    assert is_about("sub-01_task-rest_eyesopen_bold.nii.gz", "rest_eyesopen")
    assert not is_about("sub-01_task-t1empty_bold.nii.gz", "empty")
    rng = np.random.default_rng(0)
    benign = rng.normal(size=(40, 6))
    own = benign.copy()
    own[30:] = 0
    own[:, 5] = np.nan
    assert correlation(own, benign, tuple(range(30))) == pytest.approx(1)
    assert correlation(own, benign) < 0.99
    assert correlation(rng.normal(size=(40, 6)), benign) < 0.5
    assert correlation(np.full((40, 6), 3.0), benign) == 0
