"""Decoding: each target from each source, and the tables of all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids.bids import outputs
from brainlm_bids.bids.outputs import model_stage
from brainlm_bids.cohort.sources import (
    DECODING_COLUMNS,
    LINEAR,
    P_VALUES,
    SOURCES,
    Source,
    by_name,
    default_of,
    find,
)
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.cohort.common import (
    GroupInputs,
    GroupInterface,
    Plain,
)

if TYPE_CHECKING:
    from brainlm_bids.cohort.decoding import Decoded, Predictor

UNIT_KEYS = ("unit", "participant_id", "session_id", "n_recordings", "recordings")


class _DecodeInputs(ArrayInputSpec):
    source = traits.Str(mandatory=True, desc="name of what is decoded from")
    features = File(exists=True, mandatory=True, desc="npy (N, F), or JSON with N files")
    units = traits.List(traits.List(traits.Int), mandatory=True, desc="rows of the features")
    targets = traits.List(traits.Dict, mandatory=True, desc="name, values, classes; of these units")
    subjects = traits.List(traits.Str, mandatory=True)
    confounds = traits.List(traits.List(traits.Float), mandatory=True)
    held_out = traits.List(traits.Str, [], usedefault=True, desc="see cohort.sites.Sites")
    harmonised = traits.List(traits.Str, [], usedefault=True)
    kept = traits.List(traits.List(traits.Float), [], usedefault=True)
    alike = traits.List(traits.Str, [], usedefault=True)
    permutations = traits.Int(mandatory=True)
    seed = traits.Int(mandatory=True)


class _DecodeOutputs(TraitedSpec):
    decoded = File()


class Decode(ArrayInterface):
    """Targets of the same units from one source."""

    input_spec = _DecodeInputs
    output_spec = _DecodeOutputs
    OF_TARGET = ("name", "values", "classes")

    def _compute(self, folder: Path) -> None:
        targets = self.inputs.targets
        try:
            results = [_plain(one) for one in self._decoded(folder)]
        except UserError as error:
            results = [{"problem": str(error)} for _ in targets]
        path = folder / "decoded.json"
        told = [
            {"target": target["name"], "source": self.inputs.source, **result}
            for target, result in zip(targets, results, strict=True)
        ]
        path.write_text(json.dumps(told))
        self._results["decoded"] = str(path)

    def _decoded(self, folder: Path) -> "list[Decoded]":
        from brainlm_bids.cohort.decoding import Target, decode_by, decode_together
        from brainlm_bids.cohort.sites import Sites

        given = self.inputs
        shared: dict[str, Any] = {
            "n_permutations": given.permutations,
            "seed": given.seed,
            "sites": Sites.of_plain(given.held_out, given.harmonised, given.kept, given.alike),
        }
        targets = [Target(one["values"], len(one["classes"])) for one in given.targets]
        kind = by_name(given.source).kind
        if kind != LINEAR:
            predictor = self._probe(kind)
            return [
                decode_by(predictor, values, given.subjects, n_classes=n_classes, **shared)
                for values, n_classes in targets
            ]
        confounds = np.array(given.confounds, dtype=np.float64).reshape(len(given.units), -1)
        features = self._features(folder)
        return decode_together(features, targets, given.subjects, confounds=confounds, **shared)

    def _features(self, folder: Path) -> NDArray[np.floating]:
        """(U, F) the mean over the recordings of each unit; in a file, for large cohorts."""
        from brainlm_bids.cohort.units import unit_means

        features = np.load(self.inputs.features, mmap_mode="r")
        units = self.inputs.units
        if units == [[row] for row in range(len(features))]:
            return np.asarray(features)
        shape = (len(units), features.shape[1])
        means = np.lib.format.open_memmap(
            folder / "features.npy", mode="w+", dtype=features.dtype, shape=shape
        )
        unit_means(features, units, out=means)
        return means

    def _probe(self, kind: str) -> "Predictor":
        """What trains the probe on the windows of all recordings of a unit."""
        import torch

        from brainlm_bids.cohort.bags import Bags
        from brainlm_bids.cohort.probes import predictor_of

        torch.set_num_threads(self.inputs.n_threads)
        paths = json.loads(Path(self.inputs.features).read_text())
        return predictor_of(
            kind, Bags(tuple((Path(path),) for path in paths)).join(self.inputs.units)
        )


def _plain(decoded: "Decoded") -> Plain:
    return {
        "scores": {name: list(score) for name, score in decoded.scores.items()},
        "p": decoded.p,
        "n_folds": decoded.n_folds,
        "n_repeats": decoded.n_repeats,
        "predictions": decoded.predictions.tolist(),
        "reference": decoded.reference.tolist(),
    }


class _WriteDecodingInputs(GroupInputs):
    label = traits.Str(mandatory=True)
    targets = traits.List(traits.Dict, mandatory=True, desc="name, unit, units, values, classes")
    decoded = traits.List(File(exists=True), mandatory=True)
    configuration = traits.Str(mandatory=True)


class WriteDecoding(GroupInterface):
    """All targets of one model: scores, predictions, a figure, and the record."""

    input_spec = _WriteDecodingInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.cohort.folds import OUTER_FOLDS
        from brainlm_bids.cohort.readouts import INNER_FOLDS
        from brainlm_bids.figures.cohort import plot_decoding

        self._begin()
        self._label = self.inputs.label
        self._problems = dict(self.inputs.sidecar.get("NotDecoded", {}))
        found = self._found()
        rows = [row for results in found.values() for row in self._rows(results)]
        columns = {name: [row[name] for row in rows] for name in DECODING_COLUMNS}
        defaults = {name: _default(results).name for name, results in found.items()}
        kinds = dict.fromkeys(one.source.kind for results in found.values() for one in results)
        notes = {
            "NotDecoded": self._problems,
            "DefaultReadout": defaults,
            "Comparisons": {name: self._compared(results) for name, results in found.items()},
            "PermutationP": {kind: P_VALUES[kind] for kind in kinds},
            "OuterFolds": "one per site" if "FoldsBy" in self.inputs.sidecar else OUTER_FOLDS,
            "InnerFolds": INNER_FOLDS,
        }
        written = [
            self._table("decoding", columns, **notes),
            self._table("predictions", self._predictions(found)),
        ]
        if found:
            written.append(self._naming.figure("decoding", model=self._label))
            plot_decoding(written[-1], [drawn_row(row, defaults) for row in rows])
        outputs.write_record(
            Path(self._naming.output_dir),
            self._naming.stem,
            model_stage(self._label, self._naming.scaling, "decoding"),
            self.inputs.configuration,
            written,
        )

    def _found(self) -> dict[str, list["_Result"]]:
        """Target -> results in the order of the sources; what failed is among the problems."""
        targets = {target["name"]: target for target in self.inputs.targets}
        found: dict[str, list[_Result]] = {name: [] for name in targets}
        failed: dict[str, dict[str, str]] = {name: {} for name in targets}
        texts = [Path(path).read_text() for path in self.inputs.decoded]
        for values in [one for text in texts for one in json.loads(text)]:
            source, name = by_name(values["source"]), values["target"]
            if "problem" in values:
                failed[name][source.label] = values["problem"]
            else:
                found[name].append(_Result(targets[name], source, values))
        for name, problems in failed.items():
            if problems and not found[name]:
                self._problems[name] = next(iter(problems.values()))
            elif problems:
                self._problems |= {f"{name} from {label}": why for label, why in problems.items()}
        order = {source.name: place for place, source in enumerate(SOURCES)}
        return {
            name: sorted(results, key=lambda one: order[one.source.name])
            for name, results in found.items()
            if results
        }

    def _rows(self, results: Sequence["_Result"]) -> list[Plain]:
        """A row per source and metric."""
        return [
            {
                "target": one.target["name"],
                "type": "classification" if one.n_classes else "regression",
                "features": one.source.features,
                "readout": one.source.readout,
                "scaling": one.source.scaling,
                "metric": metric,
                **dict(zip(("value", "low", "high"), score, strict=True)),
                "permutation_p": one.values["p"],
                "n_recordings": sum(map(len, one.target["units"])),
                "n_subjects": len(set(self._subjects(one.target))),
                "n_folds": one.values["n_folds"],
                "n_repeats": one.values["n_repeats"],
            }
            for one in results
            for metric, score in one.values["scores"].items()
        ]

    def _compared(self, results: Sequence["_Result"]) -> dict[str, Any]:
        """How much better the default predicts a target than each of the others."""
        from brainlm_bids.cohort.comparison import difference, metric_of

        default, target = _default(results), results[0].target
        first = next(one for one in results if one.source == default)
        compared: dict[str, Any] = {"Metric": metric_of(first.n_classes)}
        for other in results:
            if other is first:
                continue
            better = difference(
                target["values"],
                first.predictions,
                other.predictions,
                self._subjects(target),
                n_classes=first.n_classes,
                seed=self.inputs.sidecar["RandomSeed"],
                sites=target["held_out"] or None,
            )
            values = dict(zip(("Difference", "Low", "High"), better, strict=True))
            compared[other.source.name] = values
        return compared

    def _subjects(self, target: Plain) -> list[str]:
        return [self._recordings[unit[0]]["participant_id"] for unit in target["units"]]

    def _predictions(self, found: Mapping[str, Sequence["_Result"]]) -> dict[str, list[Any]]:
        """A row per unit; for a classification, one per unit and class."""
        everything = [one.source for results in found.values() for one in results]
        present = [source.name for source in SOURCES if source in everything]
        header = ("target", *UNIT_KEYS, "truth", "class", *present)
        columns: dict[str, list[Any]] = {name: [] for name in header}
        for name, results in found.items():
            target = results[0].target
            classes = target["classes"] or [None]
            guesses = {
                one.source.name: np.array(one.values["predictions"]).reshape(-1, len(classes))
                for one in results
            }
            for i, rows in enumerate(target["units"]):
                keys = unit_keys(target["unit"], [self._recordings[row] for row in rows])
                value = target["values"][i]
                truth = target["classes"][int(value)] if target["classes"] else value
                for j, word in enumerate(classes):
                    cells = {"target": name, **keys, "truth": truth, "class": word}
                    cells |= {key: float(guess[i, j]) for key, guess in guesses.items()}
                    for key in header:
                        columns[key].append(cells.get(key))
        return columns


class _Result(NamedTuple):
    """What `Decode` wrote about one of its targets."""

    target: Plain
    source: Source
    values: Plain

    @property
    def n_classes(self) -> int:
        return len(self.target["classes"])

    @property
    def predictions(self) -> NDArray[np.float64]:
        """(U, 2) with the mean of the training rows, or (U, C)."""
        columns = np.array(self.values["predictions"], dtype=np.float64)
        return columns if self.n_classes else np.stack([columns, self.values["reference"]], axis=1)


def _default(results: Sequence[_Result]) -> Source:
    """The default source of a target; the first where no embedding is among them."""
    chosen = [one.source for one in results]
    return default_of(chosen) or chosen[0]


def drawn_row(row: Mapping[str, Any], defaults: Mapping[str, str]) -> Plain:
    """Prepare a row of the table of decodings for the figure.

    Parameters
    ----------
    row
        Cells by the names of `DECODING_COLUMNS`.
    defaults
        Name of a target to that of its default source.

    Returns
    -------
    dict
        The row with `label`, and `default`, whether its source is the default.
    """
    source = find(row["features"], row["readout"], row["scaling"])
    default = defaults[row["target"]] == source.name
    return {**row, "label": source.label, "default": default}


def unit_keys(unit: str, recordings: Sequence[Plain]) -> dict[str, Any]:
    """First columns of a table with a row per unit.

    Parameters
    ----------
    unit
        "subject", "session" or "recording".
    recordings
        Those of the unit.

    Returns
    -------
    dict
        The values of `UNIT_KEYS`; the session only where all recordings are of one.
    """
    sessions = {recording["session_id"] for recording in recordings}
    return {
        "unit": unit,
        "participant_id": recordings[0]["participant_id"],
        "session_id": sessions.pop() if len(sessions) == 1 else None,
        "n_recordings": len(recordings),
        "recordings": ",".join(recording["stem"] for recording in recordings),
    }
