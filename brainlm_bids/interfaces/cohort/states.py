"""States: what they are decoded from, their decoding from each source, and the tables of all."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.context import from_plain
from brainlm_bids.bids.outputs import Naming, model_stage
from brainlm_bids.cohort import sources
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.cohort.common import GroupInputs, GroupInterface, Plain
from brainlm_bids.interfaces.cohort.tokens import scaled_twice
from brainlm_bids.interfaces.context import Record

# Key of the index: share of the volumes of a block's time patches that lies within it
SHARE = "share"


class _StateFeaturesInputs(ArrayInputSpec):
    naming = Record(Naming, mandatory=True, desc="of the group")
    stems = traits.List(traits.Str, mandatory=True, desc="of R recordings")
    stretches = traits.List(
        traits.List(traits.List(traits.Int)),
        mandatory=True,
        desc="R lists of (B, 2) volumes at the model's rate",
    )
    times = traits.List(
        traits.List(traits.List(traits.Float)),
        mandatory=True,
        desc="R lists of (B, 2) beginning and end of them in s",
    )
    model_tr = traits.Float(mandatory=True)
    source = traits.Str(mandatory=True, desc="folder of a checkpoint, or random:<name>")
    kinds = traits.List(traits.Str, mandatory=True, desc="of readouts")
    input_gain = traits.Float(mandatory=True)
    seed = traits.Int(mandatory=True)
    precision = traits.Str(mandatory=True)
    device = traits.Str(mandatory=True, nohash=True)


class _StateFeaturesOutputs(TraitedSpec):
    indices = traits.List(
        File, desc="JSON of each recording: name of a source -> npy (B, F), or a list of B npy"
    )


class StateFeatures(ArrayInterface):
    """All that the blocks of some recordings are decoded from, by name of the source."""

    input_spec = _StateFeaturesInputs
    output_spec = _StateFeaturesOutputs

    def _compute(self, folder: Path) -> None:
        import torch

        torch.set_num_threads(self.inputs.n_threads)
        group, indices = from_plain(Naming, self.inputs.naming), []
        for number, stem in enumerate(self.inputs.stems):
            self._folder = folder / f"{number:04d}"
            self._folder.mkdir(exist_ok=True)
            self._index: dict[str, Any] = {}
            self._recording(dataclasses.replace(group, stem=stem), number)
            indices.append(self._folder / "index.json")
            indices[-1].write_text(json.dumps(self._index))
        self._results["indices"] = [str(path) for path in indices]

    def _recording(self, naming: Naming, number: int) -> None:
        stretches = np.array(self.inputs.stretches[number], dtype=np.int64)
        both, _ = scaled_twice(naming, self.inputs.model_tr)
        for scaling, series in both.items():
            self._of_series(scaling, series, stretches)
        own = both[sources.RECORDING]
        self._connectivity(own, stretches)
        self._keep(sources.COORDINATES.name, _coordinates(own, len(stretches)))
        times = np.array(self.inputs.times[number], dtype=np.float64)
        self._keep(sources.STATE_MOTION.name, _motion(naming, times))

    def _of_series(
        self, scaling: str, series: NDArray[np.float32], stretches: NDArray[np.int64]
    ) -> None:
        from brainlm_bids.interfaces.model import loaded_model, untrained_control
        from brainlm_bids.model.states import embed_stretches

        parts = [series[first:end] for first, end in stretches]
        self._keep(f"series_linear_{scaling}", np.stack([part.mean(axis=0) for part in parts]))
        if sources.MLP in self.inputs.kinds:
            self._keep_all(f"series_mlp_{scaling}", [part[None] for part in parts])
        given = self.inputs
        loading = (given.source, given.seed, given.device, given.precision)
        for features, load in (("embedding", loaded_model), ("untrained", untrained_control)):
            found = embed_stretches(
                load(*loading),
                series,
                resources.parcels().xyz,
                stretches,
                seed=given.seed,
                input_gain=given.input_gain,
            )
            self._keep(f"{features}_cls_{scaling}", found.cls)
            self._keep(f"{features}_mean_{scaling}", found.mean)
            self._keep(SHARE, found.share)
            if sources.ATTENTIVE in given.kinds:
                tokens = [one[None] for one in found.tokens]
                self._keep_all(f"{features}_attentive_{scaling}", tokens)

    def _connectivity(self, series: NDArray[Any], stretches: NDArray[np.int64]) -> None:
        from brainlm_bids.model.networks import correlation_profile
        from brainlm_bids.parcels.connectivity import fisher_z

        rows = [fisher_z(correlation_profile(series[first:end])) for first, end in stretches]
        self._keep(sources.CONNECTIVITY.name, np.stack(rows).astype(np.float32))

    def _keep(self, name: str, values: NDArray[Any]) -> None:
        path = self._folder / f"{name}.npy"
        np.save(path, values)
        self._index[name] = str(path)

    def _keep_all(self, name: str, blocks: Sequence[NDArray[Any]]) -> None:
        """One file per block, since blocks differ in their numbers of tokens and volumes."""
        paths = [self._folder / f"{name}_{number:04d}.npy" for number in range(len(blocks))]
        for path, values in zip(paths, blocks, strict=True):
            np.save(path, values)
        self._index[name] = [str(path) for path in paths]


def _motion(naming: Naming, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, 3) mean framewise displacement in mm; beginning and duration of the block in s."""
    moved = np.full(len(times), np.nan)
    table = naming.path("confounds")
    if table.is_file():
        sidecar = files.read_json(naming.path("denoised", extension=".json"))
        tr = float(sidecar["RepetitionTime"])
        names, values = files.read_tsv(table)
        column = values[:, names.index("framewise_displacement")]
        for row, (begin, end) in enumerate(times):
            first = int(begin / tr)
            part = column[first : max(int(np.ceil(end / tr)), first + 1)]
            moved[row] = np.nanmean(part) if np.isfinite(part).any() else np.nan
    return np.column_stack([moved, times[:, 0], times[:, 1] - times[:, 0]])


def _coordinates(series: NDArray[Any], n_blocks: int) -> NDArray[np.float64]:
    """(B, 3 P) coordinates of the parcels with data: the same for all blocks of a recording."""
    has_data = np.ptp(series, axis=0) > 0
    xyz = np.where(has_data[:, None], resources.parcels().xyz, 0.0)
    return np.tile(xyz.ravel(), (n_blocks, 1))


class _DecodeStatesInputs(ArrayInputSpec):
    indices = traits.List(File(exists=True), mandatory=True, desc="of `StateFeatures`, in order")
    source = traits.Str(mandatory=True, desc="name of a source")
    rows = traits.List(traits.Int, mandatory=True, desc="blocks of all indices that take part")
    values = traits.List(traits.Float, mandatory=True)
    classes = traits.List(traits.Str, mandatory=True)
    groups = traits.List(traits.Str, mandatory=True, desc="left out as a whole, of each row")
    runs = traits.List(traits.Str, mandatory=True, desc="recording of each row")
    permutations = traits.Int(mandatory=True)
    seed = traits.Int(mandatory=True)


class _DecodeStatesOutputs(TraitedSpec):
    decoded = File()


class DecodeStates(ArrayInterface):
    """The state of every block from one source."""

    input_spec = _DecodeStatesInputs
    output_spec = _DecodeStatesOutputs

    def _compute(self, folder: Path) -> None:
        import torch

        from brainlm_bids.cohort.permutations import within_group_p

        torch.set_num_threads(self.inputs.n_threads)
        given = self.inputs
        parts = [json.loads(Path(path).read_text())[given.source] for path in given.indices]
        if isinstance(parts[0], str):
            decoded = self._by_line(folder, parts)
        else:
            files_of_blocks = [path for part in parts for path in part]
            decoded = self._by_probe([files_of_blocks[row] for row in given.rows])
        p = within_group_p(
            given.values,
            decoded.predictions,
            given.runs,
            n_classes=len(given.classes),
            n_permutations=given.permutations,
            seed=given.seed,
        )
        result = {
            "source": given.source,
            "scores": {name: list(score) for name, score in decoded.scores.items()},
            "p": p,
            "n_folds": decoded.n_folds,
            "n_repeats": decoded.n_repeats,
            "predictions": decoded.predictions.tolist(),
        }
        path = folder / "decoded.json"
        path.write_text(json.dumps(result))
        self._results["decoded"] = str(path)

    def _by_line(self, folder: Path, parts: Sequence[str]) -> Any:
        """A penalised linear model; features of thousands of blocks stay on disk."""
        from brainlm_bids.cohort.decoding import decode
        from brainlm_bids.cohort.folds import n_repeats

        blocks = [np.load(path, mmap_mode="r") for path in parts]
        ends = np.cumsum([len(part) for part in blocks])
        shape = (len(self.inputs.rows), blocks[0].shape[1])
        features = np.lib.format.open_memmap(
            folder / "features.npy", mode="w+", dtype=np.float32, shape=shape
        )
        for place, row in enumerate(self.inputs.rows):
            part = int(np.searchsorted(ends, row, side="right"))
            features[place] = blocks[part][row - (ends[part] - len(blocks[part]))]
        given = self.inputs
        return decode(
            features,
            given.values,
            given.groups,
            n_classes=len(given.classes),
            seed=given.seed,
            folds=self._folds(n_repeats(len(features))),
        )

    def _folds(self, repeats: int) -> Any:
        from brainlm_bids.cohort.states import state_folds

        given = self.inputs
        values = np.array(given.values, dtype=np.float64)
        return state_folds(values, given.groups, repeats=repeats, seed=given.seed)

    def _by_probe(self, paths: Sequence[str]) -> Any:
        from brainlm_bids.cohort.bags import Bags
        from brainlm_bids.cohort.decoding import decode_by
        from brainlm_bids.cohort.probes import predictor_of

        given, bags = self.inputs, Bags(tuple((Path(path),) for path in paths))
        kind = sources.ATTENTIVE if sources.ATTENTIVE in given.source else sources.MLP
        return decode_by(
            predictor_of(kind, bags),
            given.values,
            given.groups,
            n_classes=len(given.classes),
            seed=given.seed,
            folds=self._folds(1),
        )


class _WriteStatesInputs(GroupInputs):
    label = traits.Str(mandatory=True)
    blocks = traits.List(traits.Dict, mandatory=True, desc="those that take part: see the table")
    values = traits.List(traits.Float, mandatory=True)
    classes = traits.List(traits.Str, mandatory=True)
    indices = traits.List(File(exists=True), mandatory=True)
    rows = traits.List(traits.Int, mandatory=True, desc="blocks of all indices that take part")
    decoded = traits.List(File(exists=True), mandatory=True)
    column = traits.Str(mandatory=True)
    configuration = traits.Str(mandatory=True)


class WriteStates(GroupInterface):
    """The decoding of states of one model: scores, predictions, confusion, figure, record."""

    input_spec = _WriteStatesInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        self._begin()
        self._label = self.inputs.label
        found = {}
        for path in self.inputs.decoded:
            result = json.loads(Path(path).read_text())
            found[result["source"]] = result
        chosen = [source for source in sources.STATE_SOURCES if source.name in found]
        # the first where no embedding is among them, as with --readouts mlp
        default = sources.default_of(chosen) or chosen[0]
        written = [
            self._table(
                "states", self._scores(chosen, found), DefaultReadout=default.name, **self._counts()
            ),
            self._table("state_predictions", self._predictions(chosen, found)),
            self._table("state_confusion", self._confusion(chosen, found)),
            self._naming.figure("states", model=self._label),
        ]
        self._draw(written[-1], chosen, found, default)
        outputs.write_record(
            Path(self._naming.output_dir),
            self._naming.stem,
            model_stage(self._label, self._naming.scaling, "states"),
            self.inputs.configuration,
            written,
        )

    def _draw(
        self,
        path: Path,
        chosen: Sequence[sources.Source],
        found: Mapping[str, Plain],
        default: sources.Source,
    ) -> None:
        from brainlm_bids.figures.states import plot_states

        rows = []
        for source in chosen:
            value, low, high = found[source.name]["scores"]["balanced_accuracy"]
            row = {"label": source.label, "role": source.role, "p": found[source.name]["p"]}
            rows.append({**row, "value": value, "low": low, "high": high})
        shares = self._counted(found[default.name])
        shares = shares / shares.sum(axis=1, keepdims=True)
        plot_states(path, rows, shares, list(self.inputs.classes), default.label)

    def _counts(self) -> dict[str, Any]:
        """How many blocks each state has, what a guess reaches, and how well patches fit blocks."""
        counts = np.bincount(np.array(self.inputs.values, dtype=np.int64))
        indices = [json.loads(Path(path).read_text()) for path in self.inputs.indices]
        share = np.concatenate([np.load(index[SHARE]) for index in indices])[self.inputs.rows]
        return {
            "ShareOfTimePatchesWithinBlocks": float(np.median(share)),
            "BlocksPerState": dict(zip(self.inputs.classes, counts.tolist(), strict=True)),
            "Chance": {
                "balanced_accuracy": 1 / len(counts),
                "accuracy": float(counts.max() / counts.sum()),
                "auc": 0.5,
            },
        }

    def _scores(
        self, chosen: Sequence[sources.Source], found: Mapping[str, Plain]
    ) -> dict[str, list[Any]]:
        blocks = self.inputs.blocks
        columns: dict[str, list[Any]] = {}
        for source in chosen:
            result = found[source.name]
            for metric, (value, low, high) in result["scores"].items():
                row = {
                    "target": self.inputs.column,
                    "type": "classification",
                    "features": source.features,
                    "readout": source.readout,
                    "scaling": source.scaling,
                    "metric": metric,
                    "value": value,
                    "low": low,
                    "high": high,
                    "permutation_p": result["p"],
                    "n_blocks": len(blocks),
                    "n_recordings": len({block["recording"] for block in blocks}),
                    "n_subjects": len({block["participant_id"] for block in blocks}),
                    "n_folds": result["n_folds"],
                    "n_repeats": result["n_repeats"],
                }
                for key, cell in row.items():
                    columns.setdefault(key, []).append(cell)
        return columns

    def _predictions(
        self, chosen: Sequence[sources.Source], found: Mapping[str, Plain]
    ) -> dict[str, list[Any]]:
        """A row per block and state: its probability by each source."""
        columns: dict[str, list[Any]] = {}
        for place, block in enumerate(self.inputs.blocks):
            for k, state in enumerate(self.inputs.classes):
                row = {**block, "class": state}
                row |= {one.name: found[one.name]["predictions"][place][k] for one in chosen}
                for key, cell in row.items():
                    columns.setdefault(key, []).append(cell)
        return columns

    def _confusion(
        self, chosen: Sequence[sources.Source], found: Mapping[str, Plain]
    ) -> dict[str, list[Any]]:
        """A row per source, true and predicted state: number and share of the true state's."""
        states = list(self.inputs.classes)
        columns: dict[str, list[Any]] = {}
        for source in chosen:
            counts = self._counted(found[source.name])
            for i, true in enumerate(states):
                for j, guess in enumerate(states):
                    row = {
                        "features": source.features,
                        "readout": source.readout,
                        "scaling": source.scaling,
                        "truth": true,
                        "predicted": guess,
                        "n_blocks": int(counts[i, j]),
                        "share": float(counts[i, j] / counts[i].sum()),
                    }
                    for key, cell in row.items():
                        columns.setdefault(key, []).append(cell)
        return columns

    def _counted(self, result: Plain) -> NDArray[np.int64]:
        """(S, S) numbers of blocks by true and by predicted state."""
        from sklearn.metrics import confusion_matrix

        truth = np.array(self.inputs.values, dtype=np.int64)
        guessed = np.array(result["predictions"]).argmax(axis=1)
        every = list(range(len(self.inputs.classes)))
        return np.asarray(confusion_matrix(truth, guessed, labels=every), dtype=np.int64)
