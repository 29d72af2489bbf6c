"""Storage of the records that nodes of the graph pass on.

Records of steps are stored and read here and nowhere else. A record of numbers and arrays is one
`.npz` with a key per field, and so is a table of columns; a single array is a `.npy`, a sparse
matrix scipy's `.npz`, and a transform the file that ITK wrote. Images, which have a grid, are
NIfTI files (`images`).
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from brainlm_bids.preproc.distortion.field import Distortion
from brainlm_bids.preproc.registration.transforms import Chain, ItkTransform

Record = TypeVar("Record")
Columns = dict[str, NDArray[np.float64]]


def save(record: Any, path: Path) -> str:
    """Store a record in one file.

    Parameters
    ----------
    record
        A frozen dataclass of arrays and plain values (fields that are None are left out), a
        mapping of columns, an array, a sparse matrix, or an `ItkTransform`.
    path
        Without its extension.

    Returns
    -------
    The file's path.
    """
    if isinstance(record, ItkTransform):
        file = path.with_suffix(record.suffix)
        file.write_bytes(record.content)
    elif isinstance(record, np.ndarray):
        file = path.with_suffix(".npy")
        np.save(file, record)
    else:
        file = path.with_suffix(".npz")
        if sparse.issparse(record):
            sparse.save_npz(file, record)
        else:
            np.savez(file, **_arrays(record))
    return str(file)


def load(kind: type[Record], file: str) -> Record:
    """Read a record of a known type.

    Parameters
    ----------
    kind
        The type of what was saved: a dataclass, `dict`, `np.ndarray`, `sparse.csr_matrix` or
        `ItkTransform`.
    file
        Its path, as `save` returned it.

    Returns
    -------
    Record
        What was saved.
    """
    record: Any
    if issubclass(kind, ItkTransform):
        record = kind.from_file(file)
    elif issubclass(kind, np.ndarray):
        record = np.load(file)
    elif issubclass(kind, sparse.csr_matrix):
        record = sparse.load_npz(file)
    else:
        with np.load(file) as content:
            arrays = dict(content)
        record = kind(**{name: _plain(value) for name, value in arrays.items()})
    return record


def load_pull(transform: Any, matrix: Any, distortion: Any = None) -> Chain:
    """Read the transform from the template to what a BOLD reference shows.

    Parameters
    ----------
    transform
        File of an `ItkTransform`, template to T1w image or BOLD reference; or nothing, for a run in
        template space.
    matrix
        File of a (4, 4) array, T1w image to BOLD reference; or nothing, where there is no T1w.
    distortion
        File of a `Distortion`, from where tissue lies to where the reference shows it; or nothing,
        where it is not known.

    Returns
    -------
    Chain
        All in sequence.
    """
    maps: list[Any] = []
    if transform:
        maps.append(load(ItkTransform, transform))
    if matrix:
        maps.append(load(np.ndarray, matrix))
    if distortion:
        maps.append(load(Distortion, distortion))
    return Chain(tuple(maps))


def load_distortion(file: Any) -> Distortion | None:
    """Read the `Distortion` of a run; None where there is no file, since it is not known."""
    return load(Distortion, file) if file else None


def _arrays(record: Any) -> dict[str, Any]:
    if isinstance(record, Mapping):
        return dict(record)
    if not is_dataclass(record):
        raise TypeError(f"{type(record).__name__} is not a record that can be stored")
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: value for name, value in values.items() if value is not None}


def _plain(value: NDArray[Any]) -> Any:
    """Numbers and words as they were before they became arrays without axes."""
    return value.item() if value.ndim == 0 else value
