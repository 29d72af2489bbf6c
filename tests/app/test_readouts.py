"""What `--readouts` and `--regress-out` decide about the rows of a decoding."""

from pathlib import Path

import pytest

from brainlm_bids.app.decoding import _left_out, _sources
from brainlm_bids.cohort.sources import READOUTS, SOURCES, selected
from brainlm_bids.settings import TABLE, Settings


def _settings(readouts: tuple[str, ...], *confounds: str) -> Settings:
    folder = Path("/nowhere")
    return Settings(folder, folder, folder, readouts=readouts, regress_out=confounds)


def test_the_setting_has_the_kinds_of_the_table_of_sources() -> None:
    assert TABLE["readouts"].choices == READOUTS == Settings.readouts


@pytest.mark.parametrize("kinds", [("linear",), ("mlp", "linear"), READOUTS])
def test_sources_are_chosen_by_kind_in_the_order_of_the_table(kinds: tuple[str, ...]) -> None:
    assert _sources(_settings(kinds)) == tuple(s for s in SOURCES if s.kind in kinds)
    assert _left_out(_settings(kinds)) == {}


def test_probes_that_cannot_regard_confounds_are_left_out_and_said() -> None:
    assert _sources(_settings(READOUTS, "mean_fd")) == selected(["linear"])
    assert "attentive and mlp" in _left_out(_settings(READOUTS, "mean_fd"))["ReadoutsLeftOut"]
    assert _left_out(_settings(("linear",), "mean_fd")) == {}
