"""Nipype interfaces that find how the magnetic field distorts a run."""

import logging
from pathlib import Path

from nipype.interfaces.base import File, TraitedSpec, traits

from brainlm_bids.bids.context import from_plain
from brainlm_bids.bids.fieldmaps import Fieldmap
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.context import Record
from brainlm_bids.interfaces.images import load_image, load_mask, save_image
from brainlm_bids.preproc.distortion.field import FieldMap, PhaseEncoding

LOGGER = logging.getLogger(__name__)


class _UndistortInputs(ArrayInputSpec):
    boldref = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    fieldmap = Record(Fieldmap, mandatory=True)
    # what the cache of the node depends on, beside the record
    files = traits.List(File(exists=True), mandatory=True, desc="the images of the field map")
    direction = traits.Str(mandatory=True, desc="of the run's phase encoding, such as j-")
    readout = traits.Float(mandatory=True, desc="total read-out time of the run, s")
    seed = traits.Int(mandatory=True)


class _UndistortOutputs(TraitedSpec):
    distortion = File(desc="a `Distortion`; nothing if the field map was refused")
    boldref = File(desc="of the run without distortion, for registration")
    brain_mask = File(desc="the same")
    fit = File(desc="a `Fit`; nothing if the field map could not be compared with the run")
    refused = traits.Str(desc="why the field map was not used; empty if it was")


class Undistort(ArrayInterface):
    """The distortion of a run by a measured field; a field map that does not fit is refused."""

    input_spec = _UndistortInputs
    output_spec = _UndistortOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        boldref, affine = load_image(self.inputs.boldref)
        brain_mask = load_mask(self.inputs.brain_mask)
        fieldmap = from_plain(Fieldmap, self.inputs.fieldmap)
        try:
            field_map = _measured(fieldmap, self.inputs.seed)
        except UserError as error:
            found = steps.Undistorted(None, boldref, brain_mask, refused=str(error))
        else:
            found = steps.undistort(
                boldref,
                affine,
                brain_mask,
                PhaseEncoding.from_bids(self.inputs.direction, self.inputs.readout),
                field_map,
                seed=self.inputs.seed,
            )
        self._results["refused"] = ""
        if found.refused:
            refused = f"{fieldmap.images[0].name}: {found.refused}"
            self._results["refused"] = " ".join(refused.split())
            LOGGER.warning("%s: the field map is not used: %s", self.inputs.boldref, refused)
        for name in ("distortion", "fit"):
            record = getattr(found, name)
            if record is not None:
                self._results[name] = payloads.save(record, folder / name)
        for name in ("boldref", "brain_mask"):
            file = folder / f"{name}.nii.gz"
            self._results[name] = save_image(file, getattr(found, name), affine)


def _measured(fieldmap: Fieldmap, seed: int) -> FieldMap:
    from brainlm_bids.preproc import steps

    magnitude = fieldmap.magnitude
    return steps.measure_field(
        fieldmap.kind,
        [load_image(str(path)) for path in fieldmap.images],
        None if magnitude is None else load_image(str(magnitude)),
        echo_times=fieldmap.echo_times,
        units=fieldmap.units,
        encodings=[PhaseEncoding.from_bids(*one) for one in fieldmap.encodings],
        seed=seed,
    )
