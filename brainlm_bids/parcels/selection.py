"""Parcels by name, number or network, as a user gives them."""

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from brainlm_bids.errors import UserError

if TYPE_CHECKING:
    from brainlm_bids.resources import Parcels


def find_parcels(words: Sequence[str], parcels: "Parcels") -> list[int]:
    """Find the columns of parcels.

    Parameters
    ----------
    words
        Names of parcels, numbers (1 to 424), and names of networks; upper and lower case are the
        same.
    parcels
        The parcels of the atlas.

    Returns
    -------
    list of int
        Indices (0 to 423), sorted, without repetitions.

    Raises
    ------
    UserError
        If a word is none of these, with the most similar names; or if all parcels are selected.

    Examples
    --------
    >>> from brainlm_bids.resources import parcels
    >>> find_parcels(["3", "1"], parcels())
    [0, 2]
    """
    table: dict[str, list[int]] = {}
    for k, (name, short, network) in enumerate(
        zip(parcels.names, parcels.network, parcels.network_name, strict=True)
    ):
        table[name.lower()] = [k]
        table.setdefault(short.lower(), []).append(k)
        table.setdefault(network.lower(), []).append(k)
    chosen: set[int] = set()
    for word in words:
        if word.isdigit():
            if not 1 <= int(word) <= len(parcels.names):
                raise UserError(f"{word}: numbers are 1 … {len(parcels.names)}")
            chosen.add(int(word) - 1)
        elif word.lower() in table:
            chosen.update(table[word.lower()])
        else:
            raise UserError(f"{word}: no such parcel or network{_near(word, parcels)}")
    if len(chosen) == len(parcels.names):
        raise UserError("these are all parcels; nothing would be left to predict")
    return sorted(chosen)


def _near(word: str, parcels: "Parcels") -> str:
    known = [*parcels.names, *dict.fromkeys((*parcels.network, *parcels.network_name))]
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=5, cutoff=0.5)
    # V1 is in the names of two parcels, however unlike they are as words
    parts = [name for name in known if word.lower() in name.lower().replace("_", " ").split()]
    names = list(dict.fromkeys([*parts, *(by_lower[name] for name in near)]))[:6]
    if not names:
        return "; the names are in the atlas's dseg.tsv"
    return f"; similar names: {', '.join(names)}"
