"""What the derivatives of a run tell of its distortion: fields of sidecars, and the field."""

from pathlib import Path
from typing import Any

from brainlm_bids import files
from brainlm_bids.bids.context import RunContext
from brainlm_bids.bids.distortion import (
    CONTRAST_FIELDS,
    EVIDENCE_FIELDS,
    FIT_FIELDS,
    DistortionInfo,
)
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.images import save_image
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.preproc.distortion.boundary_field import Evidence
from brainlm_bids.preproc.distortion.contrast import Contrasts, polarity_warnings
from brainlm_bids.preproc.distortion.field import PhaseEncoding
from brainlm_bids.preproc.distortion.placement import Fit


def distortion_fields(planned: DistortionInfo, inputs: Any) -> dict[str, Any]:
    """The content of the field DistortionCorrection.

    Parameters
    ----------
    planned
        What was to be done about the distortion.
    inputs
        Of a node, with files of what was found: `distortion`, `fit`, `evidence`,
        `contrasts`, and `refused`.

    Returns
    -------
    dict
        Of plain values.
    """
    if planned.corrects and not inputs.distortion:
        planned = planned.refused(inputs.refused or "its field map was not applied")
    numbers: dict[str, Any] = {}
    if inputs.fit:
        numbers |= _named(payloads.load(Fit, inputs.fit), FIT_FIELDS)
    if inputs.evidence:
        numbers |= _named(payloads.load(Evidence, inputs.evidence), EVIDENCE_FIELDS)
    if inputs.contrasts:
        numbers |= _named(payloads.load(Contrasts, inputs.contrasts), CONTRAST_FIELDS)
    return planned.sidecar(numbers)


def distortion_warnings(planned: DistortionInfo, inputs: Any) -> list[Notice]:
    """What to know of a correction that was refused, or whose polarity is suspect.

    Parameters
    ----------
    planned, inputs
        As those of `distortion_fields`.
    """
    if inputs.refused and planned.estimated:
        text = f"The distortion that was estimated is not used: {inputs.refused}."
        return [notice(Kind.DISTORTION_NOT_ESTIMATED, text)]
    if inputs.refused:
        text = f"The field map was not used, and the run not corrected: {inputs.refused}."
        return [notice(Kind.FIELDMAP_NOT_USED, text)]
    if inputs.contrasts:
        return polarity_warnings(payloads.load(Contrasts, inputs.contrasts))
    return []


def write_field(context: RunContext, inputs: Any) -> list[Path]:
    """Write the magnetic field by which a run's distortion was corrected.

    Parameters
    ----------
    context
        Of the run, which tells its phase encoding.
    inputs
        As those of `distortion_fields`.

    Returns
    -------
    list of Path
        An image in Hz with its sidecar; nothing if the run was not corrected, or its total read-out
        time is not known.
    """
    known, naming = context.distortion, context.naming
    distortion = payloads.load_distortion(inputs.distortion)
    if distortion is None or known.direction is None or known.readout is None:
        return []
    encoding = PhaseEncoding.from_bids(known.direction, known.readout)
    path = naming.path("fieldmap")
    with files.atomically(path) as temporary:
        save_image(temporary, encoding.hertz(distortion.shift), distortion.affine)
    correction = distortion_fields(known, inputs)
    values = {"Sources": context.sources, "DistortionCorrection": correction}
    beside = naming.path("fieldmap", extension=".json")
    return [path, files.write_json(beside, naming.sidecar("fieldmap", values))]


def _named(record: object, names: dict[str, str]) -> dict[str, Any]:
    return {field: getattr(record, name) for name, field in names.items()}
