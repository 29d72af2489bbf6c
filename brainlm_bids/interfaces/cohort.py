"""Nipype interfaces of the group level, after the models: tables, networks, decoding, figures.

Each loads, calls the kernels of `cohort`, and writes. `recordings` are plain dictionaries in the
order of their names: stem, participant_id, session_id, task, run, mean_fd, coverage, n_volumes.
"""

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
from brainlm_bids.errors import UserError
from brainlm_bids.figures import palette
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.context import Record
from brainlm_bids.interfaces.images import load_image
from brainlm_bids.parcels import scaling

KEYS = ("participant_id", "session_id", "task", "run", "recording", "mean_fd", "coverage")
FEATURES = tuple(features.column for features in palette.FEATURES)
# From here on, tables are also written as Parquet.
LARGE_COHORT = 1000
# A colour for each of more words than this says nothing.
MOST_COLOURS = 10

Plain = dict[str, Any]


def _key_columns(recordings: Sequence[Plain]) -> dict[str, list[Any]]:
    """The columns with which every table of the group begins."""
    return {key: [one["stem" if key == "recording" else key] for one in recordings] for key in KEYS}


class _GroupInputs(ArrayInputSpec):
    naming = Record(Naming, mandatory=True, desc="of the group")
    recordings = traits.List(traits.Dict, mandatory=True)
    sidecar = traits.Dict(mandatory=True, desc="fields that all sidecars begin with")


class GroupInterface(ArrayInterface):
    """What the writers of group files share."""

    input_spec = _GroupInputs
    _label = ""

    def _begin(self) -> None:
        self._naming = from_plain(Naming, self.inputs.naming)
        self._recordings = list(self.inputs.recordings)

    def _of(self, recording: Plain) -> Naming:
        """The names of one recording's files."""
        return dataclasses.replace(self._naming, stem=recording["stem"])

    def _table(self, key: str, columns: Mapping[str, Sequence[Any]], **values: Any) -> Path:
        path = self._naming.path(key, model=self._label)
        files.write_tsv(path, list(columns), list(columns.values()))
        self._sidecar(key, **values)
        if len(self._recordings) >= LARGE_COHORT:
            write_parquet(path)
        return path

    def _sidecar(self, key: str, **values: Any) -> None:
        path = self._naming.path(key, model=self._label, extension=".json")
        files.write_json(path, self._naming.sidecar(key, {**self.inputs.sidecar, **values}))


def write_parquet(table: Path) -> Path | None:
    """The same table as Parquet beside the TSV, where pyarrow is installed."""
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        return None
    import pandas as pd

    path = table.with_suffix(".parquet")
    texts = dict.fromkeys(("participant_id", "session_id", "task", "run", "recording"), str)
    frame = pd.read_csv(table, sep="\t", na_values=["n/a"], keep_default_na=False, dtype=texts)
    with files.atomically(path) as temporary:
        frame.to_parquet(temporary, index=False)
    return path


class _TablesInputs(_GroupInputs):
    label = traits.Str(mandatory=True)
    variables = traits.Dict(mandatory=True, desc="column -> a text per recording, for the maps")
    untrained = traits.Bool(mandatory=True, desc="whether the control was embedded")
    seed = traits.Int(mandatory=True)


class _TablesOutputs(TraitedSpec):
    embedding = File(desc="(N, D)")
    random_weights = File(desc="(N, D)")


class GroupTables(GroupInterface):
    """Embeddings and reconstruction metrics of the cohort by one model, and maps of them."""

    input_spec = _TablesInputs
    output_spec = _TablesOutputs

    def _compute(self, folder: Path) -> None:
        self._begin()
        self._label = self.inputs.label
        keys = _key_columns(self._recordings)
        embedding, n_windows, names = self._embeddings("recording_embedding")
        maps = self._maps(embedding)
        columns = dict(zip(names, embedding.T.tolist()))
        self._table("group_embeddings", {**keys, "n_windows": n_windows, **columns}, Maps=maps)
        self._metrics()
        self._keep(folder, "embedding", embedding)
        if self.inputs.untrained:
            self._keep(folder, "random_weights", self._embeddings("untrained_embedding")[0])

    def _keep(self, folder: Path, name: str, values: NDArray[np.float64]) -> None:
        np.save(folder / f"{name}.npy", values)
        self._results[name] = str(folder / f"{name}.npy")

    def _embeddings(self, key: str) -> tuple[NDArray[np.float64], list[int], list[str]]:
        """(N, D), windows of each recording, and the names of the dimensions."""
        rows, counts, dimensions = [], [], []
        for one in self._recordings:
            names, values = files.read_tsv(self._of(one).path(key, model=self._label))
            dimensions = [name for name in names if name not in {"onset", "duration", "n_windows"}]
            rows.append(values[0][-len(dimensions) :])
            counts.append(int(values[0][names.index("n_windows")]) if "n_windows" in names else 0)
        return np.stack(rows), counts, dimensions

    def _metrics(self) -> None:
        columns: dict[str, list[Any]] = {}
        for one in self._recordings:
            keys = {name: column[0] for name, column in _key_columns([one]).items()}
            for row in files.read_rows(self._of(one).path("metrics", model=self._label)):
                for name, value in {**keys, **row}.items():
                    columns.setdefault(name, []).append(value)
        self._table("group_metrics", columns)

    def _maps(self, embedding: NDArray[np.float64]) -> dict[str, str]:
        """A picture per variable; column -> file, for the report."""
        from brainlm_bids.cohort.maps import neighbour_map, principal_map
        from brainlm_bids.figures.cohort import plot_maps

        planes = [principal_map(embedding), neighbour_map(embedding, self.inputs.seed)]
        panels = [(one.method, one.points, one.axes) for one in planes if one is not None]
        drawn = {}
        for number, (name, column) in enumerate(shown_variables(self.inputs.variables).items()):
            path = self._naming.figure("embedding_map", model=self._label, number=number)
            plot_maps(path, panels, name, column)
            drawn[name] = path.relative_to(self._naming.output_dir).as_posix()
        return drawn


def shown_variables(variables: Mapping[str, Sequence[str | None]]) -> dict[str, list[Any]]:
    """Variables that colours can show: numbers as floats, or a few words; at most 12."""
    from brainlm_bids.cohort.variables import as_number, is_missing

    shown: dict[str, list[Any]] = {}
    for name, column in variables.items():
        known = [text for text in column if not is_missing(text)]
        numbers = [as_number(text) for text in column]
        words = [None if is_missing(text) else str(text) for text in column]
        if np.isfinite(numbers).sum() == len(known) and len(set(known)) > 2:
            shown[name] = numbers
        elif 2 <= len(set(known)) <= MOST_COLOURS:
            shown[name] = words
    return dict(list(shown.items())[:12])


# --- connectivity and networks ---------------------------------------------------------------


class _ConnectivityOutputs(TraitedSpec):
    features = File(desc="(N, 89676) float32: Fisher z of the upper triangle, NaN if unknown")
    networks = File(desc="labels (N, 424) from connectivity, by the method used for the model")


class _ConnectivityInputs(_GroupInputs):
    seed = traits.Int(mandatory=True)


class Connectivity(GroupInterface):
    """Functional connectivity of every recording: the baseline of decoding and of networks."""

    input_spec = _ConnectivityInputs
    output_spec = _ConnectivityOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.cohort.decoding import fisher_z
        from brainlm_bids.model.networks import parcel_networks

        self._begin()
        reference = resources.parcels().network_index
        shape = (len(self._recordings), len(reference) * (len(reference) - 1) // 2)
        path = folder / "connectivity.npy"
        features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        labels = np.zeros((len(self._recordings), len(reference)), dtype=np.int64)
        for row, one in enumerate(self._recordings):
            _, matrix = files.read_matrix(self._of(one).existing("pearson"))
            features[row] = fisher_z(matrix)
            labels[row] = parcel_networks(matrix, reference, self.inputs.seed).labels
        features.flush()
        np.save(folder / "networks.npy", labels)
        self._results["features"] = str(path)
        self._results["networks"] = str(folder / "networks.npy")


class _NetworksInputs(_GroupInputs):
    label = traits.Str(mandatory=True)
    atlas = File(exists=True, mandatory=True)
    series_networks = File(exists=True, mandatory=True)
    rows = traits.List(traits.Int, mandatory=True, desc="of series_networks, for the recordings")


class GroupNetworks(GroupInterface):
    """Networks of all recordings and their consensus, as a table and as images."""

    input_spec = _NetworksInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.cohort.consensus import consensus

        self._begin()
        self._label = self.inputs.label
        self._atlas, self._affine = load_image(self.inputs.atlas)
        subjects = [one["participant_id"] for one in self._recordings]
        series = np.load(self.inputs.series_networks)[self.inputs.rows]
        voted = consensus(self._labels(), subjects)
        self._scores(voted.labels, consensus(series, subjects).labels)
        self._images(voted.labels, voted.probability)
        self._figures(voted.labels, voted.probability)

    def _labels(self) -> NDArray[np.int64]:
        """(N, 424) from the recordings' images, at one voxel of each parcel."""
        import nibabel as nb

        found, first = np.unique(self._atlas.astype(np.int64).ravel(), return_index=True)
        where = np.zeros(len(resources.parcels().names), dtype=np.int64)
        where[found[found > 0] - 1] = first[found > 0]
        rows = []
        for one in self._recordings:
            path = self._of(one).path("networks", model=self._label)
            image: Any = nb.load(path)
            rows.append(np.asarray(image.dataobj).ravel()[where])
        return np.stack(rows).astype(np.int64)

    def _scores(self, model: NDArray[np.int64], series: NDArray[np.int64]) -> None:
        from brainlm_bids.cohort.consensus import agreement

        reference = resources.parcels().network_index
        measures = ("accuracy", "adjusted_rand", "knn_accuracy", "majority")
        columns: dict[str, list[Any]] = {name: [] for name in (*KEYS, "features", *measures)}
        for one in self._recordings:
            keys = {name: column[0] for name, column in _key_columns([one]).items()}
            path = self._of(one).path("networks", model=self._label, extension=".json")
            for features, scores in files.read_json(path)["Scores"].items():
                for name, value in {**keys, "features": features, **scores}.items():
                    columns[name].append(value)
        self._consensus = {
            "model": agreement(model, reference),
            "series": agreement(series, reference),
        }
        for features, values in self._consensus.items():
            row = {"participant_id": "consensus", "features": features, **values}
            for name, column in columns.items():
                column.append(row.get(name))
        self._table("group_networks", columns)

    def _images(self, labels: NDArray[np.int64], probability: NDArray[np.float64]) -> None:
        index = self._atlas.astype(np.int64)
        dseg = np.concatenate([[0], labels])[index].astype(np.uint8)
        shares = np.hstack([np.zeros((len(probability), 1)), probability])
        probseg = np.moveaxis(shares[:, index], 0, 3).astype(np.float32)
        for key, data in (("consensus", dseg), ("network_probability", probseg)):
            self._image(key, data)
        self._sidecar("consensus", Scores=self._consensus)
        self._sidecar("network_probability", LabelMap=network_names())
        counts = [int((labels == k).sum()) for k in range(1, 8)]
        path = self._naming.path("consensus", model=self._label, extension=".tsv")
        columns: list[list[Any]] = [list(range(1, 8)), network_names(), counts]
        files.write_tsv(path, ["index", "name", "n_parcels"], columns)

    def _image(self, key: str, data: NDArray[Any]) -> None:
        import nibabel as nb

        image = nb.Nifti1Image(data, self._affine)
        image.header.set_xyzt_units("mm", "sec")
        with files.atomically(self._naming.path(key, model=self._label)) as temporary:
            image.to_filename(temporary)

    def _figures(self, labels: NDArray[np.int64], probability: NDArray[np.float64]) -> None:
        from brainlm_bids.figures.cohort import plot_probabilities
        from brainlm_bids.figures.model import plot_networks

        atlas, reference = self._atlas.astype(np.int32), resources.parcels().network_index
        plot_networks(
            self._naming.figure("consensus", model=self._label),
            labels,
            atlas,
            self._affine,
            reference,
            {
                f"consensus, {palette.NETWORK_FEATURES[name]}": scores["accuracy"]
                for name, scores in self._consensus.items()
            }
            | {"chance (largest network)": self._consensus["model"]["majority"]},
            title="Consensus of the cohort",
        )
        plot_probabilities(
            self._naming.figure("network_probability", model=self._label),
            probability,
            atlas,
            self._affine,
        )


def network_names() -> list[str]:
    """Names of the seven networks, in the order of their numbers."""
    parcels = resources.parcels()
    first = [int(np.flatnonzero(parcels.network_index == k)[0]) for k in range(1, 8)]
    return [parcels.network_name[k] for k in first]


# --- decoding --------------------------------------------------------------------------------


class _DecodeInputs(ArrayInputSpec):
    features = File(exists=True, mandatory=True, desc="npy (N, F)")
    rows = traits.List(traits.Int, mandatory=True, desc="of the features, for the target's values")
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
        features = np.load(given.features, mmap_mode="r")
        if list(given.rows) != list(range(len(features))):
            features = features[given.rows]
        result: Plain = {"target": given.target, "features": given.name}
        try:
            found = decode(
                features,
                given.values,
                given.subjects,
                n_classes=len(given.classes),
                confounds=np.array(given.confounds, dtype=np.float64).reshape(len(features), -1),
                n_permutations=given.permutations,
                seed=given.seed,
            )
            result |= {
                "scores": {name: list(score) for name, score in found.scores.items()},
                "p": found.p,
                "n_repeats": found.n_repeats,
                "predictions": found.predictions.tolist(),
            }
        except UserError as error:
            result["problem"] = str(error)
        path = folder / "decoded.json"
        path.write_text(json.dumps(result))
        self._results["decoded"] = str(path)


class _WriteDecodingInputs(_GroupInputs):
    label = traits.Str(mandatory=True)
    targets = traits.List(traits.Dict, mandatory=True, desc="name, rows, values, classes")
    decoded = traits.List(File(exists=True), mandatory=True)
    configuration = traits.Str(mandatory=True)


class WriteDecoding(GroupInterface):
    """All targets of one model: scores side by side, predictions, a figure, and the record."""

    input_spec = _WriteDecodingInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.figures.cohort import plot_decoding

        self._begin()
        self._label = self.inputs.label
        found: dict[str, dict[str, Plain]] = {}
        for path in self.inputs.decoded:
            one = json.loads(Path(path).read_text())
            found.setdefault(one["target"], {})[one["features"]] = one
        problems = {
            name: one["problem"]
            for name, by_features in found.items()
            for one in by_features.values()
            if "problem" in one
        }
        targets = [one for one in self.inputs.targets if one["name"] not in problems]
        scores = self._scores(targets, found)
        written = [
            self._table("decoding", scores, NotDecoded={**self._not_decoded(), **problems}),
            self._table("predictions", self._predictions(targets, found)),
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
        self, targets: Sequence[Plain], found: Mapping[str, Mapping[str, Plain]]
    ) -> dict[str, list[Any]]:
        sides = [f"{name}{part}" for name in FEATURES for part in ("", "_low", "_high")]
        header = ("target", "type", "metric", "n_recordings", "n_subjects", "n_repeats", *sides)
        columns: dict[str, list[Any]] = {name: [] for name in header}
        for target in targets:
            by_features = found[target["name"]]
            one = by_features[FEATURES[0]]
            for metric in [*one["scores"], "permutation_p"]:
                row = {
                    "target": target["name"],
                    "type": "classification" if target["classes"] else "regression",
                    "metric": metric,
                    "n_recordings": len(target["rows"]),
                    "n_subjects": len(set(self._subjects(target))),
                    "n_repeats": one["n_repeats"],
                }
                for name in FEATURES:
                    other = by_features[name]
                    triple = other["scores"].get(metric, [other["p"], None, None])
                    row |= dict(zip((name, f"{name}_low", f"{name}_high"), triple))
                for key in header:
                    columns[key].append(row[key])
        return columns

    def _subjects(self, target: Plain) -> list[str]:
        return [self._recordings[row]["participant_id"] for row in target["rows"]]

    def _predictions(
        self, targets: Sequence[Plain], found: Mapping[str, Mapping[str, Plain]]
    ) -> dict[str, list[Any]]:
        """A row per recording; for a classification, one per recording and class."""
        header = ("target", *KEYS[:5], "truth", "class", *FEATURES)
        columns: dict[str, list[Any]] = {name: [] for name in header}
        for target in targets:
            classes = target["classes"] or [None]
            guesses = {
                name: np.array(found[target["name"]][name]["predictions"]).reshape(-1, len(classes))
                for name in FEATURES
            }
            for i, row in enumerate(target["rows"]):
                keys = {k: v[0] for k, v in _key_columns([self._recordings[row]]).items()}
                value = target["values"][i]
                truth = target["classes"][int(value)] if target["classes"] else value
                for j, name in enumerate(classes):
                    own = {"target": target["name"], **keys, "truth": truth, "class": name}
                    own |= {features: float(guesses[features][i, j]) for features in FEATURES}
                    for key in header:
                        columns[key].append(own[key])
        return columns


# --- figures of the cohort -------------------------------------------------------------------


class _DrawCohortInputs(_GroupInputs):
    everyone = traits.List(traits.Dict, mandatory=True, desc="the left out too, with `included`")
    statistics = File(exists=True, mandatory=True)


class DrawCohort(GroupInterface):
    """Quality of the recordings, and the statistics beside those of BrainLM's training."""

    input_spec = _DrawCohortInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.figures.cohort import plot_quality, plot_statistics

        self._begin()
        plot_quality(self._naming.figure("quality"), self.inputs.everyone)
        parcels = resources.parcels()
        stats = scaling.load_stats(Path(self.inputs.statistics), list(parcels.names))
        plot_statistics(
            self._naming.figure("scaling"),
            stats.iqr,
            parcels.network_index,
            [one["sd_demeaned"] for one in self._recordings],
            [self._robust_sd(one) for one in self._recordings],
        )

    def _robust_sd(self, recording: Plain) -> float | None:
        sidecar = self._of(recording).path("cohort_robust", extension=".json")
        return files.read_json(sidecar)["StandardDeviationRobust"]
