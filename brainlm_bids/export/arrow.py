"""Data sets that Hugging Face's `datasets` loads, written row by row with pyarrow alone.

`datasets.load_from_disk` maps the files into memory and checks that their types are those that
`dataset_info.json` declares. A matrix of a variable number of rows is its type Array2D: a list of
lists whose field names an extension type.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.files import write_json

# As `save_to_disk(max_shard_size="300MB")`, in bytes
SHARD = 300_000_000
# Rows are put together into batches of about this size, bytes: all that is held in memory.
BATCH = 16_000_000
_EXTENSION = "datasets.features.features.Array2DExtensionType"

Feature = Mapping[str, Any]


def value(dtype: str) -> Feature:
    """The feature of a single value: string, int32, float32."""
    return {"dtype": dtype, "_type": "Value"}


def matrix(columns: int, dtype: str, rows: int | None = None) -> Feature:
    """The feature of a matrix whose number of rows may vary (None)."""
    return {"shape": [rows, columns], "dtype": dtype, "_type": "Array2D"}


def nested(dtype: str, depth: int) -> Feature:
    """The feature of lists in lists, as `datasets` infers it of arrays."""
    feature = value(dtype)
    for _ in range(depth):
        feature = {"feature": feature, "_type": "List"}
    return feature


def pyarrow() -> Any:
    """The library, or one line about how to get it."""
    try:
        import pyarrow as pa
    except ImportError:
        raise UserError(
            "--format arrow needs pyarrow: pip install 'brainlm-bids[export]'; --format npz and "
            "csv need nothing more"
        ) from None
    return pa


def write_dataset(
    folder: Path,
    features: Mapping[str, Feature],
    rows: Iterable[Mapping[str, Any]],
    split: str,
    *,
    description: str = "",
    shard: int = SHARD,
) -> int:
    """Write a data set of one split, which `datasets.load_from_disk` reads.

    Parameters
    ----------
    folder
        A new folder.
    features
        Of each column, as `value`, `matrix` and `nested` make them.
    rows
        Values by column: texts, numbers, and arrays of two dimensions. They are written as they
        come.
    split
        Its name.
    description
        Of the data set.
    shard
        Size at which a new file is begun, bytes.

    Returns
    -------
    int
        The number of rows.
    """
    pa = pyarrow()
    folder.mkdir(parents=True)
    schema = _schema(pa, features)
    digest = hashlib.sha256()
    files: list[Path] = []
    n_rows, writer, written = 0, None, 0
    for batch in _batches(pa, schema, features, rows):
        if writer is None or written > shard:
            if writer is not None:
                writer.close()
            files.append(folder / f"part-{len(files):05d}.arrow")
            writer, written = pa.ipc.new_stream(str(files[-1]), schema), 0
        writer.write_batch(batch)
        for column in batch.columns:
            for buffer in column.buffers():
                digest.update(buffer or b"")
        written += batch.nbytes
        n_rows += len(batch)
    if writer is None:  # no row: an empty file, so that the split can be loaded
        files.append(folder / "part-00000.arrow")
        writer = pa.ipc.new_stream(str(files[-1]), schema)
    writer.close()
    names = [f"data-{k:05d}-of-{len(files):05d}.arrow" for k in range(len(files))]
    for file, name in zip(files, names, strict=True):
        file.rename(folder / name)
    _write_info(folder, features, names, split, digest.hexdigest()[:16], description)
    return n_rows


def _write_info(
    folder: Path,
    features: Mapping[str, Feature],
    names: Sequence[str],
    split: str,
    fingerprint: str,
    description: str,
) -> None:
    info = {"citation": "", "description": description, "features": dict(features)}
    write_json(folder / "dataset_info.json", {**info, "homepage": "", "license": ""})
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    write_json(folder / "state.json", state)


def _schema(pa: Any, features: Mapping[str, Feature]) -> Any:
    fields = []
    for name, feature in features.items():
        metadata = None
        if feature["_type"] == "Array2D":
            shape = json.dumps((tuple(feature["shape"]), feature["dtype"]))
            metadata = {"ARROW:extension:name": _EXTENSION, "ARROW:extension:metadata": shape}
        fields.append(pa.field(name, _storage(pa, feature), metadata=metadata))
    info = json.dumps({"info": {"features": dict(features)}})
    return pa.schema(fields, metadata={"huggingface": info})


def _storage(pa: Any, feature: Feature) -> Any:
    if feature["_type"] == "Array2D":
        return pa.list_(pa.list_(_type(pa, feature["dtype"])))
    if feature["_type"] == "List":
        return pa.list_(_storage(pa, feature["feature"]))
    return _type(pa, feature["dtype"])


def _type(pa: Any, dtype: str) -> Any:
    return pa.type_for_alias(dtype)


def _batches(
    pa: Any, schema: Any, features: Mapping[str, Feature], rows: Iterable[Mapping[str, Any]]
) -> Iterable[Any]:
    waiting: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        waiting.append(row)
        size += 200 + sum(cell.nbytes for cell in row.values() if isinstance(cell, np.ndarray))
        if size > BATCH:
            yield _batch(pa, schema, features, waiting)
            waiting, size = [], 0
    if waiting:
        yield _batch(pa, schema, features, waiting)


def _batch(
    pa: Any, schema: Any, features: Mapping[str, Feature], rows: Sequence[Mapping[str, Any]]
) -> Any:
    columns = []
    for field in schema:
        cells = [row[field.name] for row in rows]
        two_dimensional = isinstance(cells[0], np.ndarray) and cells[0].ndim == 2
        columns.append(
            _matrices(pa, cells, field.type) if two_dimensional else pa.array(cells, field.type)
        )
    return pa.record_batch(columns, schema=schema)


def _matrices(pa: Any, cells: Sequence[NDArray[Any]], kind: Any) -> Any:
    """Matrices as lists of lists, without a Python object per number."""
    values = np.concatenate([np.ascontiguousarray(cell).ravel() for cell in cells])
    widths = np.concatenate([np.full(len(cell), cell.shape[1]) for cell in cells])
    inner = np.concatenate([[0], np.cumsum(widths)]).astype(np.int32)
    outer = np.concatenate([[0], np.cumsum([len(cell) for cell in cells])]).astype(np.int32)
    flat = pa.array(values, kind.value_type.value_type)
    lines = pa.ListArray.from_arrays(pa.array(inner), flat)
    return pa.ListArray.from_arrays(pa.array(outer), lines)
