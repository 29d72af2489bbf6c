"""What a raw run's scanner did: phase encoding, field map, single-band reference, slice times.

Files of a data set and the metadata of a run come in. What the run has goes out, and in one line
each why it lacks the rest. Nothing that is wrong with these files stops a run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from brainlm_bids.bids.fieldmaps import Fieldmap
from brainlm_bids.bids.headers import image_shape, read_metadata
from brainlm_bids.bids.layout import Selected
from brainlm_bids.bids.names import parse
from brainlm_bids.bids.readout import Readout, phase_encoding_direction, total_readout_time
from brainlm_bids.bids.slices import SliceTable, slice_timing
from brainlm_bids.errors import UserError
from brainlm_bids.files import check_readable
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.settings import Settings


class Acquired(NamedTuple):
    """What is known of a run's acquisition; the fields are those of `Run`."""

    fieldmap: Fieldmap | None = None
    phase_encoding: tuple[str, float] | None = None
    no_fieldmap: str = ""
    sbref: Path | None = None
    slices: SliceTable | None = None
    warnings: tuple[Notice, ...] = ()


class Acquisition:
    """The field maps and single-band references of a data set.

    Parameters
    ----------
    files
        Of the selection.
    settings
        Of the call.
    """

    def __init__(self, files: Selected, settings: Settings) -> None:
        self._files = files
        self._settings = settings
        self._root = settings.bids_dir

    def of(self, path: Path, metadata: Mapping[str, Any]) -> Acquired:
        """What a run has.

        Parameters
        ----------
        path
            Of its image, which can be read.
        metadata
            Its merged sidecars.
        """
        direction, problem = phase_encoding_direction(metadata)
        readout = Readout(problem=problem)
        if direction is not None:
            fallback = self._settings.fallback_total_readout_time
            readout = total_readout_time(metadata, image_shape(path), direction, fallback)
        encoding = None
        if direction is not None and readout.seconds is not None:
            encoding = direction, readout.seconds
        sbref, warnings = self._sbref(path, metadata)
        warnings += [
            notice(Kind.READOUT_DOUBTFUL, f"{path.name}: {doubt}.") for doubt in readout.doubts
        ]
        slices = None
        if self._settings.slice_timing:
            slices, doubts = slice_timing(path.name, metadata, image_shape(path))
            warnings += doubts
        return Acquired(
            phase_encoding=encoding,
            no_fieldmap="--ignore fieldmaps" if "fieldmaps" in self._settings.ignore else "",
            sbref=sbref,
            slices=slices,
            warnings=tuple(warnings),
        )

    def _sbref(self, path: Path, metadata: Mapping[str, Any]) -> tuple[Path | None, list[Notice]]:
        """The single-band reference of a run; a note where there is one that does not fit."""
        if "sbref" in self._settings.ignore:
            return None, []
        stem = parse(path.name).stem
        own = [one for one in self._files.sbref if parse(one.name).stem == stem]
        for sbref in sorted(own, key=lambda one: one.suffix != ".gz"):
            try:
                misfit = self._misfit(sbref, path, metadata)
            except UserError as error:
                misfit = str(error)
            if misfit is None:
                return sbref, []
            text = f"{misfit}; this single-band reference is not used."
            return None, [notice(Kind.SBREF_NOT_USED, text)]
        return None, []

    def _misfit(self, sbref: Path, run: Path, metadata: Mapping[str, Any]) -> str | None:
        """Why an image cannot be the reference of a run; UserError if it cannot be read."""
        check_readable(sbref, whole=True)
        shape, of_run = image_shape(sbref)[:3], image_shape(run)[:3]
        if shape != of_run:
            return f"{sbref.name}: has {_by(shape)} voxels, and the run {_by(of_run)}"
        own, _ = phase_encoding_direction(read_metadata(sbref, self._root))
        direction, _ = phase_encoding_direction(metadata)
        if own is not None and direction is not None and own != direction:
            return f"{sbref.name}: PhaseEncodingDirection is {own}, and that of the run {direction}"
        return None


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(str(n) for n in shape)
