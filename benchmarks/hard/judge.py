"""A finished call in, what it told of each input out."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.hard.call import Call
from benchmarks.hard.case import Case, Result
from brainlm_bids import files
from brainlm_bids.errors import UserError

# Warnings whose text counts something: another count is another warning.
_COUNTED = ("filled_parcels",)
# Volumes on either side from which an interpolated sample takes nearly all of its weight.
REACH = 3
# Fields of sidecars that must be equal for samples to be of the same times.
_SAMPLING = ("StartTime", "RepetitionTime", "SourceRepetitionTime")
# Fewer samples than these are not compared.
FEWEST = 10
_PYTHON = re.compile(r"\b[A-Z]\w+(?:Error|Exception)\b|Traceback|object at 0x")


def is_about(text: str, name: str) -> bool:
    """Whether a name of a file has a label.

    >>> is_about("sub-01_task-n-back_bold.nii.gz", "n-back"), is_about("sub-t1half", "half")
    (True, False)
    """
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", text) is not None


def judge_recording(case: Case, done: Call, folder: Path) -> Result:
    """What became of one recording of a call: its row, its warnings, its series."""
    result = Result(case)
    rows = [row for row in done.rows if is_about(row["source"], case.name)]
    if not rows:
        result.fault = "no row: nothing is said about it"
        return result
    row = min(rows, key=lambda row: row["status"] != "done")
    result.status, result.told = row["status"], "" if row["reason"] == "n/a" else row["reason"]
    return finished(result, folder) if result.status == "done" else checked(result)


def judge_planned(case: Case, done: Call, folder: Path) -> Result:
    """What a dry run says of one recording."""
    del folder
    result = Result(case)
    said = [re.split(r" {2,}", line) for line in done.stdout.splitlines()]
    lines = [cells for cells in said if is_about(cells[0], case.name)]
    if not lines:
        result.fault = "no line: nothing is said about it"
        return result
    _, status, *_, reason = lines[-1]
    planned = status not in ("failed", "skipped")
    result.status, result.told = ("planned", "") if planned else (status, reason)
    return checked(result)


def judge_call(case: Case, done: Call, folder: Path) -> Result:
    """What became of a call that has one input."""
    del folder
    result = Result(case, fault=done.fault)
    if result.fault:
        return result
    failed = [row for row in done.rows if row["status"] in ("failed", "skipped")]
    if done.returncode == 0:
        result.status, result.warnings = "done", done.warnings
        result.told = " ".join(done.warnings)
    elif done.returncode == 1 and failed:
        result.status, result.told = failed[0]["status"], failed[0]["reason"]
    elif done.returncode == 1 and (
        lines := re.findall(r"^\S+ +failed  +(?:.*  )?(.*)$", done.stdout, re.MULTILINE)
    ):
        result.status, result.told = "failed", lines[0]
    else:
        result.status, result.told = "refused", done.last_words
    return checked(result)


def checked(result: Result) -> Result:
    """A line must be words for a user."""
    if match := _PYTHON.search(result.told):
        result.fault = f"the line shows a Python error: {match[0]}"
    return result


def finished(result: Result, folder: Path) -> Result:
    """Add the warnings and the correlation of a recording that was done."""
    case, out = result.case, folder / "out"
    own, benign = _series(out, case.name), _benign(out, case.benign)
    if own is None:
        result.fault = "done, but there is no series"
        return result
    told = _notices(own)
    before = _notices(benign) if benign is not None else []
    known = {kind for kind, text in before if kind not in _COUNTED or (kind, text) in told}
    new = {kind: text for kind, text in told if kind not in known}
    result.warnings, result.told = list(new), " ".join(new.values())
    if benign is not None and case.benign:
        r = [correlation(_values(own), _values(benign), case.good)]
        r += scaled_correlation(own, benign, case.good)
        result.r = min(r)
    return checked(result)


def scaled_correlation(own: Path, benign: Path, good: tuple[int, ...]) -> list[float]:
    """The same of what the model sees, away from the volumes that are not good.

    Empty where the two cannot be compared sample by sample.
    """
    one, other = (Path(str(path).replace("denoised", "robust")) for path in (own, benign))
    if not (one.is_file() and other.is_file()):
        return []
    about, their = (files.read_json(path.with_suffix(".json")) for path in (one, other))
    if any(about[key] != their[key] for key in _SAMPLING):
        return []
    values, benign_values = _values(one), _values(other)
    length = min(len(values), len(benign_values))
    if not good:
        return [correlation(values[:length], benign_values[:length])]
    step = about["RepetitionTime"] / about["SourceRepetitionTime"]
    first = about["StartTime"] / about["SourceRepetitionTime"]
    # a bad volume reaches as far as the interpolation of the samples beside it
    reach = 0 if step == 1 else REACH
    near = [
        set(range(int(place) - reach, int(place) + reach + 1))
        for place in np.round(first + step * np.arange(length), 6)
    ]
    kept = tuple(t for t in range(length) if near[t] <= set(good))
    return [correlation(values, benign_values, kept)] if len(kept) >= FEWEST else []


def _series(out: Path, name: str) -> Path | None:
    found = sorted(out.rglob("*_desc-denoised_timeseries.tsv"))
    return next((path for path in found if is_about(path.name, name)), None)


def _benign(out: Path, name: str) -> Path | None:
    found = sorted(out.rglob("*_desc-denoised_timeseries.tsv"))
    benign = [path for path in found if re.match(rf"sub-(01_task-)?{name}_", path.name)]
    return benign[0] if benign else None


def _values(path: Path) -> NDArray[np.float64]:
    return np.asarray(files.read_tsv(path)[1], dtype=np.float64)


def _notices(series: Path) -> list[tuple[str, str]]:
    """Kinds and texts of the warnings in the sidecars of a recording."""
    found: list[tuple[str, str]] = []
    for name in ("denoised", "robust"):
        path = Path(str(series).replace("denoised", name)).with_suffix(".json")
        try:
            sidecar: dict[str, Any] = files.read_json(path)
        except UserError:
            continue
        found += [(one["Kind"], one["Text"]) for one in sidecar.get("Warnings", [])]
    return list(dict.fromkeys(found))


def correlation(
    own: NDArray[np.float64], benign: NDArray[np.float64], good: tuple[int, ...] = ()
) -> float:
    """Median over parcels of the correlation on the good volumes; a parcel with data in both."""
    length = min(len(own), len(benign))
    rows = np.array([t for t in good or range(length) if t < length])
    one, other = own[rows], benign[rows]
    both = np.isfinite(one).mean(axis=1) * np.isfinite(other).mean(axis=1) > 0.5
    one, other = one[both], other[both]
    if len(one) < 5:
        return 0.0
    scores = []
    for a, b in zip(one.T, other.T, strict=True):
        known = np.isfinite(a) & np.isfinite(b)
        if known.all():
            constant = np.ptp(a) == 0 or np.ptp(b) == 0
            scores.append(0.0 if constant else float(np.corrcoef(a, b)[0, 1]))
    return float(np.median(scores)) if scores else 0.0
