"""What the writers of derivatives know of a recording: frozen records, made before the graph runs.

A Nipype node holds a record as a dictionary of plain values (`to_plain`), since Nipype hashes,
prints and pickles its inputs; the node's interface reads the record back (`from_plain`).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Self, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from brainlm_bids.bids.distortion import DistortionInfo
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.notices import Notice

T = TypeVar("T")
# What a run's series can be made from: raw BOLD, derivatives of fMRIPrep or XCP-D, a given parcel
# series.
RAW, FMRIPREP, XCP_D, SERIES = "raw", "fMRIPrep", "XCP-D", "series"
# The fields of a sidecar by the names of a record's.
TEMPLATE_FIELDS = {"name": "Name", "source": "Source", "sha256": "SHA256"}
ATLAS_FIELDS = {
    "name": "Name",
    "space": "Space",
    "sha256": "SHA256",
    "source": "Source",
    "approximate": "Approximate",
}
INPUT_FIELDS = {
    "kind": "Kind",
    "version": "Version",
    "space": "Space",
    "level": "GrandMeanOf",
    "dropped": "VolumesLeftOutAtStart",
}
# How well a run was registered, by the names of `brainlm_bids.preproc.registration.quality`.
REGISTRATION_FIELDS = {
    "contrast": "RegistrationContrast",
    "cost": "RegistrationCost",
    "overlap": "BrainOverlap",
    "dice": "TemplateDice",
    "edge": "BrainAtImageEdge",
    "correlation": "TemplateCorrelation",
}


@dataclass(frozen=True)
class AtlasInfo:
    """The atlas that the parcels were taken from; None for what is not recorded."""

    name: str
    space: str | None = None
    sha256: str | None = None
    source: str | None = None
    approximate: bool | None = None

    def sidecar(self) -> dict[str, str | bool]:
        """The content of the field Atlas."""
        return _recorded(self, ATLAS_FIELDS)

    @classmethod
    def from_sidecar(cls, values: object) -> Self | None:
        """Read the field Atlas of a sidecar, which an earlier version may have written."""
        return _read_info(cls, values, ATLAS_FIELDS)


@dataclass(frozen=True)
class ParcellationInfo:
    """A parcellation beside A424 whose series of a run are to be written.

    Parameters
    ----------
    atlas : AtlasInfo
        As sidecars describe it; its name is the label in the names of outputs.
    labels : str
        File of its `Labelled`.
    configuration : str
        Hash of everything that its series depend on.
    warnings : tuple of Notice
        About it.
    """

    atlas: AtlasInfo
    labels: str
    configuration: str
    warnings: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class TemplateInfo:
    """The template space of the outputs; a template that was not used here has no checksum."""

    name: str
    source: str | None = None
    sha256: str | None = None

    def sidecar(self) -> dict[str, str | bool]:
        """The content of the field Template."""
        return _recorded(self, TEMPLATE_FIELDS)

    @classmethod
    def from_sidecar(cls, values: object) -> Self | None:
        """Read the field Template of a sidecar, which an earlier version may have written."""
        return _read_info(cls, values, TEMPLATE_FIELDS)


def _recorded(info: object, names: Mapping[str, str]) -> dict[str, Any]:
    values = {key: getattr(info, name) for name, key in names.items()}
    return {key: value for key, value in values.items() if value is not None}


def _read_info(record: type[T], values: object, names: Mapping[str, str]) -> T | None:
    if not isinstance(values, Mapping) or "Name" not in values:
        return None
    return record(**{name: values.get(key) for name, key in names.items()})


@dataclass(frozen=True)
class ModelInfo:
    """A model as sidecars describe it.

    Parameters
    ----------
    label : str
        In the names of its outputs.
    name : str
        As given by the user.
    sha256 : str or None
        Of the weights; None for random weights.
    source, licence : str
        Where the weights come from, and under which licence they may be used.
    warnings : tuple of Notice
        What the sidecar of every output made with it must hold.
    """

    label: str
    name: str
    sha256: str | None
    source: str
    licence: str
    warnings: tuple[Notice, ...] = ()

    def sidecar(self) -> dict[str, str | None]:
        """The content of the field Model, but for what is known only when the model is loaded."""
        keys = ("label", "name", "sha256", "source", "licence")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class InputInfo:
    """What a run's series were made from.

    Parameters
    ----------
    kind : str
        One of `RAW`, `FMRIPREP`, `XCP_D` and `SERIES`.
    version : str or None
        Of the program whose derivatives were used, if they record it.
    space : str or None
        Of its BOLD.
    level : str or None
        URI of the preprocessed series whose grand mean set the amplitude of a denoised one; None
        where that is not there.
    dropped : int or None
        Volumes that had been left out at the start; None where that is not known.
    """

    kind: str
    version: str | None = None
    space: str | None = None
    level: str | None = None
    dropped: int | None = None

    def sidecar(self) -> dict[str, Any]:
        """The content of the field InputData."""
        return _recorded(self, INPUT_FIELDS)

    def about_series(self) -> dict[str, str]:
        """Description and Units of a denoised series that others made; nothing for ours."""
        if self.kind not in (XCP_D, SERIES):
            return {}
        given = "as given" if self.kind == SERIES else "as XCP-D denoised and filtered it"
        units = "arbitrary" if self.level is None else "arbitrary, grand mean 10000"
        return {
            "Description": f"Mean of each parcel, {given}, without further denoising or filtering; "
            "a row per volume, bad and censored volumes and parcels without data are n/a",
            "Units": units,
        }


@dataclass(frozen=True)
class AnatomicalContext:
    """What the writer of a T1w image's derivatives knows."""

    naming: Naming
    sources: tuple[str, ...]
    template: TemplateInfo
    normalization: str = "fast"


@dataclass(frozen=True)
class RecordingContext:
    """What the model stage knows of a recording, at both analysis levels.

    Parameters
    ----------
    naming : Naming
        The names of the recording's outputs.
    atlas, template : AtlasInfo, TemplateInfo or None
        None where an earlier level did not record them.
    warnings : tuple of Notice
        What the reader of every output should know.
    models : mapping of str to ModelInfo
        By label.
    """

    naming: Naming
    atlas: AtlasInfo | None
    template: TemplateInfo | None
    warnings: tuple[Notice, ...]
    models: Mapping[str, ModelInfo] = field(hash=False)

    def spaces(self) -> dict[str, Any]:
        """The fields Atlas and Template of a sidecar."""
        return {
            "Atlas": None if self.atlas is None else self.atlas.sidecar(),
            "Template": None if self.template is None else self.template.sidecar(),
        }


@dataclass(frozen=True)
class RecordedSettings:
    """The settings that sidecars and figures of a run report; None for a step that was not done.

    `dummy_scans` is None where the volumes before the steady state were detected. Filters, and
    `regressed`, the confounds that were regressed out, may be those of a program that denoised the
    series before; `regressed` is None where that is not known, or told elsewhere.
    """

    denoise: str
    high_pass: float | None
    low_pass: float | None
    fd_spike_threshold: float
    dvars_spike_threshold: float
    min_parcel_coverage: float | None
    random_seed: int
    dummy_scans: int | None = None
    normalization: str | None = None
    regressed: tuple[str, ...] | None = None


@dataclass(frozen=True)
class RunContext(RecordingContext):
    """What the writers of a run's series know beyond that.

    Parameters
    ----------
    tr : float
        Repetition time of the source, in seconds.
    task : str
        Name of the task.
    sources : tuple of str
        BIDS URIs of the files that the series were made from.
    registration : str
        How the run came into template space.
    configuration : str
        Hash of everything that the series depend on.
    settings : RecordedSettings
        As sidecars report them.
    slice_timing_corrected : bool or None
        None if it is not known.
    start : float
        Time that the first volume stands for, in s after the scan began: 0 without slice timing
        correction, but for a given series, which may begin later.
    scaling_statistics : str
        Whose median and interquartile range scale the series.
    input_data : InputInfo
        What the series were made from.
    distortion : DistortionInfo
        How the run is corrected for susceptibility distortion.
    echo_times : tuple of float
        Of the echoes that were combined, in s; none where there was one.
    sbref : str or None
        Of the sources, the single-band reference, which may turn out not to fit.
    parcellations : tuple of ParcellationInfo
        Whose series are to be written too.
    with_a424 : bool
        Whether the series of A424, and all that is not about an atlas, are to be written: they may
        be complete already.
    """

    tr: float
    task: str
    sources: tuple[str, ...]
    registration: str
    configuration: str
    settings: RecordedSettings
    slice_timing_corrected: bool | None
    start: float
    scaling_statistics: str
    input_data: InputInfo
    distortion: DistortionInfo
    echo_times: tuple[float, ...] = ()
    sbref: str | None = None
    parcellations: tuple[ParcellationInfo, ...] = ()
    with_a424: bool = True


def to_plain(value: Any) -> Any:
    """A record as dictionaries, lists and plain values, equal for equal records.

    >>> to_plain(TemplateInfo("MNI152NLin6Asym", "TemplateFlow"))
    {'name': 'MNI152NLin6Asym', 'source': 'TemplateFlow', 'sha256': None}
    """
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_plain(record: type[T], values: Mapping[str, Any]) -> T:
    """The record that `to_plain` was given; fields of a subclass of `record` are left out.

    >>> from_plain(TemplateInfo, {"name": "MNI152NLin6Asym", "source": "TemplateFlow"})
    TemplateInfo(name='MNI152NLin6Asym', source='TemplateFlow', sha256=None)
    """
    hints = get_type_hints(record)
    names = [f.name for f in dataclasses.fields(cast(Any, record)) if f.name in values]
    return record(**{name: _typed(hints[name], values[name]) for name in names})


def _typed(hint: Any, value: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None:
            return None
        return _typed(next(a for a in arguments if a is not type(None)), value)
    if dataclasses.is_dataclass(hint):
        return from_plain(cast(Any, hint), value)
    if origin is tuple:
        return tuple(_typed(arguments[0], item) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return {key: _typed(arguments[1], item) for key, item in value.items()}
    return Path(value) if hint is Path else value
