"""What XCP-D writes, as a `Producer` of derivatives: the names of versions 0.4 to 26.

XCP-D denoises and filters fMRIPrep's BOLD. In its modes linc (and, before 0.8, always) it leaves
out the volumes with much head motion, so that its series has gaps that only the table of outliers
tells; in its modes abcd and hbcd they are there and interpolated. Volumes at the start that it
leaves out are in none of its tables. Concatenated runs, smoothed series, and series of other
parameters lie beside the runs, under names that differ in little.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

from brainlm_bids.bids.headers import image_shape
from brainlm_bids.bids.left_out import combined_of
from brainlm_bids.bids.names import Name, parse, sidecar_of
from brainlm_bids.bids.preprocessed import (
    CIFTI,
    CIFTI_SPACE,
    IMAGES,
    OTHER_TEMPLATE,
    TEMPLATE,
    Candidate,
    Preprocessed,
    Producer,
    by_space,
)
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_rows, read_text
from brainlm_bids.notices import Kind, Notice, notice

SPACES = (TEMPLATE, CIFTI_SPACE, OTHER_TEMPLATE)
SIDES = ("high", "low")
# The column of the table of outliers that XCP-D censors by.
CENSORED = "framewise_displacement"
_AGAIN = f"run XCP-D again on BOLD in {TEMPLATE} (fMRIPrep's --output-spaces {TEMPLATE}:res-2)"
# Series that are not used, by their labels, and what to do.
_OTHER_SERIES = {
    "denoisedSmoothed": "the smoothed series alone is there, in which neighbouring parcels are "
    "mixed; put desc-denoised beside it, which XCP-D also writes",
    "interpolated": "desc-interpolated alone is there; put desc-denoised beside it, which XCP-D "
    "also writes",
    "residual": "is named as by XCP-D 0.1 or earlier; run XCP-D again (0.10 or later)",
    "residual_smooth": "is named as by XCP-D 0.1 or earlier; run XCP-D again (0.10 or later)",
}


# --- which files are used --------------------------------------------------------------------


def is_series(path: Path) -> bool:
    """Whether a file is named like a BOLD series of XCP-D, of any version."""
    name = parse(path.name)
    return name.suffix == "bold" and name.extension in (*IMAGES, CIFTI)


def _space(name: Name) -> str | None:
    """The space of a denoised, unsmoothed series; None for other files."""
    if (name.suffix, name.get("desc")) != ("bold", "denoised"):
        return None
    if name.extension == CIFTI:
        return CIFTI_SPACE if name.get("den", "91k") == "91k" else None
    return name.get("space", "an unknown space") if name.extension in IMAGES else None


def _not_supported(stem: str, bold: Sequence[Path], stems: Sequence[str]) -> str | None:
    """Why a run is in no form that could be used under any option, and what to do."""
    names = [parse(path.name) for path in bold]
    if {"echo", "part"} & set(names[0].entities):
        combined = combined_of(stem, stems)
        if combined is not None:
            return f"is a part of {combined}, which is used"
    unsmoothed = [path for path in bold if _space(parse(path.name)) is not None]
    joined = next((path for path in unsmoothed if _is_joined(path, stem, stems)), None)
    if joined is not None:
        return (
            f"{joined.name} holds several runs, one after the other (XCP-D's --combine-runs); "
            "each run is used by itself, if its own series is there"
        )
    spaces = {_space(name) for name in names}
    if spaces & set(SPACES):
        return None
    if not any(spaces):
        label = next((name.get("desc") for name in names), "")
        other = next((name.get("desc") for name in names if name.get("desc") in _OTHER_SERIES), "")
        return _OTHER_SERIES.get(other, f"desc-{label or '?'} is no denoised series; {_AGAIN}")
    there = ", ".join(sorted(one for one in spaces if one))
    return f"XCP-D's folder has denoised BOLD in {there} alone; {_AGAIN}"


def _is_joined(bold: Path, stem: str, stems: Sequence[str]) -> bool:
    """Whether a series was made from those of several runs.

    Its sidecar tells: a run is made from preprocessed BOLD, and what is joined from denoised runs.
    Without a sidecar, the names tell: runs are joined under the name less run and direction.
    """
    try:
        sources = read_json(sidecar_of(bold)).get("Sources")
    except UserError:
        sources = None
    names = [parse(str(one).rpartition("/")[2]) for one in _list(sources)]
    images = [name for name in names if name.suffix == "bold"]
    if images:
        return any(name.get("desc") == "denoised" for name in images)
    return stem in {parse(other).without("run", "dir").stem for other in stems if other != stem}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _one_run(stem: str, files: list[Path], warps: list[Path], spaces: Sequence[str]) -> Candidate:
    bold = by_space(files, _space)
    space = next((name for name in spaces if name in bold), None)
    if space is None:
        there, wanted = ", ".join(sorted(bold)), " or ".join(spaces)
        reason = f"{stem}: XCP-D's folder has denoised BOLD in {there}, not in {wanted}; {_AGAIN}"
        return Candidate(stem, min(bold.values()), None, reason)
    chosen = bold[space]

    def missing(what: str) -> Candidate:
        return Candidate(stem, chosen, None, f"{stem}: {what}")

    hashes = {parse(path.name).get("hash") for path in files if _space(parse(path.name)) == space}
    if len(hashes) > 1:
        return missing(
            f"there are results of {len(hashes)} sets of parameters (hash-"
            f"{', hash-'.join(sorted(hashes))}) in one folder; move all but one elsewhere"
        )
    files = [path for path in files if parse(path.name).get("hash") in (*hashes, "")]
    motion, censoring = _table(files, "motion"), _table(files, "outliers")
    if motion is None and censoring is None:
        return missing(
            f"there is no table of motion and none of outliers beside {chosen.name}, so that it "
            "is not known which volumes XCP-D left out"
        )
    used = Preprocessed(
        XCP_D,
        stem,
        chosen,
        space,
        motion,
        censoring=censoring,
        design=_table(files, "design"),
        quality=_table(files, "qc", (".tsv", ".csv")),
    )
    return Candidate(stem, chosen, used)


def _table(
    files: Iterable[Path], suffix: str, extensions: Sequence[str] = (".tsv",)
) -> Path | None:
    """A run's table; of several the one with the shortest name, which is that without a filter."""
    found = [
        path
        for path in files
        if parse(path.name).suffix == suffix and parse(path.name).extension in extensions
    ]
    return min(found, key=lambda path: (len(path.name), path.name), default=None)


XCP_D = Producer(
    key="xcp_d",
    title="XCP-D",
    desc="denoised",
    spaces=SPACES,
    denoised=True,
    again=_AGAIN,
    is_series=is_series,
    not_supported=_not_supported,
    one_run=_one_run,
)


# --- what they tell --------------------------------------------------------------------------


class Filters(NamedTuple):
    """Cut-offs of the temporal filter in Hz; None where there is none, or none is recorded."""

    high_pass: float | None
    low_pass: float | None


def filters_of(metadata: Mapping[str, Any]) -> Filters:
    """The temporal filter that the sidecar of a denoised series records.

    Examples
    --------
    >>> band = {"High-pass cutoff (Hz)": 0.01, "Low-pass cutoff (Hz)": 0.08, "Filter order": 2}
    >>> filters_of({"SoftwareFilters": {"Bandpass filter": band}})
    Filters(high_pass=0.01, low_pass=0.08)
    >>> filters_of({"SoftwareFilters": {"High-pass filter": {"cutoff (Hz)": 0.01}}})
    Filters(high_pass=0.01, low_pass=None)
    >>> filters_of({"Freq Band": [0.008, 0.1]})  # before 0.6
    Filters(high_pass=0.008, low_pass=0.1)
    """
    band = _list(metadata.get("Freq Band"))
    found: dict[str, object] = {
        f"{side}-p": value for side, value in zip(SIDES, band, strict=False)
    }
    for side in SIDES:  # before 0.6
        found.setdefault(f"{side}-p", metadata.get(f"{side.capitalize()}-pass Cutoff"))
    software = metadata.get("SoftwareFilters")
    for title, values in (software if isinstance(software, dict) else {}).items():
        for name, value in (values if isinstance(values, dict) else {}).items():
            words = f"{title} {name}".lower() if name.startswith("cutoff") else name.lower()
            if "cutoff" in words:
                found |= {f"{side}-p": value for side in SIDES if f"{side}-p" in words}
    return Filters(*(_positive(found[f"{side}-p"]) for side in SIDES))


def _positive(value: object) -> float | None:
    """A frequency in Hz; None for what is none, and for 0, which stands for no filter."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def without_hash(column: str) -> str:
    """The name of a column without the sum of its parameters, which XCP-D may add.

    >>> without_hash("framewise_displacement_hash-0a1b2c")
    'framewise_displacement'
    """
    return re.sub(r"_hash-[0-9a-zA-Z+]+$", "", column)


def regressed(design: Path) -> tuple[str, ...]:
    """Names of the confounds in a table of those that were regressed out.

    XCP-D also lists the censored volumes there, which it leaves out and does not regress.
    """
    header = read_text(design).partition("\n")[0].strip()
    names = [without_hash(name) for name in header.split("\t") if name]
    return tuple(name for name in names if "outlier" not in name.lower())


def complete(source: Preprocessed, raw: Path) -> tuple[Preprocessed, list[Notice]]:
    """Find out where a run begins in its scan, and what is not known of it.

    Parameters
    ----------
    source
        The run's files, with `level`.
    raw
        Where the raw image would be.

    Returns
    -------
    source
        With `dropped`.
    notices
        What is not known.
    """
    level, notices = source.level, []
    acquired = _n_acquired(raw)
    if acquired is None and level is not None:
        acquired = _n_acquired(level)
    dropped = left_out_at_start(source, acquired)
    if level is None:
        text = (
            "XCP-D removed the mean over time, and the preprocessed BOLD, which has it, is not "
            "there: the series could not be brought to a grand mean of 10000, and its amplitude is "
            "in arbitrary units of the scanner."
        )
        notices.append(notice(Kind.AMPLITUDE_UNKNOWN, text))
    if dropped is None:
        text = (
            "How many volumes XCP-D left out at the start is not recorded, and the raw image is "
            "not there: times count from the first volume that is left."
        )
        notices.append(notice(Kind.START_UNKNOWN, text))
    return replace(source, dropped=dropped), notices


def _n_acquired(image: Path) -> int | None:
    """Volumes of an image that has all of its scan, by its header; None where it cannot be read."""
    for path in (image, image.with_name(image.name.removesuffix(".gz"))):
        try:
            shape = image_shape(path)
        except UserError:
            continue
        if path.name.endswith(CIFTI):
            return shape[0]
        return shape[3] if len(shape) == 4 else None
    return None


def preprocessed_series(
    source: Preprocessed, root: Path, metadata: Mapping[str, Any], given: Path | None
) -> Path | None:
    """The series that a denoised one was made from.

    Parameters
    ----------
    source
        The run's files.
    root
        XCP-D's folder.
    metadata
        The sidecar of the denoised series.
    given
        The folder of the preprocessed data, if the user gave it.

    Returns
    -------
    Path or None
        The file that the sidecar's Sources name, or the one of the same name; None where it is not
        there. Links of XCP-D's folder often lead into the container that it ran in.
    """
    links = _links(root)
    found = []
    for uri in map(str, _list(metadata.get("Sources"))):
        _, _, rest = uri.partition("bids:")
        dataset, _, path = rest.partition(":")
        if parse(path.rpartition("/")[2]).suffix == "bold":
            places = (given, links.get(dataset) if dataset else None)
            found += [place / path for place in places if place is not None]
    if given is not None:
        name = source.bold.name.replace("_desc-denoised", "_desc-preproc")
        beside = given / source.bold.relative_to(root)
        found += [beside.with_name(name), beside.with_name(name.replace("_desc-preproc", ""))]
    # a link that leads nowhere is a file that was not fetched
    return next((path for path in found if path.is_file() or path.is_symlink()), None)


def _links(root: Path) -> dict[str, Path]:
    """The DatasetLinks of a folder that lead to folders of this machine."""
    try:
        links = read_json(root / "dataset_description.json").get("DatasetLinks")
    except UserError:
        links = None
    named = links.items() if isinstance(links, dict) else ()
    places = {str(name): root / unquote(urlparse(str(link)).path) for name, link in named}
    return {name: place for name, place in places.items() if place.is_dir()}


def left_out_at_start(source: Preprocessed, n_acquired: int | None) -> int | None:
    """How many volumes at the start of a scan XCP-D left out; its tables begin after them.

    Parameters
    ----------
    source
        The run's files.
    n_acquired
        Volumes of the raw image; None where it is not there.

    Returns
    -------
    int or None
        What the table of quality counts or, without one, what the other tables lack of the raw
        image; None where neither is there.
    """
    counted = None if source.quality is None else _counted(source.quality)
    table = source.censoring or source.confounds
    if counted is not None or n_acquired is None or table is None:
        return counted
    missing = n_acquired - len(read_rows(table))
    return missing if missing >= 0 else None


def _counted(quality: Path) -> int | None:
    """Volumes that were left out at the start by the table of quality, which was CSV before 0.7."""
    if quality.suffix == ".csv":
        header, _, body = read_text(quality).partition("\n")
        row = dict(zip(header.split(","), body.partition("\n")[0].split(","), strict=False))
    else:
        row = next(iter(read_rows(quality)), {})
    values = [value for name, value in row.items() if without_hash(name) == "num_dummy_volumes"]
    try:
        return int(float(values[0])) if values else None
    except ValueError:
        return None
