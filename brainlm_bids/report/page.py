"""What the pages have in common: frame, style sheet and script. Whatever was read is escaped.

A page is one file. Its script is inline and the only one that its content policy allows, by the
hash of its text: nothing that was read from a data set can run, and nothing is fetched from a
network. Everything can be read without the script.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from brainlm_bids.bids.names import parse, with_prefix
from brainlm_bids.files import DATA, read_text
from brainlm_bids.resources import WEIGHTS_LICENCE_NAME

# Files of data/styles and data/scripts, in the order in which a page has them
STYLES = (
    "base.css",
    "group.css",
    "subject.css",
    "maps.css",
    "ratings.css",
    "index.css",
    "tools.css",
)
SCRIPTS = (
    *("navigation.js", "boxes.js", "tables.js", "sections.js", "figures.js", "ratings.js"),
    *("scatter.js", "strips.js", "filter.js", "opens.js"),
)
# What a page may load: its pictures, its style sheet, its script. `{script}` is the script's hash.
FRAMES_OF_FILES = "object-src 'self' file:; frame-src 'self' file:"
_POLICY = (
    f"default-src 'none'; img-src 'self' file: data:; {FRAMES_OF_FILES}; "
    "style-src 'unsafe-inline'; script-src '{script}'; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class Places:
    """The pages that a page leads to, relative to the output folder; empty where there is none."""

    index: str = ""
    group: str = ""
    previous: str = ""
    next: str = ""

    @property
    def any(self) -> bool:
        """Whether it leads anywhere."""
        return any(astuple(self))


def render(template: str, places: Places = Places(), **values: Any) -> str:
    """Fill a template that extends `page.html.j2`.

    Parameters
    ----------
    template
        Name of a file of `data/`.
    places
        The pages that it leads to.
    **values
        What the template shows; all of it is escaped.

    Returns
    -------
    str
        The page.
    """
    return environment().get_template(template).render(places=places, **values)


@cache
def environment() -> jinja2.Environment:
    """Templates in which everything is escaped, with what all pages share.

    There is one in a process: templates take longer to compile than a page takes to fill.
    """
    templates = jinja2.Environment(
        loader=jinja2.FunctionLoader(_data),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = "".join(_data(f"scripts/{name}") for name in SCRIPTS)
    templates.filters["href"] = _href
    templates.filters["anchor"] = anchor
    templates.globals["css"] = Markup("".join(_data(f"styles/{name}") for name in STYLES))
    templates.globals["script"] = Markup(script)
    templates.globals["policy"] = Markup(_POLICY.format(script=_hash(script)))
    templates.globals["weights_licence"] = WEIGHTS_LICENCE_NAME
    return templates


def anchor(heading: str) -> str:
    """The identifier of a heading in a page.

    >>> anchor("Embedding map")
    'embedding-map'
    """
    return heading.lower().replace(" ", "-")


def recording_anchor(stem: str) -> str:
    """The identifier of a recording's section in the page of its subject.

    >>> recording_anchor("sub-01_ses-a_task-rest_run-1")
    'ses-a_task-rest_run-1'
    """
    subject = with_prefix("sub", parse(stem).entities.get("sub", ""))
    return stem.removeprefix(f"{subject}_")


def _href(path: object, section: str = "") -> str:
    """A link to a file beside the page, or to a section of it."""
    return "./" + quote(str(path)) + (f"#{quote(section)}" if section else "")


def _hash(script: str) -> str:
    """As a content policy names a script that it allows."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _data(name: str) -> str:
    return read_text(DATA / name)
