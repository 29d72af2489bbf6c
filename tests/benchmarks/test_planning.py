"""The synthetic data sets that planning is measured with."""

from pathlib import Path

from benchmarks.planning import write_data_set
from brainlm_bids.bids.inputs import find_runs
from brainlm_bids.settings import Settings


def test_every_run_of_a_synthetic_data_set_can_be_planned(tmp_path: Path) -> None:
    root = write_data_set(tmp_path / "bids", subjects=3, sessions=2)
    assert sum(path.is_file() for path in root.rglob("*")) == 3 * 13 + 1
    runs = find_runs(Settings(root, tmp_path / "out", tmp_path / "work"))
    assert len(runs) == 6
    assert [run.problem or run.skip for run in runs] == [None] * 6
    assert all(run.t1w is not None and run.sbref is not None for run in runs)
