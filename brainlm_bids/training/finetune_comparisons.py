"""Decodings that a fine-tuned model is compared with: every source of the group level, same folds.

They are computed by the functions of the group level, with its seeds: with five folds and the same
seed, the linear predictions are those of the first of its repeats.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.cohort import sources
from brainlm_bids.cohort.decoding import Decoded, decode, decode_by
from brainlm_bids.cohort.folds import Split
from brainlm_bids.cohort.scores import Score
from brainlm_bids.cohort.sources import Source
from brainlm_bids.cohort.units import unit_means
from brainlm_bids.cohort.variables import Target
from brainlm_bids.errors import UserError
from brainlm_bids.training.finetune_features import Features

Array = NDArray[np.float64]


def decodings(
    features: Features,
    target: Target,
    subjects: Sequence[str],
    splits: Sequence[Split],
    *,
    n_permutations: int,
    seed: int,
    folder: Path,
    configuration: str,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[dict[Source, Decoded], dict[str, str]]:
    """Decode a target from all sources; those of an earlier call are read.

    Parameters
    ----------
    features
        Of the recordings.
    target
        The target.
    subjects
        (U,) the subject of each unit.
    splits
        Training and test units of each fold.
    n_permutations
        Permutations of the target behind each p value.
    seed
        Seed of the inner folds, the training, the permutations and the bootstraps.
    folder
        Where results are kept, one file per source.
    configuration
        What the results depend on; a file of another one is replaced.
    note
        Receives what is decoded from.

    Returns
    -------
    found
        In the order of the tables.
    problems
        Label of a source that cannot be decoded from to the reason.
    """
    found: dict[Source, Decoded] = {}
    problems: dict[str, str] = {}
    shared: dict[str, Any] = {
        "n_classes": len(target.classes),
        "n_permutations": n_permutations,
        "seed": seed,
        "folds": [list(splits)],
    }
    for source in sources.SOURCES:
        if source.name not in features.tables and source.name not in features.bags:
            continue
        note(source.label)
        path = folder / f"{source.name}.json"
        decoded = _saved(path, configuration)
        if decoded is None:
            try:
                decoded = _decoded(source, features, target, subjects, shared)
            except UserError as error:
                problems[source.label] = str(error)
                continue
            _save(path, configuration, decoded)
        found[source] = decoded
    return found, problems


def _decoded(
    source: Source,
    features: Features,
    target: Target,
    subjects: Sequence[str],
    shared: dict[str, Any],
) -> Decoded:
    values = target.unit_values
    if source.kind == sources.LINEAR:
        table = features.tables[source.name]
        out = np.empty((len(target.units), table.shape[1]), dtype=table.dtype)
        return decode(unit_means(table, target.units, out), values, subjects, **shared)
    from brainlm_bids.cohort.probes import predictor_of

    predictor = predictor_of(source.kind, features.bags[source.name].join(target.units))
    return decode_by(predictor, values, subjects, **shared)


def _save(path: Path, configuration: str, decoded: Decoded) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {
        "configuration": configuration,
        "predictions": decoded.predictions.tolist(),
        "scores": {name: list(score) for name, score in decoded.scores.items()},
        "p": decoded.p,
        "n_folds": decoded.n_folds,
        "n_repeats": decoded.n_repeats,
        "reference": decoded.reference.tolist(),
    }
    files.write_json(path, values)


def _saved(path: Path, configuration: str) -> Decoded | None:
    if not path.is_file():
        return None
    values = files.read_json(path)
    if values.get("configuration") != configuration:
        return None

    def array(content: Any) -> Array:
        return np.array(content, dtype=np.float64)  # null becomes NaN

    return Decoded(
        array(values["predictions"]),
        {name: Score(*array(score).tolist()) for name, score in values["scores"].items()},
        float(array(values["p"])),
        values["n_folds"],
        values["n_repeats"],
        array(values["reference"]),
    )
