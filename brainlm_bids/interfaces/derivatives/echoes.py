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
    fields = {
        "EchoTimes": list(times),
        "EchoCombination": OPTIMAL,
        "MedianT2star": summary.t2star,
        "SharesByEchoesWithSignal": summary.shares.tolist(),
    }
    if summary.version is None:
        return fields
    return fields | {
        "EchoDenoising": f"tedana {summary.version}",
        "TedanaComponents": summary.n_components,
        "TedanaRejectedComponents": summary.n_noise,
    }


def echo_warnings(summary: "EchoSummary | None") -> list[Notice]:
    """Warnings about the decay of a run's signal, and about tedana's decisions.

    Parameters
    ----------
    summary
        Of the combination; None for a run of one echo.
    """
    if summary is None:
        return []
    warnings = []
    if not summary.plausible:
        found = (
            f"T2* is {1000 * summary.t2star:.3g} ms" if summary.t2star > 0 else "it does not fall"
        )
        text = (
            "The signal does not decay with the echo time as that of a brain: in the median of its "
            f"voxels {found}. The echo times in the sidecars, or the names of the echoes, are "
            "probably wrong, and so is the combination of the echoes."
        )
        warnings.append(notice(Kind.ECHO_TIMES_SUSPECT, text))
    if summary.version is not None and summary.n_noise == summary.n_components:
        text = (
            f"tedana accepted none of {summary.n_components} components. None was removed, so the "
            "run was not denoised by tedana."
        )
        warnings.append(notice(Kind.TEDANA_REJECTED_ALL, text))
    return warnings
