"""Embeddings and reconstruction metrics of the cohort."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.cohort.coding import CATEGORY, NUMBER
from brainlm_bids.cohort.maps import PlaneMap, plane_maps
from brainlm_bids.interfaces.cohort.common import GroupInputs, GroupInterface, key_columns
from brainlm_bids.notices import Kind, Notice, notice, to_json
from brainlm_bids.parcels.sampling import TR_TOLERANCE

# More categories than this cannot be told apart by colour.
MOST_COLOURS = 10
# A page of 10,000 recordings holds so many values of each.
MOST_VARIABLES = 30


class _TablesInputs(GroupInputs):
    label = traits.Str(mandatory=True)
    variables = traits.Dict(mandatory=True, desc="column -> a text per recording, for the maps")
    kinds = traits.Dict(mandatory=True, desc='column -> "number" or "category"')
    seed = traits.Int(mandatory=True)


class _TablesOutputs(TraitedSpec):
    embedding = File(desc="(N, D)")
    dimensions = traits.List(traits.Str, desc="names of the D dimensions")
    planes = File(desc="maps of the embedding: method -> (N, 2), method_shares -> (2,) or (0,)")


class GroupTables(GroupInterface):
    """Embeddings and reconstruction metrics of the cohort by one model, and maps of them."""

    input_spec = _TablesInputs
    output_spec = _TablesOutputs

    def _compute(self, folder: Path) -> None:
        self._begin()
        self._label = self.inputs.label
        keys = key_columns(self._recordings)
        embedding, n_windows, names = self._embeddings()
        planes = plane_maps(embedding, seed=self.inputs.seed)
        maps = self._maps(planes)
        columns = dict(zip(names, embedding.T.tolist()))
        self._table("group_embeddings", {**keys, "n_windows": n_windows, **columns}, Maps=maps)
        self._metrics()
        path = folder / "embedding.npy"
        np.save(path, embedding)
        self._results["embedding"] = str(path)
        self._results["dimensions"] = names
        self._results["planes"] = str(save_planes(folder / "planes.npz", planes))

    def _embeddings(self) -> tuple[NDArray[np.float64], list[int], list[str]]:
        """(N, D), windows of each recording, and the names of the dimensions."""
        rows, counts, dimensions = [], [], []
        for recording in self._recordings:
            path = self._of(recording).path("recording_embedding", model=self._label)
            names, values = files.read_tsv(path)
            dimensions = [name for name in names if name not in {"onset", "duration", "n_windows"}]
            rows.append(values[0][-len(dimensions) :])
            counts.append(int(values[0][names.index("n_windows")]) if "n_windows" in names else 0)
        return np.stack(rows), counts, dimensions

    def _metrics(self) -> None:
        columns: dict[str, list[Any]] = {}
        for recording in self._recordings:
            keys = {name: column[0] for name, column in key_columns([recording]).items()}
            keys["source_repetition_time"] = recording.get("repetition_time")
            for row in files.read_rows(self._of(recording).path("metrics", model=self._label)):
                for name, value in {**keys, **row}.items():
                    columns.setdefault(name, []).append(value)
        found = mixed_repetition_times([row.get("repetition_time") for row in self._recordings])
        warnings = [*(self.inputs.sidecar.get("Warnings") or []), *to_json(found)]
        self._table("group_metrics", columns, Warnings=warnings)

    def _maps(self, planes: Sequence[PlaneMap]) -> dict[str, str]:
        """A table of the variables that colour the maps, and a picture for each of them.

        Returns column -> file, for the report.
        """
        from brainlm_bids.figures.cohort import plot_maps

        given = self.inputs
        shown = shown_variables(given.variables, given.kinds)
        recordings = [recording["stem"] for recording in self._recordings]
        # "recording" is the first column, whatever the columns of the tables of people are called
        columns = {"recording": recordings} | {k: v for k, v in shown.items() if k != "recording"}
        kinds = {name: given.kinds[name] for name in shown}
        self._table("group_variables", columns, Kinds=kinds)
        panels = [(plane.method.upper(), plane.points, plane.axes) for plane in planes]
        drawn = {}
        for number, (name, column) in enumerate(shown.items()):
            path = self._naming.figure("embedding_map", model=self._label, number=number)
            plot_maps(path, panels, name, column)
            drawn[name] = path.relative_to(self._naming.output_dir).as_posix()
        return drawn


def save_planes(path: Path, planes: Sequence[PlaneMap]) -> Path:
    """Keep maps for another node.

    Parameters
    ----------
    path
        NPZ file to write.
    planes
        The maps.
    """
    arrays: dict[str, Any] = {plane.method: plane.points for plane in planes}
    arrays |= {f"{plane.method}_shares": np.array(plane.shares) for plane in planes}
    np.savez(path, **arrays)
    return path


def load_planes(path: Path) -> list[PlaneMap]:
    """Read what `save_planes` kept.

    Parameters
    ----------
    path
        NPZ file.
    """
    with np.load(path) as arrays:
        return [
            PlaneMap(name, arrays[name], tuple(arrays[f"{name}_shares"].tolist()))
            for name in arrays.files
            if not name.endswith("_shares")
        ]


def mixed_repetition_times(repetition_times: Iterable[float | None]) -> list[Notice]:
    """Warn about a table with reconstructions of recordings of different repetition times.

    Parameters
    ----------
    repetition_times
        At which the recordings were acquired, s; None where not known.

    Returns
    -------
    list of Notice
        One, or none if all are as alike as series that are not resampled.

    Examples
    --------
    >>> mixed_repetition_times([0.72, 0.735, None])
    []
    >>> mixed_repetition_times([0.735, 2.0])[0].kind
    'mixed_source_tr'
    """
    known = sorted({round(float(tr), 4) for tr in repetition_times if tr is not None})
    if not known or known[-1] <= known[0] * (1 + TR_TOLERANCE):
        return []
    listed = ", ".join(f"{tr:g}" for tr in known)
    text = (
        f"The recordings were acquired with repetition times of {listed} s. The longer it is, the "
        "more alike are neighbouring samples after resampling, and the better hidden values can be "
        "predicted from them, of white noise too: MSE and R² of these recordings cannot be "
        "compared with each other. Compare the model with the best baseline of the same recording."
    )
    return [notice(Kind.MIXED_SOURCE_TR, text)]


def shown_variables(
    variables: Mapping[str, Sequence[str | None]], kinds: Mapping[str, str]
) -> dict[str, list[Any]]:
    """Select the variables that colours can show.

    Parameters
    ----------
    variables
        Name of a variable to a text per recording.
    kinds
        Name of a variable to "number" or "category"; others are left out.

    Returns
    -------
    dict
        At most 30 variables that differ between recordings: numbers, or two to ten categories;
        None where missing.
    """
    from brainlm_bids.cells import as_number, is_missing

    shown: dict[str, list[Any]] = {}
    for name, column in variables.items():
        words = [None if is_missing(text) else str(text) for text in column]
        n_different = len({text for text in words if text is not None})
        if kinds.get(name) == NUMBER and n_different > 1:
            shown[name] = [None if text is None else as_number(text) for text in words]
        elif kinds.get(name) == CATEGORY and 2 <= n_different <= MOST_COLOURS:
            shown[name] = words
    return dict(list(shown.items())[:MOST_VARIABLES])
