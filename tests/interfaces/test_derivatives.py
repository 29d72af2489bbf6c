"""What the writers of the derivatives note about a run."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brainlm_bids.interfaces.derivatives import WriteFunctional


@pytest.mark.parametrize(
    ("noise", "converged", "n_starts", "mode", "said"),
    [
        ([True, False], True, 1, "nonaggr", []),
        ([False, False], True, 1, "nonaggr", []),
        ([True, True], True, 1, "none", ["all 2 components were classified as noise"]),
        ([True, False], True, 2, "nonaggr", ["converged in start 2 only"]),
        ([True, True], False, 3, "none", ["all 2 components", "not converge in 3 starts"]),
    ],
)
def test_what_the_ica_could_not_do_is_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    noise: list[bool],
    converged: bool,
    n_starts: int,
    mode: str,
    said: list[str],
) -> None:
    np.savez(tmp_path / "components.npz", converged=converged, n_starts=n_starts)
    writer = WriteFunctional(components=str(tmp_path / "components.npz"))
    writer._naming = SimpleNamespace(stem="sub-01_task-rest")
    writer._notes, writer._mode = [], "nonaggr"
    writer._note_components({"noise": np.array(noise)})
    # a run from which nothing could be removed is marked as such
    assert writer._mode == mode
    assert len(caplog.messages) == len(said)
    for message, text in zip(caplog.messages, said, strict=True):
        assert message.startswith("sub-01_task-rest: ") and text in message
    assert len(writer._notes) == sum("only" not in text for text in said)
