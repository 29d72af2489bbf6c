"""Windows of a series."""

import numpy as np
import pytest

from brainlm_bids.model.windows import cut_windows, pad_to_window, padding_warnings


@pytest.mark.parametrize(
    ("n", "stride", "expected"),
    [
        (200, None, [0]),
        (150, None, [0]),
        (400, None, [0, 200]),
        (490, None, [0, 200, 290]),
        (201, None, [0, 1]),
        (450, 100, [0, 100, 200, 250]),
    ],
)
def test_windows_cover_the_run(n: int, stride: int | None, expected: list[int]) -> None:
    starts = cut_windows(n, 200, stride)
    assert starts.tolist() == expected
    covered = np.unique(np.concatenate([np.arange(s, min(s + 200, n)) for s in starts]))
    assert len(covered) == n


def test_short_runs_are_padded_with_zeros_at_the_end() -> None:
    padded = pad_to_window(np.ones((3, 2), dtype=np.float32), 5)
    assert padded.tolist() == [[1, 1]] * 3 + [[0, 0]] * 2
    assert pad_to_window(np.ones((7, 2), dtype=np.float32), 5).shape == (7, 2)


def test_a_mirrored_series_goes_back_and_forth() -> None:
    series = np.arange(8, dtype=np.float32).reshape(4, 2)
    padded = pad_to_window(series, 11, mirrored=True)
    assert padded[:, 0].tolist() == [0, 2, 4, 6, 4, 2, 0, 2, 4, 6, 4]
    assert pad_to_window(series, 4, mirrored=True).tolist() == series.tolist()


@pytest.mark.parametrize(
    ("n_volumes", "shown", "kinds"),
    [
        (200, True, []),
        (150, True, ["padded_window"]),
        (149, True, ["padded_window", "short_run"]),
        (60, False, ["padded_window"]),
    ],
)
def test_short_runs_are_a_danger_for_networks_that_see_padding(
    n_volumes: int, shown: bool, kinds: list[str]
) -> None:
    found = padding_warnings(200 - n_volumes, 200, shown=shown)
    assert [one.kind for one in found] == kinds
    assert [one.level for one in found[1:]] == ["danger"] * (len(kinds) - 1)
