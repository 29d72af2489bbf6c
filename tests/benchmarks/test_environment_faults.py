"""Full and read-only disks: the harness calls a fault what is one; the cheap rows hold."""

from pathlib import Path

import pytest

from benchmarks.faults import page, private
from benchmarks.faults.__main__ import chosen, try_fault
from benchmarks.faults.calls import Call, Outcome, judged
from benchmarks.faults.fault import Fault, NotTried, Result


def test_a_cache_on_a_full_disk() -> None:
    (fault,) = chosen(["disks/full-cache"])
    result = try_fault(fault, 1.0)
    assert result.good, result.worst.told
    if not result.trials:
        pytest.skip(result.why_not)


@pytest.mark.parametrize("name", ["no-locks", "stale", "silly"])
def test_no_change_is_lost_on_a_network_file_system(name: str) -> None:
    (fault,) = chosen([f"filesystems/{name}"])
    result = try_fault(fault, 1.0)
    assert result.good, result.worst.told


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome(1, "out/a.tsv: No space left", 1.0), ""),
        (Outcome(0, "out/a.tsv: No space left", 1.0), "exit code 0, not 1"),
        (Outcome(1, "failed", 1.0), "nothing says 'No space left'"),
        (Outcome(1, "Traceback (most recent call last)\nNo space left", 1.0), "a traceback"),
        (Outcome(1, "No space left; please report it", 1.0), "an internal error"),
    ],
)
def test_the_judge_of_calls(tmp_path: Path, outcome: Outcome, fault: str) -> None:
    faults = judged(outcome, 1, "No space left", Call(tmp_path))
    assert bool(faults) is bool(fault) and "".join(faults).startswith(fault)
    (tmp_path / "out" / "logs").mkdir(parents=True)
    (tmp_path / "out" / "logs" / ".tmp-x-a.tsv").touch()
    assert ".tmp-x-a.tsv was left" in judged(outcome, 1, "No space left", Call(tmp_path))


def test_a_call_that_hangs_is_a_fault(tmp_path: Path) -> None:
    from benchmarks.faults.calls import run

    outcome = run(["sleep", "60"], {}, patience=0.2)
    assert outcome.code == -1 and "hangs" in outcome.text


def test_what_cannot_be_made_here_is_no_failure() -> None:
    def tried(folder: Path, seconds: float) -> list[object]:
        raise NotTried("no compiler")

    fault = Fault("a/b", "about", "least", tried)  # type: ignore[arg-type]
    result = try_fault(fault, 1.0)
    assert result.good and result.measured == "not tried: no compiler"
    assert "not tried: no compiler" in page.markdown([result])
    assert page.tsv([result]).splitlines()[1].split("\t")[1:3] == ["0", "0"]
    assert not Result(fault, (), 0.0).good


def test_mounts_are_seen_by_the_child_alone(tmp_path: Path) -> None:
    from benchmarks.faults.fault import Trial

    def tried() -> list[Trial]:
        private.small_disk(tmp_path, 64)
        (tmp_path / "a").touch()
        try:
            (tmp_path / "b").write_bytes(bytes(1 << 20))
        except OSError as error:
            return [Trial("No space" in str(error), str(error), 0.0)]
        return []

    try:
        (trial,) = private.in_private(tried)
    except NotTried as reason:
        pytest.skip(str(reason))
    assert trial.held and not list(tmp_path.iterdir())
