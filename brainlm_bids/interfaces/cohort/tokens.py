"""What targets are decoded from: recordings embedded under both scalings, by both sets of weights.

Tokens and series stay in the work folder. They are only there when something is decoded.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.bids.context import from_plain
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.quality import QUALITY
from brainlm_bids.cohort import sources
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.context import Record
from brainlm_bids.interfaces.model import loaded_model, untrained_control
from brainlm_bids.interfaces.steady import steady_series
from brainlm_bids.parcels import scaling

if TYPE_CHECKING:
    from brainlm_bids.model.checkpoint import LoadedModel


def scaled_twice(naming: Naming, model_tr: float) -> tuple[dict[str, NDArray[np.float32]], float]:
    """Read the series of a recording under both scalings.

    The recording's own scaling is made here, since `--scaling-stats` may have replaced it at the
    participant level.

    Parameters
    ----------
    naming
        The recording, in the names of what was scaled with the cohort.
    model_tr
        Repetition time of the model, s.

    Returns
    -------
    series
        (T, 424) by the statistics that scale it: `sources.RECORDING` and `sources.COHORT`.
    tr
        Repetition time of the series in s.
    """
    sampled, _ = steady_series(naming, model_tr)
    own = scaling.recording_stats(sampled.series, sampled.measured)
    of_recording, _ = scaling.scale(sampled.series, own, sampled.measured)
    _, of_cohort = files.read_tsv(naming.path("cohort_robust"))
    both = {sources.RECORDING: of_recording, sources.COHORT: of_cohort}
    return {name: series.astype(np.float32) for name, series in both.items()}, sampled.tr


class _EmbedInputs(ArrayInputSpec):
    naming = Record(Naming, mandatory=True, desc="of the group")
    stems = traits.List(traits.Str, mandatory=True, desc="of the recordings")
    sources = traits.List(traits.Str, mandatory=True, desc="names; they decide what is kept")
    model_tr = traits.Float(mandatory=True)
    source = traits.Str(mandatory=True, desc="folder of a checkpoint, or random:<name>")
    input_gain = traits.Float(mandatory=True)
    seed = traits.Int(mandatory=True)
    window_stride = traits.Either(None, traits.Int)
    token_orders = traits.Int(mandatory=True)
    precision = traits.Str(mandatory=True)
    device = traits.Str(mandatory=True, nohash=True)
    configuration = traits.Str(mandatory=True, desc="of the embeddings of these recordings")


class _EmbedOutputs(TraitedSpec):
    pooled = File(desc="npz: for each linear source of a network (N, D)")
    stored = File(desc="JSON: for each trained probe the files of the recordings")


class EmbedForDecoding(ArrayInterface):
    """Some recordings under both scalings, by the model and by its untrained twin."""

    input_spec = _EmbedInputs
    output_spec = _EmbedOutputs

    def _compute(self, folder: Path) -> None:
        import torch

        torch.set_num_threads(self.inputs.n_threads)
        pooled: dict[str, list[NDArray[np.float64]]] = {}
        stored: dict[str, list[str]] = {}
        group = from_plain(Naming, self.inputs.naming)
        for number, stem in enumerate(self.inputs.stems):
            naming = dataclasses.replace(group, stem=stem)
            try:
                series, tr = scaled_twice(naming, self.inputs.model_tr)
                for source, content in self._contents(series, tr):
                    if source.kind == sources.LINEAR:
                        pooled.setdefault(source.name, []).append(content)
                        continue
                    path = folder / f"{source.name}_{number:04d}.npy"
                    np.save(path, content)
                    stored.setdefault(source.name, []).append(str(path))
            except (UserError, ValueError, KeyError) as error:
                raise UserError(f"{stem}: {error}") from error
        tables: dict[str, Any] = {name: np.stack(rows) for name, rows in pooled.items()}
        np.savez(folder / "pooled.npz", **tables)
        (folder / "stored.json").write_text(json.dumps(stored))
        self._results["pooled"] = str(folder / "pooled.npz")
        self._results["stored"] = str(folder / "stored.json")

    def _contents(
        self, series: dict[str, NDArray[np.float32]], tr: float
    ) -> Iterator[tuple[sources.Source, NDArray[Any]]]:
        """Every source of a network or of the series, with what is read out of a recording."""
        chosen = [sources.by_name(name) for name in self.inputs.sources]
        for one in chosen:
            if one.features == "series":
                yield one, series[one.scaling].astype(np.float16)
        for features, load in (("embedding", loaded_model), ("untrained", untrained_control)):
            for name, values in series.items():
                of_network = [s for s in chosen if (s.features, s.scaling) == (features, name)]
                if not of_network:
                    continue
                table = self._embedded(load(*self._loading()), values, tr)
                contents = {**table.pooled, sources.ATTENTIVE: table.tokens}
                for one in of_network:
                    yield one, contents[one.readout]

    def _loading(self) -> tuple[str, int, str, str]:
        given = self.inputs
        return given.source, given.seed, given.device, given.precision

    def _embedded(self, model: "LoadedModel", series: NDArray[np.float32], tr: float) -> Any:
        from brainlm_bids.model.tokens import token_table

        return token_table(
            model,
            series,
            resources.parcels().xyz,
            tr=tr,
            seed=self.inputs.seed,
            input_gain=self.inputs.input_gain,
            stride=self.inputs.window_stride or None,
            token_orders=self.inputs.token_orders,
        )


class _GatherInputs(ArrayInputSpec):
    recordings = traits.List(traits.Dict, mandatory=True, desc="with their measures of quality")
    naming = Record(Naming, mandatory=True, desc="of the group")
    pooled = traits.List(File(exists=True), mandatory=True)
    stored = traits.List(File(exists=True), mandatory=True)
    configuration = traits.Str(mandatory=True, desc="of the embeddings of these recordings")


# By the name of a source an npy (N, F), or JSON with N files; Nipype pickles it by its module
_GatherOutputs = type(
    "_GatherOutputs",
    (TraitedSpec,),
    {"__module__": __name__, **{source.name: File() for source in sources.SOURCES}},
)


class GatherFeatures(ArrayInterface):
    """The features of all recordings in one file for each source, but for connectivity."""

    input_spec = _GatherInputs
    output_spec = _GatherOutputs

    def _compute(self, folder: Path) -> None:
        parts = [np.load(path) for path in self.inputs.pooled]
        tables = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].files}
        tables[sources.MOTION.name] = self._motion()
        tables[sources.COORDINATES.name] = self._coordinates()
        for name, table in tables.items():
            np.save(folder / f"{name}.npy", table)
            self._results[name] = str(folder / f"{name}.npy")
        lists = [files.read_json(Path(path)) for path in self.inputs.stored]
        for name in lists[0]:
            path = folder / f"{name}.json"
            path.write_text(json.dumps([file for part in lists for file in part[name]]))
            self._results[name] = str(path)

    def _motion(self) -> NDArray[np.float64]:
        rows = [[recording[key] for key in QUALITY] for recording in self.inputs.recordings]
        return np.array([[np.nan if v is None else float(v) for v in row] for row in rows])

    def _coordinates(self) -> NDArray[np.float64]:
        """(N, 3 · 424) the place of each parcel, 0 where a recording has no data in it."""
        parcels, group = resources.parcels(), from_plain(Naming, self.inputs.naming)
        rows = []
        for recording in self.inputs.recordings:
            naming = dataclasses.replace(group, stem=recording["stem"])
            sidecar = files.read_json(naming.path("denoised", extension=".json"))
            missing = set(sidecar.get("MissingParcels") or [])
            has_data = np.array([name not in missing for name in parcels.names])
            rows.append((parcels.xyz * has_data[:, None]).ravel())
        return np.array(rows)
