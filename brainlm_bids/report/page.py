"""What the pages have in common: the templates' environment, which escapes whatever was read."""

from __future__ import annotations

from urllib.parse import quote

import jinja2
from markupsafe import Markup

from brainlm_bids.files import DATA, read_text
from brainlm_bids.resources import WEIGHTS_LICENCE_NAME


def environment() -> jinja2.Environment:
    """Templates in which everything is escaped, with the style sheet as `css`."""
    templates = jinja2.Environment(
        loader=jinja2.FunctionLoader(_data),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["href"] = lambda path: "./" + quote(str(path))
    templates.filters["anchor"] = anchor
    templates.globals["css"] = Markup(_data("report.css"))
    templates.globals["weights_licence"] = WEIGHTS_LICENCE_NAME
    return templates


def anchor(heading: str) -> str:
    """The identifier of a heading in a page.

    >>> anchor("Embedding map")
    'embedding-map'
    """
    return heading.lower().replace(" ", "-")


def _data(name: str) -> str:
    return read_text(DATA / name)
