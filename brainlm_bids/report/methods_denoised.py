"""The methods text of series that XCP-D denoised before: what was done with them, and by whom."""

from __future__ import annotations

from collections.abc import Sequence

from brainlm_bids.bids.context import XCP_D
from brainlm_bids.report.clauses import counted, quoted, span
from brainlm_bids.report.run_records import RunRecord, mapping
from brainlm_bids.report.values import as_float, joined

# Its word in the field BadVolumeReasons.
CENSORED = "censored"


def n_censored(run: RunRecord) -> int:
    """Volumes of a run that were censored for head motion before."""
    reasons = run.series.get("BadVolumeReasons")
    return reasons.count(CENSORED) if isinstance(reasons, list) else 0


def left_out(run: RunRecord) -> str | None:
    """Volumes at the start of a run that XCP-D, or the user, left out."""
    if run.kind != XCP_D:
        return None
    before = as_float(mapping(run.series.get("InputData")).get("VolumesLeftOutAtStart"))
    here = int(run.series.get("DummyVolumes") or 0)
    said = []
    if before:
        said.append(f"XCP-D had left out the first {counted(int(before), 'volume')} of the run")
    if here:
        were = "was" if here == 1 else "were"
        which = "next" if before else "first"
        said.append(f"the {which} {counted(here, 'volume')} {were} excluded, as requested")
    return ", and ".join(said) or None


def censoring(runs: Sequence[RunRecord]) -> str:
    """What became of the volumes that XCP-D censored."""
    of_xcp_d = [n_censored(run) for run in runs if run.kind == XCP_D]
    if not of_xcp_d:
        return ""
    if not any(of_xcp_d):
        return "XCP-D had censored no volume for head motion."
    return (
        f"The volumes that XCP-D had censored for head motion ({span(of_xcp_d)} per run) were left "
        "out of every statistic, whether XCP-D had removed or interpolated them, and were "
        "interpolated linearly in time for BrainLM."
    )


def cleaning(run: RunRecord) -> str:
    """How XCP-D cleaned a run, as its files record it; nothing was done again."""
    names = run.series.get("RegressedConfounds")
    parts = []
    if isinstance(names, list) and names:
        signal = " (the global signal among them)" if "global_signal" in names else ""
        parts.append(f"{counted(len(names), 'confound')}{signal} had been regressed out")
    periods = (as_float(run.series.get(f"{side}PassCutoff")) for side in ("High", "Low"))
    high, low = (1 / seconds if seconds else None for seconds in periods)
    if high is not None and low is not None:
        parts.append(f"a band-pass filter of {high:g} to {low:g} Hz had been applied")
    elif high is not None or low is not None:
        side, limit = ("high", high) if high is not None else ("low", low)
        parts.append(f"a {side}-pass filter of {limit:g} Hz had been applied")
    data = mapping(run.series.get("InputData"))
    version = f" {quoted(data['Version'])}" if data.get("Version") else ""
    text = f"the series had been denoised by XCP-D{version}"
    if parts:
        text += f": {joined(parts)}"
    return f"{text}; no noise was removed and no filter applied again"
