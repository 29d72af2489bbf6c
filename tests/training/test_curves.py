"""TensorBoard's event files, in the order in which TensorBoard reads them."""

import time
from pathlib import Path

import pytest

from brainlm_bids.training.curves import Board


def test_files_of_one_second_are_read_in_the_order_in_which_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that resumes within a second: TensorBoard drops events of a file read too late."""
    second = 1_796_039_843
    monkeypatch.setattr(time, "time", lambda: float(second))
    written: list[str] = []
    for first, nanoseconds in ((10, 95_000_000), (2, 123_000_000), (10, 123_000_001)):
        monkeypatch.setattr(time, "time_ns", lambda n=nanoseconds: second * 10**9 + n)
        with Board(tmp_path, first) as board:
            board.write("step", {"loss": 1.0}, first)
        written += sorted({path.name for path in tmp_path.iterdir()} - set(written))
    assert written == sorted(path.name for path in tmp_path.iterdir())
    assert len(written) == 3
