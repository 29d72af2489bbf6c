"""What the writers of the derivatives note about a run."""

from types import SimpleNamespace

import numpy as np
import pytest

from brainlm_bids.interfaces.derivatives.functional import WriteFunctional
from brainlm_bids.preproc.steps import Components, Decisions


@pytest.mark.parametrize(
    ("noise", "converged", "n_starts", "mode", "reported"),
    [
        ([True, False], True, 1, "nonaggr", []),
        ([False, False], True, 1, "nonaggr", []),
        ([True, True], True, 1, "none", ["All 2 components were classified as noise"]),
        ([True, False], True, 2, "nonaggr", ["converged in start 2 only"]),
        ([True, True], False, 3, "none", ["All 2 components", "not converge in 3 starts"]),
    ],
)
def test_what_the_ica_could_not_do_is_reported(
    caplog: pytest.LogCaptureFixture,
    noise: list[bool],
    converged: bool,
    n_starts: int,
    mode: str,
    reported: list[str],
) -> None:
    none = np.zeros(0)
    components = Components(none, none.astype(np.float32), none, converged, 10, n_starts)
    decisions = Decisions(none, none, none, none, none, np.array(noise), np.array(["", ""]))
    writer = WriteFunctional()
    writer._naming = SimpleNamespace(stem="sub-01_task-rest")
    writer._warnings, writer._mode = [], "nonaggr"
    writer._check_components(components, decisions)
    # a run from which nothing could be removed is marked as such
    assert writer._mode == mode
    assert len(caplog.messages) == len(reported)
    for message, text in zip(caplog.messages, reported, strict=True):
        assert message.startswith("sub-01_task-rest: ") and text in message
    assert len(writer._warnings) == sum("only" not in text for text in reported)
