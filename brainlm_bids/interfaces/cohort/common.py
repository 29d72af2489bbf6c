"""Inputs and helpers that the writers of group files share."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces.base import traits

from brainlm_bids import files
from brainlm_bids.bids.context import from_plain
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.context import Record

KEYS = ("participant_id", "session_id", "task", "run", "recording", "mean_fd", "coverage")
# Number of recordings from which tables are also written as Parquet.
LARGE_COHORT = 1000

Plain = dict[str, Any]


def key_columns(recordings: Sequence[Plain]) -> dict[str, list[Any]]:
    """First columns of every table of the group.

    Parameters
    ----------
    recordings
        The recordings.

    Returns
    -------
    dict
        Name of a column to a value per recording.
    """
    return {key: [row["stem" if key == "recording" else key] for row in recordings] for key in KEYS}


class GroupInputs(ArrayInputSpec):
    """Inputs of every writer of group files."""

    naming = Record(Naming, mandatory=True, desc="of the group")
    recordings = traits.List(traits.Dict, mandatory=True)
    sidecar = traits.Dict(mandatory=True, desc="fields that all sidecars begin with")


class GroupInterface(ArrayInterface):
    """Base of the writers of group files."""

    input_spec = GroupInputs
    _label = ""

    def _begin(self) -> None:
        self._naming = from_plain(Naming, self.inputs.naming)
        self._recordings = list(self.inputs.recordings)

    def _of(self, recording: Plain) -> Naming:
        """Return the naming of one recording."""
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
    """Write a table as Parquet beside the TSV, if pyarrow is installed.

    Parameters
    ----------
    table
        The TSV file.

    Returns
    -------
    Path or None
        The Parquet file.
    """
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        return None
    import pandas as pd

    path = table.with_suffix(".parquet")
    texts = dict.fromkeys(("participant_id", "session_id", "task", "run", "recording"), str)
    # a column has one type in the whole table: pandas would choose it anew every some thousand
    # rows, and numbers of one target stand below words of another
    options = {"na_values": ["n/a"], "keep_default_na": False, "low_memory": False}
    frame = pd.read_csv(table, sep="\t", dtype=texts, **options)
    with files.atomically(path) as temporary:
        frame.to_parquet(temporary, index=False)
    return path
