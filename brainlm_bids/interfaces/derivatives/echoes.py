"""What the sidecars of a multi-echo run record about its echoes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from brainlm_bids.notices import Kind, Notice, notice

if TYPE_CHECKING:
    from brainlm_bids.preproc.steps import EchoSummary

OPTIMAL = "optimal: weights TE * exp(-TE / T2*)"


def echo_fields(times: Sequence[float], summary: "EchoSummary | None") -> dict[str, Any]:
    """The fields of a sidecar about the combination of echoes; none for a run of one echo.

    Parameters
    ----------
    times
        Echo times, s.
    summary
        Of the combination.
    """
    if summary is None:
        return {}
    return {
        "EchoTimes": list(times),
        "EchoCombination": OPTIMAL,
        "MedianT2star": summary.t2star,
        "SharesByEchoesWithSignal": summary.shares.tolist(),
    }


def echo_warnings(summary: "EchoSummary | None") -> list[Notice]:
    """A warning where the signal of a run does not decay as that of a brain."""
    if summary is None or summary.plausible:
        return []
    found = f"T2* is {1000 * summary.t2star:.3g} ms" if summary.t2star > 0 else "it does not fall"
    text = (
        f"The signal does not decay with the echo time as that of a brain: in the median of its "
        f"voxels {found}. The echo times in the sidecars, or the names of the echoes, are probably "
        "wrong, and so is the combination of the echoes."
    )
    return [notice(Kind.ECHO_TIMES_SUSPECT, text)]
