"""The pages that a subject's page leads to: index, group, and the subjects before and after.

Pages appear one by one, often by jobs that know nothing of each other. A page is written under the
folder's lock, and the links of its two neighbours are changed with it, so that a link leads to a
page that exists, and no job touches more than three pages.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

from brainlm_bids import files
from brainlm_bids.bids.dataset import dataset_lock
from brainlm_bids.bids.names import with_prefix, without_prefix
from brainlm_bids.errors import UserError
from brainlm_bids.report.page import Places, environment

INDEX, GROUP_PAGE = "index.html", "group.html"
_PARTS = re.compile(r"\d+|\D+")
_MARKED = re.compile(r"<!-- places -->.*?<!-- /places -->", re.DOTALL)


def page_name(label: str) -> str:
    """The name of a subject's page.

    >>> page_name("01"), page_name("sub-01")
    ('sub-01.html', 'sub-01.html')
    """
    return f"{with_prefix('sub', without_prefix('sub', label))}.html"


def subject_pages(output_dir: Path) -> list[str]:
    """The names of all subjects' pages, in the order of the labels; numbers count as numbers."""
    return sorted((path.name for path in output_dir.glob("sub-*.html")), key=_order)


def _order(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    parts = _PARTS.findall(name.removesuffix(".html"))
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], name


def places_of(output_dir: Path, page: str, pages: list[str]) -> Places:
    """Where a page leads.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    page
        Name of the page.
    pages
        The pages of all subjects, in their order; with `page`, or not yet.
    """
    # not sorted here: this is done for each of thousands of pages
    place = bisect_left(pages, _order(page), key=_order)
    after = place + (pages[place : place + 1] == [page])
    index, group = ((output_dir / name).is_file() for name in (INDEX, GROUP_PAGE))
    return Places(
        INDEX if index else "",
        GROUP_PAGE if group else "",
        pages[place - 1] if place else "",
        pages[after] if after < len(pages) else "",
    )


def publish(output_dir: Path, label: str, text: str) -> Path:
    """Write a subject's page, and let its neighbours lead to it.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    label
        Of the subject.
    text
        The page, with any links to other pages.

    Returns
    -------
    Path
        The page.
    """
    name = page_name(label)
    with dataset_lock(output_dir):
        pages = subject_pages(output_dir)
        own = places_of(output_dir, name, pages)
        pages = sorted({*pages, name}, key=_order)
        path = files.write_text(output_dir / name, with_places(text, own))
        for neighbour in filter(None, (own.previous, own.next)):
            _link(output_dir, neighbour, pages)
    return path


def refresh(output_dir: Path, labels: Iterable[str] | None = None) -> None:
    """Let pages lead to whatever exists now: when an index or a cohort's page was written.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    labels
        The subjects whose pages are looked at; None: all.
    """
    pages = subject_pages(output_dir)
    for name in pages if labels is None else map(page_name, labels):
        if (output_dir / name).is_file():
            with dataset_lock(output_dir):
                _link(output_dir, name, pages)


def _link(output_dir: Path, name: str, pages: list[str]) -> None:
    """Fill in the links of a page that exists; a page that nobody can read stays as it is."""
    path = output_dir / name
    try:
        text = files.read_text(path)
    except UserError:
        return
    linked = with_places(text, places_of(output_dir, name, pages))
    if linked != text:
        files.write_text(path, linked)


def with_places(text: str, places: Places) -> str:
    """A page with other links to pages; a page of an earlier version has no place for them.

    Parameters
    ----------
    text
        The page.
    places
        Where it leads.
    """
    links = environment().get_template("places.html.j2").render(places=places)
    return _MARKED.sub(lambda _: links, text, count=1)
