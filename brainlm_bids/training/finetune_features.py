"""What `brainlm finetune` compares a fine-tuned model with: the features of every recording.

They are those of the group level, made by the same functions: the embedding under both scalings,
the same of the untrained network, connectivity, the series, motion and coverage, and coordinates.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.bids.cohort import all_recordings
from brainlm_bids.bids.derivatives import find_derivatives
from brainlm_bids.bids.outputs import is_a424
from brainlm_bids.bids.quality import QUALITY, quality
from brainlm_bids.bids.recordings import FAILED, Recording
from brainlm_bids.cohort import sources
from brainlm_bids.cohort.bags import Bags
from brainlm_bids.cohort.sources import Source
from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import LoadedModel, control_seed, untrained_twin
from brainlm_bids.model.embedding import embed
from brainlm_bids.model.tokens import TokenTable, token_table
from brainlm_bids.parcels.connectivity import fisher_z
from brainlm_bids.resources import parcels
from brainlm_bids.training.finetune_start import Start
from brainlm_bids.training.processes import in_shares
from brainlm_bids.training.recordings import SERIES
from brainlm_bids.training.store import Store, is_store

Array = NDArray[np.float64]
TOKENS = "tokens"  # folder in the run folder; it is removed at the end


class Features(NamedTuple):
    """Of the N recordings.

    Attributes
    ----------
    vectors
        (windows, D) of each: what the head reads before anything is fine-tuned.
    tables
        Name of a linear source to its features (N, F), NaN where unknown.
    bags
        Name of the source of a trained probe to its N bags.
    left_out
        Label of each source that cannot be had to the reason.
    """

    vectors: list[NDArray[np.float32]]
    tables: dict[str, NDArray[np.floating]]
    bags: dict[str, Bags]
    left_out: dict[str, str]


def gather(start: Start, places: list[int]) -> Features:
    """Embed every recording with the unchanged model, and collect what else is decoded from.

    Parameters
    ----------
    start
        Model, stores and options.
    places
        (N,) the recordings, as indices into `start.store`.

    Returns
    -------
    Features
        In the order of `places`.
    """
    names = [start.store.recordings[place].name for place in places]
    stores, left_out = _complete(start, names)
    wanted = sources.selected(start.options.readouts)
    embedded = _embedded(start, names, stores, wanted)
    tables: dict[str, NDArray[np.floating]] = {}
    bags: dict[str, Bags] = {}
    for one in wanted:
        if one.scaling in left_out:
            continue
        content = [row[one.name] for row in embedded if one.name in row]
        if one.scaling == sources.NO_SCALING:
            continue
        if one.kind == sources.LINEAR:
            tables[one.name] = np.stack(content)
        else:
            bags[one.name] = Bags(tuple((Path(path),) for path in content))
    of_recordings, problems = _of_recordings(start, places, names)
    kept = {one.name for one in wanted}
    tables |= {name: table for name, table in of_recordings.items() if name in kept}
    reasons = {one.label: left_out[one.scaling] for one in wanted if one.scaling in left_out}
    reasons |= {sources.by_name(name).label: why for name, why in problems.items() if name in kept}
    return Features([row["vectors"] for row in embedded], tables, bags, reasons)


def _complete(
    start: Start, names: list[str]
) -> tuple[dict[str, tuple[Store, dict[str, int]]], dict[str, str]]:
    """Stores by scaling that have all recordings, with their indices; why others are left out."""
    found, left_out = {}, dict(start.no_store)
    for scaling, store in start.stores.items():
        index = {one.name: k for k, one in enumerate(store.recordings) if not one.reason}
        missing = [name for name in names if name not in index]
        if missing:
            left_out[scaling] = f"{missing[0]} has no series scaled by the {scaling}"
        else:
            found[scaling] = store, index
    return found, left_out


def _embedded(
    start: Start,
    names: list[str],
    stores: dict[str, tuple[Store, dict[str, int]]],
    wanted: tuple[Source, ...],
) -> list[dict[str, Any]]:
    """For each recording, by the name of a source, features (D,) or a file of tokens or series."""
    model = start.model()
    models = {
        "embedding": model,
        "untrained": untrained_twin(model, control_seed(start.options.seed)),
    }
    folder = start.options.run_dir / TOKENS
    folder.mkdir(exist_ok=True)
    order = {name: number for number, name in enumerate(names)}

    def of_recording(name: str) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for scaling, (store, index) in stores.items():
            series = np.array(store.series(index[name]))
            for source, content in _contents(start, models, scaling, series, wanted, row):
                if source.kind == sources.LINEAR:
                    row[source.name] = content
                    continue
                path = folder / f"{source.name}_{order[name]:05d}.npy"
                np.save(path, content)
                row[source.name] = str(path)
        return row

    def of_some(assigned: list[str]) -> list[dict[str, Any]]:
        return [of_recording(name) for name in start.progress.within(assigned, "recording")]

    return in_shares(of_some, names, start.engine)


def _contents(
    start: Start,
    models: dict[str, LoadedModel],
    scaling: str,
    series: NDArray[np.float32],
    wanted: tuple[Source, ...],
    row: dict[str, Any],
) -> Iterator[tuple[Source, NDArray[Any]]]:
    """The sources of one scaling; what the head reads is put into the row as `vectors`."""
    chosen = [one for one in wanted if one.scaling == scaling]
    for one in chosen:
        if one.features == "series":
            yield one, series.astype(np.float16)
    read_by_head = scaling == start.scaling
    for features, model in models.items():
        own = [one for one in chosen if one.features == features]
        is_head = read_by_head and features == "embedding"
        if not own and not is_head:
            continue
        table = token_table(model, series, parcels().xyz, tr=1.0, seed=start.options.seed)
        if is_head:
            row["vectors"] = _vectors(start, model, series, table)
        contents: dict[str, NDArray[Any]] = {**table.pooled, sources.ATTENTIVE: table.tokens}
        for one in own:
            yield one, contents[one.readout]


def _vectors(
    start: Start, model: LoadedModel, series: NDArray[np.float32], table: TokenTable
) -> NDArray[np.float32]:
    """What the head reads: CLS, or the mean token, which is not made of the rounded tokens."""
    pooling, seed = start.options.pooling, start.options.seed
    if pooling == "cls":
        return table.cls
    return embed(model, series, parcels().xyz, tr=1.0, seed=seed, pooling=pooling).vectors


# --- what no network makes -------------------------------------------------------------------


def _of_recordings(
    start: Start, places: list[int], names: list[str]
) -> tuple[dict[str, NDArray[np.floating]], dict[str, str]]:
    """Connectivity, motion and coordinates; in the writing process alone, which fits them."""
    if not start.writes:
        return {}, {}
    if is_store(start.options.data):
        return _of_store(start.store, places)
    recordings = _recordings(start, names)
    found: dict[str, NDArray[np.floating]] = {}
    problems: dict[str, str] = {}
    for source, made in (
        (sources.CONNECTIVITY, _connectivity),
        (sources.MOTION, _motion),
        (sources.COORDINATES, _coordinates),
    ):
        try:
            found[source.name] = np.stack([made(recordings[name]) for name in names])
        except UserError as error:
            problems[source.name] = str(error)
        except KeyError as error:
            problems[source.name] = f"{error.args[0]} has no denoised series"
    return found, problems


def _recordings(start: Start, names: list[str]) -> dict[str, Recording]:
    """Name -> the recording in the output folder, with its quality."""
    options = start.options
    key = SERIES[start.series]
    read = {
        one.naming.stem: (one.naming.space, one.naming.atlas)
        for one in find_derivatives(options.data, [key])
        if is_a424(one.naming.atlas)
        and options.space in (None, one.naming.space)
        and options.atlas in (None, one.naming.atlas)
    }
    return {
        one.stem: one
        for one in all_recordings(options.data)
        if one.status != FAILED and read.get(one.stem) == (one.naming.space, one.naming.atlas)
    }


def _connectivity(recording: Recording) -> NDArray[np.floating]:
    _, matrix = files.read_matrix(recording.naming.existing("pearson"))
    return fisher_z(matrix).astype(np.float32)


def _motion(recording: Recording) -> NDArray[np.floating]:
    values = quality(recording)
    return np.array([np.nan if values[name] is None else float(values[name]) for name in QUALITY])


def _coordinates(recording: Recording) -> NDArray[np.floating]:
    missing = set(recording.sidecar.get("MissingParcels") or [])
    has_data = np.array([name not in missing for name in parcels().names])
    return np.asarray((parcels().xyz * has_data[:, None]).ravel())


def _of_store(
    store: Store, places: list[int]
) -> tuple[dict[str, NDArray[np.floating]], dict[str, str]]:
    """From the series alone: a training store holds no sidecars."""
    correlations, coordinates = [], []
    for place in places:
        series = np.array(store.series(place), dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            matrix = np.corrcoef(series.T)
        correlations.append(fisher_z(matrix).astype(np.float32))
        has_data = np.any(series, axis=0).reshape(-1, 1)
        coordinates.append((parcels().xyz * has_data).ravel())
    found: dict[str, NDArray[np.floating]] = {
        sources.CONNECTIVITY.name: np.stack(correlations),
        sources.COORDINATES.name: np.stack(coordinates),
    }
    return found, {sources.MOTION.name: "a training store does not hold them"}
