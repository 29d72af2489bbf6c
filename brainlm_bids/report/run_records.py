"""What the sidecars of an output folder record of its runs: the facts of the methods text.

An output folder and a selection of participants come in; a `RunRecord` per finished run goes out.
Nothing is taken from the settings of a call: the text tells what was done.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainlm_bids.bids.derivatives import Derivative, Selection, find_derivatives
from brainlm_bids.bids.names import parse
from brainlm_bids.bids.outputs import Naming, is_a424
from brainlm_bids.bids.recordings import FAILED, recording_of
from brainlm_bids.notices import Kind, from_json
from brainlm_bids.report.values import read_json

Sidecar = Mapping[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """The sidecars of one run; an empty one where there is no such output.

    Attributes
    ----------
    naming
        Of its files.
    series, scaled
        Of the denoised and of the scaled series.
    components
        Of ICA-AROMA's table of components.
    t1w
        Name of the T1w image that it was registered to, without suffix; empty if there is none.
    anatomy
        Of that image's brain mask.
    models
        Of each model's embeddings, by its label, with the mask ratios of its reconstructions.
    """

    naming: Naming
    series: Sidecar
    scaled: Sidecar = field(default_factory=dict)
    components: Sidecar = field(default_factory=dict)
    t1w: str = ""
    anatomy: Sidecar = field(default_factory=dict)
    models: Mapping[str, Sidecar] = field(default_factory=dict)

    @property
    def participant(self) -> str:
        """As in the file names, such as `sub-01`."""
        return self.naming.subject

    @property
    def kind(self) -> str:
        """What it was made from (`bids.context`); empty in the outputs of earlier versions."""
        return str(mapping(self.series.get("InputData")).get("Kind", ""))

    def warns_of(self, kind: Kind) -> bool:
        """Whether the sidecar of the series has a warning of a kind."""
        return any(one.kind == kind.value for one in from_json(self.series.get("Warnings")))


def mapping(value: object) -> Mapping[str, Any]:
    """A field of a sidecar that holds fields itself; empty if it does not."""
    return value if isinstance(value, Mapping) else {}


def gather_runs(output_dir: Path, selection: Selection | None = None) -> list[RunRecord]:
    """Read the sidecars of all finished runs, in the order of their names.

    Parameters
    ----------
    output_dir
        The folder.
    selection
        Subjects, sessions, tasks and runs; None: all.

    Returns
    -------
    list of RunRecord
        Without those whose series were not finished.
    """
    embeddings: dict[Naming, list[Derivative]] = {}
    for one in find_derivatives(output_dir, ["embeddings"], selection):
        embeddings.setdefault(one.naming, []).append(one)
    return [
        _record(one.naming, embeddings.get(one.naming, []))
        for one in find_derivatives(output_dir, ["denoised"], selection)
        if is_a424(one.naming.atlas) and recording_of(one).status != FAILED
    ]


def gather_embeddings(
    output_dir: Path, scaling: str, stems: Collection[str | None]
) -> list[RunRecord]:
    """Records of recordings that hold the sidecars of their models alone.

    Parameters
    ----------
    output_dir
        The folder.
    scaling
        Whose statistics scaled the series: `cohort`, or empty for the recording's own.
    stems
        Names of the recordings.

    Returns
    -------
    list of RunRecord
        In the order of their names.
    """
    found: dict[Naming, dict[str, Sidecar]] = {}
    for one in find_derivatives(output_dir, ["embeddings"]):
        if one.naming.scaling == scaling and one.naming.stem in stems:
            found.setdefault(one.naming, {})[one.model] = _of_model(one)
    return [RunRecord(naming, {}, models=models) for naming, models in found.items()]


def _of_model(embeddings: Derivative) -> Sidecar:
    """The sidecar of a model's embeddings, with the mask ratios of its reconstructions."""
    metrics = embeddings.naming.existing("metrics", model=embeddings.model, extension=".json")
    return {**read_json(metrics), **read_json(embeddings.path.with_suffix(".json"))}


def _record(naming: Naming, embeddings: list[Derivative]) -> RunRecord:
    def of(key: str) -> Sidecar:
        return read_json(naming.existing(key, extension=".json"))

    series = of("denoised")
    t1w = _t1w(series)
    anatomy: Sidecar = {}
    if t1w:
        there = Naming(naming.output_dir, t1w, naming.space, naming.atlas)
        anatomy = read_json(there.existing("brain_mask", extension=".json"))
    models = {one.model: _of_model(one) for one in embeddings}
    return RunRecord(naming, series, of("robust"), of("aroma_metrics"), t1w, anatomy, models)


def _t1w(series: Sidecar) -> str:
    """The T1w image among the sources of a raw run."""
    sources = series.get("Sources")
    names = [Path(str(source)).name for source in sources] if isinstance(sources, list) else []
    images = [parse(name) for name in names if parse(name).suffix == "T1w"]
    return images[0].stem if images else ""
