"""Decoding: each target from each kind of features, and the tables of all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids.bids import outputs
from brainlm_bids.bids.outputs import model_stage
from brainlm_bids.errors import UserError
from brainlm_bids.figures import palette
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.cohort.common import (
    GroupInputs,
    GroupInterface,
    Plain,
)

FEATURES = tuple(features.column for features in palette.FEATURES)
UNIT_KEYS = ("unit", "participant_id", "session_id", "n_recordings", "recordings")


class _DecodeInputs(ArrayInputSpec):
    features = File(exists=True, mandatory=True, desc="npy (N, F)")
    units = traits.List(traits.List(traits.Int), mandatory=True, desc="rows of the features")
    name = traits.Str(mandatory=True, desc="of the features")
    target = traits.Str(mandatory=True)
    values = traits.List(traits.Float, mandatory=True)
    classes = traits.List(traits.Str, mandatory=True)
    subjects = traits.List(traits.Str, mandatory=True)
    confounds = traits.List(traits.List(traits.Float), mandatory=True)
    permutations = traits.Int(mandatory=True)
    seed = traits.Int(mandatory=True)


class _DecodeOutputs(TraitedSpec):
    decoded = File()


class Decode(ArrayInterface):
    """One target from one kind of features."""

    input_spec = _DecodeInputs
    output_spec = _DecodeOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.cohort.decoding import decode

        given = self.inputs
        features = self._features(folder)
        result: Plain = {"target": given.target, "features": given.name}
        try:
            decoded = decode(
                features,
                given.values,
                given.subjects,
                n_classes=len(given.classes),
                confounds=np.array(given.confounds, dtype=np.float64).reshape(len(features), -1),
                n_permutations=given.permutations,
                seed=given.seed,
            )
            result |= {
                "scores": {name: list(score) for name, score in decoded.scores.items()},
                "p": decoded.p,
                "n_repeats": decoded.n_repeats,
                "predictions": decoded.predictions.tolist(),
                "reference": decoded.reference.tolist(),
            }
        except UserError as error:
            result["problem"] = str(error)
        path = folder / "decoded.json"
        path.write_text(json.dumps(result))
        self._results["decoded"] = str(path)

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


class _WriteDecodingInputs(GroupInputs):
    label = traits.Str(mandatory=True)
    targets = traits.List(traits.Dict, mandatory=True, desc="name, unit, units, values, classes")
    decoded = traits.List(File(exists=True), mandatory=True)
    configuration = traits.Str(mandatory=True)


class WriteDecoding(GroupInterface):
    """All targets of one model: scores side by side, predictions, a figure, and the record."""

    input_spec = _WriteDecodingInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.cohort.decoding import OUTER_FOLDS
        from brainlm_bids.cohort.readouts import INNER_FOLDS
        from brainlm_bids.figures.cohort import plot_decoding

        self._begin()
        self._label = self.inputs.label
        by_target: dict[str, dict[str, Plain]] = {}
        for path in self.inputs.decoded:
            result = json.loads(Path(path).read_text())
            by_target.setdefault(result["target"], {})[result["features"]] = result
        problems = {
            name: result["problem"]
            for name, by_features in by_target.items()
            for result in by_features.values()
            if "problem" in result
        }
        targets = [target for target in self.inputs.targets if target["name"] not in problems]
        scores = self._scores(targets, by_target)
        notes = {
            "NotDecoded": {**self._not_decoded(), **problems},
            "Comparisons": {
                target["name"]: self._compared(target, by_target) for target in targets
            },
            "OuterFolds": OUTER_FOLDS,
            "InnerFolds": INNER_FOLDS,
        }
        written = [
            self._table("decoding", scores, **notes),
            self._table("predictions", self._predictions(targets, by_target)),
        ]
        if targets:
            written.append(self._naming.figure("decoding", model=self._label))
            plot_decoding(written[-1], scores)
        outputs.write_record(
            Path(self._naming.output_dir),
            self._naming.stem,
            model_stage(self._label, self._naming.scaling, "decoding"),
            self.inputs.configuration,
            written,
        )

    def _not_decoded(self) -> dict[str, str]:
        return dict(self.inputs.sidecar.get("NotDecoded", {}))

    def _scores(
        self, targets: Sequence[Plain], by_target: Mapping[str, Mapping[str, Plain]]
    ) -> dict[str, list[Any]]:
        sides = [f"{name}{part}" for name in FEATURES for part in ("", "_low", "_high")]
        header = ("target", "type", "metric", "n_recordings", "n_subjects", "n_repeats", *sides)
        columns: dict[str, list[Any]] = {name: [] for name in header}
        for target in targets:
            by_features = by_target[target["name"]]
            first = by_features[FEATURES[0]]
            for metric in [*first["scores"], "permutation_p"]:
                row = {
                    "target": target["name"],
                    "type": "classification" if target["classes"] else "regression",
                    "metric": metric,
                    "n_recordings": sum(map(len, target["units"])),
                    "n_subjects": len(set(self._subjects(target))),
                    "n_repeats": first["n_repeats"],
                }
                for name in FEATURES:
                    other = by_features[name]
                    triple = other["scores"].get(metric, [other["p"], None, None])
                    row |= dict(zip((name, f"{name}_low", f"{name}_high"), triple))
                for key in header:
                    columns[key].append(row[key])
        return columns

    def _compared(self, target: Plain, found: Mapping[str, Mapping[str, Plain]]) -> dict[str, Any]:
        """How much better the embedding predicts a target than each of the other features."""
        from brainlm_bids.cohort.comparison import difference, metric_of

        n_classes, by_features = len(target["classes"]), found[target["name"]]

        def predictions(name: str) -> NDArray[np.float64]:
            one = by_features[name]
            columns = np.array(one["predictions"], dtype=np.float64)
            return columns if n_classes else np.stack([columns, one["reference"]], axis=1)

        compared: dict[str, Any] = {"Metric": metric_of(n_classes)}
        for name in FEATURES[1:]:
            better = difference(
                target["values"],
                predictions(FEATURES[0]),
                predictions(name),
                self._subjects(target),
                n_classes=n_classes,
                seed=self.inputs.sidecar["RandomSeed"],
            )
            compared[name] = dict(zip(("Difference", "Low", "High"), better, strict=True))
        return compared

    def _subjects(self, target: Plain) -> list[str]:
        return [self._recordings[unit[0]]["participant_id"] for unit in target["units"]]

    def _predictions(
        self, targets: Sequence[Plain], by_target: Mapping[str, Mapping[str, Plain]]
    ) -> dict[str, list[Any]]:
        """A row per unit; for a classification, one per unit and class."""
        header = ("target", *UNIT_KEYS, "truth", "class", *FEATURES)
        columns: dict[str, list[Any]] = {name: [] for name in header}
        for target in targets:
            classes = target["classes"] or [None]
            guesses = {
                name: np.array(by_target[target["name"]][name]["predictions"]).reshape(
                    -1, len(classes)
                )
                for name in FEATURES
            }
            for i, rows in enumerate(target["units"]):
                keys = unit_keys(target["unit"], [self._recordings[row] for row in rows])
                value = target["values"][i]
                truth = target["classes"][int(value)] if target["classes"] else value
                for j, name in enumerate(classes):
                    cells = {"target": target["name"], **keys, "truth": truth, "class": name}
                    cells |= {features: float(guesses[features][i, j]) for features in FEATURES}
                    for key in header:
                        columns[key].append(cells[key])
        return columns


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
