"""The works that the methods text cites, from `data/methods.bib`: citations, a list, BibTeX."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from brainlm_bids.files import DATA, read_text

# More authors than this are cut to the first `_SHOWN`.
_MOST_AUTHORS, _SHOWN = 5, 3
# [@key] or [@one;@two]
CITATION = re.compile(r"\[@([a-z0-9]+(?:;@[a-z0-9]+)*)\]")
_ENTRY = re.compile(r"^@\w+\{(\w+),.*?^\}", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"^\s*(\w+) = \{(.*)\},?$", re.MULTILINE)
_ACCENT = re.compile(r"\{\\(.)(\w)\}")
_COMBINING = {'"': "\u0308", "'": "\u0301", "~": "\u0303"}


@dataclass(frozen=True)
class Reference:
    """A work: how the text cites it, its line in the list of references, and its BibTeX entry."""

    short: str
    full: str
    bibtex: str


def cited_keys(text: str) -> list[str]:
    """The keys of the works that a text cites, each once, in the order of their first citation.

    Examples
    --------
    >>> cited_keys("FSL [@fsl;@smith] filters as FSL [@fsl] does.")
    ['fsl', 'smith']
    """
    found = (key for match in CITATION.finditer(text) for key in match[1].split(";@"))
    return list(dict.fromkeys(found))


def short(key: str) -> str:
    """How a text cites a work.

    Examples
    --------
    >>> short("aroma")
    'Pruim et al., 2015'
    """
    return references()[key].short


def reference_list(keys: Sequence[str]) -> list[str]:
    """The line of each work in a list of references."""
    return [references()[key].full for key in keys]


def bibtex(keys: Sequence[str]) -> str:
    """The entries of some references."""
    return "\n\n".join(references()[key].bibtex for key in keys) + "\n"


@cache
def references() -> dict[str, Reference]:
    """All references, by key."""
    text = read_text(DATA / "methods.bib")
    return {match[1]: _reference(match[0]) for match in _ENTRY.finditer(text)}


def _reference(entry: str) -> Reference:
    fields = {name: _plain(value) for name, value in _FIELD.findall(entry)}
    authors = fields["author"].split(" and ")
    year = fields["year"]
    place = fields.get("journal") or fields["booktitle"]
    if "volume" in fields:
        place += f" {fields['volume']}"
    if "number" in fields:
        place += f"({fields['number']})"
    where = ", ".join([place, *([fields["pages"]] if "pages" in fields else []), year])
    link = f"https://doi.org/{fields['doi']}" if "doi" in fields else fields.get("url", "")
    full = f"{_author_list(authors)}. {fields['title']}. {where}. {link}".rstrip()
    return Reference(f"{_short_authors(authors)}, {year}", full, entry)


def _plain(value: str) -> str:
    r"""A field of BibTeX as plain text.

    >>> _plain(r"Hyv{\"a}rinen on {FSL}, 782--790")
    'Hyvärinen on FSL, 782–790'
    """
    accented = _ACCENT.sub(lambda match: match[2] + _COMBINING[match[1]], value)
    plain = accented.replace("{", "").replace("}", "").replace("--", "–")
    return unicodedata.normalize("NFC", plain)


def _author_list(authors: list[str]) -> str:
    names = [_initials(author) for author in authors if author != "others"]
    if len(names) < len(authors) or len(names) > _MOST_AUTHORS:
        names = [*names[:_SHOWN], "et al"]
    return ", ".join(names)


def _initials(author: str) -> str:
    """Surname and initials.

    >>> _initials("Collins, D. Louis")
    'Collins DL'
    """
    surname, _, given = author.partition(", ")
    return f"{surname} {''.join(name[0] for name in given.split())}"


def _short_authors(authors: list[str]) -> str:
    surnames = [author.partition(",")[0] for author in authors]
    if len(surnames) > 2:
        return f"{surnames[0]} et al."
    return " & ".join(surnames)
