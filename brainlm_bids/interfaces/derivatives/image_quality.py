"""The table of a run's image quality, and its sidecar."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainlm_bids import files
from brainlm_bids.bids.context import RAW, XCP_D, RunContext
from brainlm_bids.interfaces import payloads

if TYPE_CHECKING:
    from brainlm_bids.preproc.steps import ImageQuality

KEY = "image_quality"
# What depends on the axes and the background of the acquisition, and what on an image.
OF_ACQUISITION = ("efc", "fber", "fwhm_avg", "fwhm_x", "fwhm_y", "fwhm_z", "gsr_x", "gsr_y")
OF_IMAGES = (
    *OF_ACQUISITION,
    "snr",
    *(f"{of}_{axis}" for of in ("size", "spacing") for axis in "xyz"),
)
RESAMPLED = "depends on the axes and the background of the acquisition; fMRIPrep resampled the run"
GRAYORDINATES = "the run has grayordinates and no image"
DENOISED = "XCP-D cleaned the series and removed its mean"
NO_BACKGROUND = "there is no signal outside the brain"
NOT_DEFINED = "not defined for the values of this run"


def write_quality(context: RunContext, file: Any, values: dict[str, Any]) -> list[Path]:
    """Write a run's image quality.

    Parameters
    ----------
    context
        Of the run.
    file
        A stored `ImageQuality`; nothing for a series made elsewhere.
    values
        What the sidecar records beside the columns.

    Returns
    -------
    list of Path
        What was written.
    """
    if not file:
        return []
    from brainlm_bids.preproc import steps

    quality = payloads.load(steps.ImageQuality, file)
    row, naming = asdict(quality), context.naming
    table = files.write_tsv(naming.path(KEY), list(row), [[value] for value in row.values()])
    sidecar = {**values, "NotAvailable": missing(quality, context.input_data.kind)}
    path = naming.path(KEY, extension=".json")
    return [table, files.write_json(path, naming.sidecar(KEY, sidecar))]


def missing(quality: "ImageQuality", kind: str) -> dict[str, str]:
    """Why each of the measures that a run does not have is missing.

    Parameters
    ----------
    quality
        Of the run.
    kind
        Of its input, see `InputInfo`.

    Returns
    -------
    dict
        Name of a measure to the reason.
    """
    known: dict[str, str] = {"fber": NO_BACKGROUND}
    absent = [name for name, value in asdict(quality).items() if value is None]
    if kind == XCP_D:
        sizes = {name for name in OF_IMAGES if name.startswith(("size", "spacing"))}
        known = {name: GRAYORDINATES if name in sizes else DENOISED for name in absent}
    elif kind != RAW:
        names, reason = (
            (OF_IMAGES, GRAYORDINATES) if quality.size_x is None else (OF_ACQUISITION, RESAMPLED)
        )
        known = dict.fromkeys(names, reason)
    return {name: known.get(name, NOT_DEFINED) for name in absent}
