"""Participants as tables write them: their ids are matched with the labels of the recordings."""

import re
from collections.abc import Callable, Sequence


def match_ids(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, str]:
    """Find the ids of participants in another spelling, where no other could be meant.

    An id that is written alike is taken first. Then blanks, hyphens, underscores, upper and lower
    case and the prefix sub are set aside, then also zeros in front of numbers, which spreadsheets
    lose, and the decimals that they add. A spelling that fits more than one participant on either
    side is not matched.

    Parameters
    ----------
    ours
        Labels of the recordings, without "sub-".
    theirs
        Ids of the table, without "sub-".

    Returns
    -------
    dict
        The id in the table of each label that has one.

    Examples
    --------
    >>> match_ids(["01", "A02", "3"], ["1", "sub-a 02", "4"])
    {'01': '1', 'A02': 'sub-a 02'}
    >>> match_ids(["1", "01"], ["001"])
    {}
    """
    found = {label: label for label in ours if label in set(theirs)}
    for spelling in (_bare, _numbered):  # the closest first
        left = [label for label in ours if label not in found]
        taken = set(found.values())
        free = [label for label in theirs if label not in taken]
        ours_by, theirs_by = _grouped(ours, spelling), _grouped(theirs, spelling)
        for label in left:
            name = spelling(label)
            others = [one for one in theirs_by.get(name, []) if one in free]
            if len(ours_by[name]) == 1 and len(theirs_by.get(name, [])) == len(others) == 1:
                found[label] = others[0]
    return {label: found[label] for label in ours if label in found}


def _grouped(labels: Sequence[str], spelling: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        groups.setdefault(spelling(label), []).append(label)
    return groups


def _bare(label: str) -> str:
    """Letters and digits, in lower case, without the prefix.

    >>> _bare("SUB_Patient-07 ")
    'patient07'
    """
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^sub[^a-z0-9]+", "", label.strip().lower()))


def _numbered(label: str) -> str:
    """The same without zeros in front of numbers, and without decimals of 0.

    >>> _numbered("sub-007"), _numbered("7.0"), _numbered("S07"), _numbered("sub007")
    ('7', '7', 's7', '7')
    """
    whole = re.sub(r"^(\d+)\.0+$", r"\1", label.strip())
    bare = re.sub(r"^sub(ject)?(?=.)", "", _bare(whole))
    return re.sub(r"(?<!\d)0+(?=\d)", "", bare)
