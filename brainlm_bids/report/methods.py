"""The methods text of runs, written from the sidecars of what was done.

Records of runs come in (`run_records`), a `Manuscript` goes out. Where runs differ, the text gives
counts or ranges. A step is described only where the sidecars record that it was done, and only
works that the text cites are listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from brainlm_bids.bids.context import FMRIPREP, RAW, SERIES, XCP_D
from brainlm_bids.notices import Kind
from brainlm_bids.report.clauses import counted, quoted, said, span
from brainlm_bids.report.manuscript import Block, Bullets, Heading, Manuscript, Paragraph
from brainlm_bids.report.methods_distortion import distortion
from brainlm_bids.report.methods_models import model_blocks
from brainlm_bids.report.methods_volumes import anatomy, denoising, preprocessing
from brainlm_bids.report.run_records import RunRecord, mapping
from brainlm_bids.report.values import as_float

LICENCE = (
    "This text was written by brainlm-bids from the records of what was done. It may be copied "
    "into a manuscript unchanged: it is released under the CC0 licence "
    "(https://creativecommons.org/publicdomain/zero/1.0/)."
)
APPROXIMATION = (
    "an approximation of A424 in which the grey matter of the template is divided by the nearest "
    "of the 424 published centroids [@nemati]; it agrees with A424 in about half of the voxels, so "
    "results must not be compared with those obtained with A424"
)


def methods(runs: Sequence[RunRecord]) -> Manuscript:
    """Describe how runs were processed.

    Parameters
    ----------
    runs
        Their records, at least one.

    Returns
    -------
    Manuscript
        The text.
    """
    blocks: list[Block] = [Heading("Methods", 1), Paragraph(_opening(runs))]
    blocks += _section("Anatomy and registration", anatomy(runs))
    functional = " ".join(filter(None, (preprocessing(runs), distortion(runs))))
    blocks += _section("Functional preprocessing", functional)
    blocks += _section("Parcels", _parcels(runs))
    blocks += _section("Denoising and filtering", denoising(runs))
    blocks += _section("Resampling and scaling", _scaled(runs))
    blocks += model_blocks(runs)
    sidecars = [run.series for run in runs] + [run.anatomy for run in runs]
    sidecars += [model for run in runs for model in run.models.values()]
    return Manuscript((*blocks, *closing(sidecars)))


def closing(sidecars: Iterable[Any]) -> list[Block]:
    """The versions of software that sidecars record, and the licence of the text."""
    blocks: list[Block] = []
    found: dict[str, set[str]] = {}
    for sidecar in sidecars:
        for name, version in mapping(sidecar.get("SoftwareVersions")).items():
            found.setdefault(str(name), set()).add(quoted(version))
    if found:
        names = sorted(found, key=str.lower)
        items = [f"{quoted(name)} {' and '.join(sorted(found[name]))}" for name in names]
        blocks += [Heading("Software"), Bullets(tuple(items))]
    return [*blocks, Heading("Copyright waiver"), Paragraph(LICENCE)]


def _section(title: str, text: str) -> list[Block]:
    return [Heading(title), Paragraph(text)] if text else []


def _opening(runs: Sequence[RunRecord]) -> str:
    versions = sorted(
        {str(mapping(run.series.get("GeneratedBy")).get("Version", "")) for run in runs}
    )
    people = len({run.participant for run in runs})
    start = (
        f"Results of {counted(len(runs), 'run')} of {counted(people, 'participant')} were obtained "
        f"with brainlm-bids {' and '.join(quoted(v) for v in versions if v)}".rstrip()
    )
    text = f"{start}, which is based on Nipype [@nipype]. "
    return text + said([_origin(run) for run in runs])


def _origin(run: RunRecord) -> str:
    if run.warns_of(Kind.SIMULATED):
        return "the parcel time series were simulated, and no person was scanned"
    if run.kind == RAW:
        return "processing started from raw data in BIDS format [@bids]"
    if run.kind == SERIES:
        return (
            "processing started from a parcel time series that had been made with other software "
            "and was used as given; its preprocessing is not described here"
        )
    if run.kind in (FMRIPREP, XCP_D):
        source = mapping(run.series.get("InputData"))
        version = f" {quoted(source['Version'])}" if source.get("Version") else ""
        program = f"fMRIPrep{version} [@fmriprep]"
        if run.kind == XCP_D:
            program = f"XCP-D{version} [@xcpd]"
        return f"processing started from the outputs of {program} in BIDS format [@bids]"
    return "the outputs do not record the kind of input data (they are of an earlier version)"


# --- from parcels to what a model sees ---------------------------------------------------------


def _parcels(runs: Sequence[RunRecord]) -> str:
    parts = [
        said([_atlas(run) for run in runs]),
        said([_sampling(run) for run in runs]),
        said([_hardly_seen(run) for run in runs]),
    ]
    return " ".join(part for part in parts if part)


def _scaled(runs: Sequence[RunRecord]) -> str:
    parts = [
        _resampling(runs),
        said([_scaling(run) for run in runs]),
        said([_filled(run) for run in runs]),
    ]
    return " ".join(part for part in parts if part)


def _atlas(run: RunRecord) -> str:
    atlas = mapping(run.series.get("Atlas"))
    name = quoted(atlas.get("Name") or run.naming.atlas)
    if atlas.get("Approximate") or "approx" in name.lower():
        return f"the atlas was {name}, {APPROXIMATION}"
    what = "were averaged within" if run.kind != SERIES else "were given for"
    return (
        f"time series {what} the 424 parcels of the {name} atlas [@nemati], which combines the "
        "cortical parcels of the Human Connectome Project [@glasser] with subcortical and "
        "cerebellar parcels"
    )


def _sampling(run: RunRecord) -> str | None:
    source = mapping(run.series.get("InputData"))
    if run.kind == SERIES or not run.kind:
        return None
    if source.get("Space") == "fsLR":
        return "grayordinates were averaged within the parcels without resampling"
    return (
        "the BOLD series was interpolated by cubic splines at the voxels of the atlas (2 mm), and "
        "interpolation and averaging were applied as one operator; a voxel of the atlas "
        "contributed where it was inside the brain mask of the run"
    )


def _hardly_seen(run: RunRecord) -> str | None:
    least = as_float(run.series.get("MinimumParcelCoverage"))
    if not least or run.kind == SERIES:
        return None
    return f"parcels of which less than {100 * least:g} % was covered were set to n/a"


def _resampling(runs: Sequence[RunRecord]) -> str:
    changed = [run for run in runs if run.scaled.get("Resampling")]
    if not changed:
        return "The sampling interval was not changed." if any(run.scaled for run in runs) else ""
    methods = sorted({str(run.scaled["Resampling"]) for run in changed})
    before = span(float(run.scaled["SourceRepetitionTime"]) for run in changed)
    after = span(float(run.scaled["RepetitionTime"]) for run in changed)
    where = (
        "The series were"
        if len(changed) == len(runs)
        else f"In {len(changed)} of {len(runs)} runs, the series were"
    )
    return (
        f"{where} resampled, before they were scaled, from a repetition time of {before} s to "
        f"{after} s ({'; '.join(quoted(method) for method in methods)})."
    )


def _scaling(run: RunRecord) -> str | None:
    statistics = run.scaled.get("ScalingStatistics")
    if not statistics:
        return None
    own = statistics == "this recording"
    whose = "of the recording itself" if own else f"in the file {quoted(statistics)}"
    return (
        "each parcel’s mean over time was removed, its median was subtracted, and the "
        f"series was divided by its interquartile range, with the medians and interquartile ranges "
        f"{whose}"
    )


def _filled(run: RunRecord) -> str | None:
    if not run.scaled.get("FilledParcels"):
        return None
    return (
        "parcels without data are n/a in the series and were given to the model as their median (0)"
    )
