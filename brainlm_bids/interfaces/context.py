"""Records as inputs of nodes: held as plain values, which Nipype can hash, print and pickle."""

import dataclasses
from typing import Any

from traits.api import TraitType

from brainlm_bids.bids.context import to_plain


class Record(TraitType):
    """An input that accepts a frozen dataclass and holds it as plain values (`to_plain`).

    The interface reads it with `from_plain`. Nodes whose records are equal have the same hash.
    """

    info_text = "a record, or the plain values of one"

    def __init__(self, record: type, **metadata: Any) -> None:
        super().__init__(**metadata)
        self._record = record

    def validate(self, owner: Any, name: str, value: Any) -> dict[str, Any]:
        """Convert a record to plain values.

        Parameters
        ----------
        owner, name
            The inputs and the name of this one.
        value
            A record, or the plain values of one.

        Returns
        -------
        dict
            Plain values.

        Raises
        ------
        TraitError
            For any other value.
        """
        if dataclasses.is_dataclass(value) and isinstance(value, self._record):
            return dict(to_plain(value))
        if not isinstance(value, dict):  # a dict: a copy of the node's inputs
            self.error(owner, name, value)
        return dict(value)
