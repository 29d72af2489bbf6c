"""Tables, maps and null distributions of a perturbation experiment, as files."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.experiments.perturbation import Changes, Design, NullTest, false_discovery
from brainlm_bids.experiments.results import Results
from brainlm_bids.model.embedding import Embeddings

Array = NDArray[np.float64]
DISTANCES = ("distance", "relative_distance", "cosine_distance")


def window_columns(
    before: Embeddings, start: float, moved: Array, test: NullTest
) -> dict[str, list[Any]]:
    """Columns of the table of embeddings of one recording.

    Parameters
    ----------
    before
        The embedding of the unchanged series (N windows).
    start
        Time of the first volume, s.
    moved
        (N + 1, 3) changes of the embeddings, see `embedding_change`.
    test
        Comparison of the distances (N + 1,) with the random sets.

    Returns
    -------
    dict
        Name of a column to N + 1 values; the last row is the mean over windows.
    """
    n_windows = len(before.onset)
    return {
        "window": [*range(1, n_windows + 1), "mean"],
        "onset": [*(start + before.onset).tolist(), None],
        "duration": [*before.duration.tolist(), None],
        **{name: moved[:, k].tolist() for k, name in enumerate(DISTANCES)},
        **null_columns(test),
    }


def null_columns(test: NullTest) -> dict[str, list[Any]]:
    """Columns of a comparison with random sets.

    Parameters
    ----------
    test
        Arrays of n values.

    Returns
    -------
    dict
        Name of a column to n values.
    """
    return {
        "null_mean": test.mean.tolist(),
        "null_sd": test.sd.tolist(),
        "z": test.z.tolist(),
        "p": test.p.tolist(),
        "n_null": test.n.tolist(),
    }


def write_parcels(
    naming: Naming,
    key: str,
    label: str,
    change: Array,
    test: NullTest,
    design: Design,
    results: Results,
    sidecar: dict[str, Any],
) -> list[Path]:
    """Write a table with a row per parcel, and its sidecar.

    Parameters
    ----------
    naming
        Names the files.
    key
        Key in the table of outputs.
    label
        The model's label.
    change
        (P,) mean absolute change of the predictions.
    test
        Comparison of `change` with the random sets.
    design
        Parcels that were changed.
    results
        The results folder.
    sidecar
        Fields of the sidecar.

    Returns
    -------
    list of Path
        The table and its sidecar.
    """
    parcels = resources.parcels()
    columns = {
        "index": parcels.index.tolist(),
        "name": list(parcels.names),
        "hemisphere": list(parcels.hemisphere),
        "network": list(parcels.network),
        "changed": [int(k in set(design.chosen)) for k in range(len(parcels.names))],
        "change": change.tolist(),
        **null_columns(test),
        "q": false_discovery(test.p).tolist(),
    }
    path = naming.path(key, model=label)
    files.write_tsv(path, list(columns), list(columns.values()))
    return [path, results.sidecar(naming, key, label, **sidecar)]


def write_maps(
    naming: Naming,
    key: str,
    label: str,
    change: Array,
    z: Array,
    image: tuple[NDArray[np.int16], Array],
    results: Results,
    sidecar: dict[str, Any],
) -> list[Path]:
    """Write brain maps of the change and of its z, and their sidecars.

    Parameters
    ----------
    naming, key, label, change, results, sidecar
        As for `write_parcels`.
    z
        (P,) z of the change.
    image
        Labels (X, Y, Z) and affine (4, 4) of the atlas.

    Returns
    -------
    list of Path
        Images and sidecars.
    """
    import nibabel as nb

    labels, affine = image
    written = []
    for part, values in (("change", change), ("z", z)):
        path = naming.path(f"{key}_{part}", model=label)
        lookup = np.concatenate([[0], values]).astype(np.float32)
        picture = nb.Nifti1Image(lookup[labels.astype(np.int64)], affine)
        picture.header.set_xyzt_units("mm", "sec")
        with files.atomically(path) as temporary:
            picture.to_filename(temporary)
        written += [path, results.sidecar(naming, f"{key}_{part}", label, **sidecar)]
    return written


def write_null(naming: Naming, label: str, effect: Changes, null: Changes, design: Design) -> Path:
    """Write the effect of the chosen parcels and of all random sets.

    Parameters
    ----------
    naming
        Names the file.
    label
        The model's label.
    effect
        Changes by the chosen parcels.
    null
        Changes by the M random sets, along a first axis.
    design
        The parcels of each.

    Returns
    -------
    Path
        The file (npz).
    """
    path = naming.path("perturbation_null", model=label)
    with files.atomically(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            chosen=np.array(design.chosen),
            sets=design.sets,
            change=effect.change,
            null_change=null.change,
            moved=effect.moved,
            null_moved=null.moved,
        )
    return path


def read_null(path: Path) -> dict[str, Array]:
    """Read what `write_null` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        chosen (K,), sets (M, K), change (P,), null_change (M, P), moved (N + 1, 3) and null_moved
        (M, N + 1, 3).
    """
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}
