"""What fMRIPrep writes, as a `Producer` of derivatives: the names of versions 20 to 25."""

from collections.abc import Sequence
from pathlib import Path

from brainlm_bids.bids.left_out import combined_of
from brainlm_bids.bids.names import Name, parse
from brainlm_bids.bids.preprocessed import (
    CIFTI,
    CIFTI_SPACE,
    IMAGES,
    OTHER_TEMPLATE,
    SURFACE,
    TEMPLATE,
    Candidate,
    Preprocessed,
    Producer,
    by_space,
)

# In the order of preference: what needs the least further processing first.
SPACES = (TEMPLATE, CIFTI_SPACE, "T1w", "boldref", OTHER_TEMPLATE)
_AGAIN = f"run fMRIPrep again with --output-spaces {TEMPLATE}:res-2"


def is_series(path: Path) -> bool:
    """Whether a file is named like a BOLD series of fMRIPrep, of any version."""
    name = parse(path.name)
    if name.suffix == "bold":
        return name.extension in (*IMAGES, CIFTI, SURFACE)
    return _is_old(path)


def _is_old(path: Path) -> bool:
    """Whether a series has a name of fMRIPrep 1.0 or 1.1: …_bold_space-<space>_preproc.nii.gz."""
    name = parse(path.name)
    return name.suffix == "preproc" and "bold" in name.parts and name.extension in IMAGES


def _not_supported(stem: str, bold: Sequence[Path], stems: Sequence[str]) -> str | None:
    """Why a run is in no form that could be used under any option, and what to do."""
    names = [parse(path.name) for path in bold]
    if {"echo", "part"} & set(names[0].entities):
        combined = combined_of(stem, stems)
        if combined is not None:
            return f"is a part of {combined}, which is used"
        return "a single echo or part of a run, without the combined series; run fMRIPrep again"
    if all(map(_is_old, bold)):
        return "is named as by fMRIPrep 1.0 or 1.1; run fMRIPrep again (20.2 or later)"
    if any(_space(name) in SPACES for name in names):
        return None
    if any(name.extension == CIFTI for name in names):
        density = next(name.get("den") or "?" for name in names if name.extension == CIFTI)
        return (
            f"has CIFTI with {density} grayordinates alone, and A424 is defined for 91k; run "
            f"fMRIPrep again with --cifti-output 91k, or with --output-spaces {TEMPLATE}:res-2"
        )
    there = ", ".join(sorted({name.get("space") or "no space" for name in names}))
    return f"the fMRIPrep derivatives have BOLD in {there} alone; {_AGAIN}"


def _space(name: Name) -> str | None:
    """The space of a series that can be read; None for others."""
    if name.suffix == "bold" and name.extension == CIFTI and name.get("den") == "91k":
        return CIFTI_SPACE
    if name.suffix == "bold" and name.get("desc") == "preproc" and name.extension in IMAGES:
        return name.get("space", "boldref")
    return None


def _one_run(stem: str, files: list[Path], warps: list[Path], spaces: Sequence[str]) -> Candidate:
    bold = by_space(files, _space)
    space = next((name for name in spaces if name in bold), None)
    if space is None:
        there = ", ".join(sorted(bold))
        way = " or give --denoise confounds:simple, which grayordinates allow" * (
            CIFTI_SPACE in bold and CIFTI_SPACE not in spaces
        )
        return Candidate(stem, min(bold.values()), None, (
            f"{stem}: the fMRIPrep derivatives have BOLD in {there}, not in {' or '.join(spaces)}; "
            f"{_AGAIN}{way}"
        ))  # fmt: skip

    def missing(what: str) -> Candidate:
        return Candidate(stem, bold[space], None, f"{stem}: {what}")

    confounds = _confounds(files)
    if confounds is None:
        return missing(f"there is no desc-confounds table beside {bold[space].name}")
    to_template = _transform(warps, "T1w", TEMPLATE) if space in ("T1w", "boldref") else None
    to_t1w = _boldref_to_t1w(files) if space == "boldref" else None
    if space in ("T1w", "boldref") and to_template is None:
        return missing(
            f"BOLD is in {space} space, and there is no from-T1w_to-{TEMPLATE} transform; {_AGAIN}"
        )
    if space == "boldref" and to_t1w is None:
        return missing("there is no transform from the BOLD reference to the T1w")
    mask = _mask_of(bold[space], files)
    used = Preprocessed(FMRIPREP, stem, bold[space], space, confounds, mask, to_template, to_t1w)
    return Candidate(stem, used.bold, used)


def _confounds(files: list[Path]) -> Path | None:
    """desc-confounds_timeseries (20.2 and later) or desc-confounds_regressors."""
    for suffix in ("timeseries", "regressors"):
        for path in files:
            name = parse(path.name)
            if (name.get("desc"), name.suffix, name.extension) == ("confounds", suffix, ".tsv"):
                return path
    return None


def _mask_of(bold: Path, files: list[Path]) -> Path | None:
    name = parse(bold.name)
    wanted = {**name.entities, "desc": "brain"}
    for path in files:
        other = parse(path.name)
        if (other.entities, other.suffix, other.extension) == (wanted, "mask", name.extension):
            return path
    return None


def _transform(files: list[Path], source: str, target: str) -> Path | None:
    for path in files:
        name = parse(path.name)
        if (name.get("from"), name.get("to"), name.suffix) == (source, target, "xfm"):
            return path
    return None


def _boldref_to_t1w(files: list[Path]) -> Path | None:
    """from-boldref (23.1 and later) or from-scanner."""
    return _transform(files, "boldref", "T1w") or _transform(files, "scanner", "T1w")


FMRIPREP = Producer(
    key="fmriprep",
    title="fMRIPrep",
    desc="preproc",
    spaces=SPACES,
    denoised=False,
    again=_AGAIN,
    is_series=is_series,
    not_supported=_not_supported,
    one_run=_one_run,
)
