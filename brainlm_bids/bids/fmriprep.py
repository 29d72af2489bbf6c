"""Runs in existing fMRIPrep derivatives: a folder comes in, `Preprocessed` values go out.

The names that fMRIPrep 20 to 25 write are understood. Only the folders of the requested subjects
are listed, each once, so that a large data set costs nothing. Nothing is written into the folder.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainlm_bids.bids.names import parse, with_prefix
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json

TEMPLATE = "MNI152NLin6Asym"
OTHER_TEMPLATE = "MNI152NLin2009cAsym"
CIFTI_SPACE = "fsLR"
# In the order of preference: what needs the least further processing first.
SPACES = (TEMPLATE, CIFTI_SPACE, "T1w", "boldref", OTHER_TEMPLATE)
IMAGES = (".nii.gz", ".nii")
CIFTI = ".dtseries.nii"


@dataclass(frozen=True)
class Preprocessed:
    """The files of one run in existing fMRIPrep derivatives.

    Attributes
    ----------
    stem
        Name of the raw run without its suffix.
    bold, space
        The series, and its space: one of `SPACES`; fsLR is CIFTI 91k.
    confounds
        The table of confounds.
    mask
        The brain mask of the series.
    to_template, to_t1w
        ITK transforms from the T1w to the template (for series in T1w or boldref space), and from
        the BOLD reference to the T1w (for boldref space).
    labels
        The atlas on CIFTI's grayordinates.
    """

    stem: str
    bold: Path
    space: str
    confounds: Path
    mask: Path | None = None
    to_template: Path | None = None
    to_t1w: Path | None = None
    labels: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the run's numbers depend on."""
        found = (self.bold, self.confounds, self.mask, self.to_template, self.to_t1w)
        return tuple(path for path in found if path is not None)


def check_derivatives(root: Path) -> None:
    """Raise UserError for a folder that fMRIPrep did not write."""
    path = root / "dataset_description.json"
    try:
        description = read_json(path)
        makers = [str(one.get("Name", "")) for one in description.get("GeneratedBy", [])]
    except (UserError, AttributeError, TypeError) as error:
        raise UserError(
            f"--derivatives {root}: dataset_description.json cannot be read ({error}); give the "
            "top of fMRIPrep's output folder"
        ) from None
    # fMRIPrep 1.x wrote PipelineDescription instead.
    makers.append(str((description.get("PipelineDescription") or {}).get("Name", "")))
    names = " ".join(makers).lower().replace("_", "-")
    if "xcp" in names:
        raise UserError(
            f"--derivatives {root}: XCP-D's series are in other atlases, and BrainLM needs A424; "
            "give the fMRIPrep folder that XCP-D started from"
        )
    if "fmriprep" not in names:
        made = ", ".join(name for name in makers if name) or "an unknown program"
        raise UserError(f"--derivatives {root}: made by {made}, not by fMRIPrep")


def find_preprocessed(
    root: Path, subjects: Sequence[str], spaces: Sequence[str] = SPACES
) -> list[tuple[Preprocessed | None, str, str]]:
    """Runs of some subjects.

    Parameters
    ----------
    root
        The top of fMRIPrep's output folder.
    subjects
        Their labels; all if empty.
    spaces
        In the order of preference: the first that a run has is taken.

    Returns
    -------
    list of tuple
        For each run its files, or None; its stem; and why it cannot be used, in one line.

    Raises
    ------
    UserError
        For a subject that is not there.
    """
    folders = [root / with_prefix("sub", label) for label in subjects] or sorted(root.glob("sub-*"))
    found = []
    for folder in folders:
        if not folder.is_dir() and not subjects:
            continue  # sub-01.html
        if not folder.is_dir():
            raise UserError(
                f"--derivatives {root}: there is no folder {folder.name}; has fMRIPrep been run "
                "for this participant?"
            )
        for session in [folder, *sorted(folder.glob("ses-*"))]:
            func, anat = session / "func", (session / "anat", folder / "anat")
            if func.is_dir():
                found += _runs(func, anat, spaces)
    return found


def _runs(
    func: Path, anat: Iterable[Path], spaces: Sequence[str]
) -> list[tuple[Preprocessed | None, str, str]]:
    files: dict[str, list[Path]] = {}
    for path in sorted(func.iterdir()):
        files.setdefault(parse(path.name).source, []).append(path)
    warps = [path for folder in anat if folder.is_dir() for path in sorted(folder.iterdir())]
    runs = []
    for stem, own in files.items():
        if any(parse(path.name).suffix == "bold" for path in own):
            runs.append(_one_run(stem, own, warps, spaces))
    return runs


def _one_run(
    stem: str, files: list[Path], warps: list[Path], spaces: Sequence[str]
) -> tuple[Preprocessed | None, str, str]:
    bold = _bold_by_space(files)
    space = next((name for name in spaces if name in bold), None)
    if space is None:
        there = ", ".join(sorted(bold)) or "no space"
        return None, stem, (
            f"{stem}: the fMRIPrep derivatives have BOLD in {there}, not in {' or '.join(spaces)}; "
            f"run fMRIPrep again with --output-spaces {TEMPLATE}:res-2"
        )  # fmt: skip
    confounds = _confounds(files)
    if confounds is None:
        return None, stem, f"{stem}: there is no desc-confounds table beside {bold[space].name}"
    to_template = _transform(warps, "T1w", TEMPLATE) if space in ("T1w", "boldref") else None
    to_t1w = _boldref_to_t1w(files) if space == "boldref" else None
    if space in ("T1w", "boldref") and to_template is None:
        return None, stem, (
            f"{stem}: BOLD is in {space} space, and there is no from-T1w_to-{TEMPLATE} transform; "
            f"run fMRIPrep again with --output-spaces {TEMPLATE}:res-2"
        )  # fmt: skip
    if space == "boldref" and to_t1w is None:
        return None, stem, f"{stem}: there is no transform from the BOLD reference to the T1w"
    mask = _mask_of(bold[space], files)
    return Preprocessed(stem, bold[space], space, confounds, mask, to_template, to_t1w), stem, ""


def _bold_by_space(files: list[Path]) -> dict[str, Path]:
    """The BOLD of each space; of several resolutions that of 2 mm, or the first."""
    found: dict[str, Path] = {}
    for path in files:
        name = parse(path.name)
        if name.suffix != "bold":
            continue
        if name.extension == CIFTI and name.get("den") == "91k":
            found[CIFTI_SPACE] = path
        if name.get("desc") == "preproc" and name.extension in IMAGES:
            space = name.get("space", "boldref")
            # Of several, 2 mm is what the atlas has; 1 mm is eight times the size.
            if space not in found or name.get("res") == "2":
                found[space] = path
    return found


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
