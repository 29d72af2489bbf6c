"""What the pages have in common: the templates' environment, and Markdown as HTML.

Whatever was read is escaped.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape

from brainlm_bids.files import DATA, read_text
from brainlm_bids.resources import WEIGHTS_LICENCE_NAME

_LINK = re.compile(r"https?://[^\s&<>\"']+[^\s&<>\"'.,;)]")


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


def methods_text(output_dir: Path, name: str) -> Markup:
    """The text of a Markdown file in `logs` as HTML; empty if there is none."""
    path = output_dir / "logs" / name
    return markdown(read_text(path)) if path.is_file() else Markup("")


def markdown(text: str) -> Markup:
    """Paragraphs, headings and lists of Markdown as HTML, escaped."""
    return Markup("\n").join(_block(block) for block in re.split(r"\n\s*\n", text.strip()))


def _block(block: str) -> Markup:
    """One paragraph, heading or list of Markdown."""
    heading = re.fullmatch(r"(#{1,4})\s+(.+)", block.strip())
    if heading and heading[1] == "#":
        # the section of the page has this title already
        return Markup("")
    if heading:
        # the first two levels belong to the page
        level = min(len(heading[1]) + 2, 5)
        return Markup("<h{0}>{1}</h{0}>").format(level, heading[2])
    lines = block.strip().splitlines()
    if all(re.match(r"(-|\d+\.)\s", line) for line in lines):
        items = Markup("").join(
            Markup("<li>{}</li>").format(_inline(re.sub(r"^(-|\d+\.)\s+", "", line)))
            for line in lines
        )
        tag = "ol" if lines[0][0].isdigit() else "ul"
        return Markup("<{0}>{1}</{0}>").format(Markup(tag), items)
    return Markup("<p>{}</p>").format(_inline(" ".join(lines)))


def _inline(text: str) -> Markup:
    safe = str(escape(text))
    safe = re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", safe)
    return Markup(_LINK.sub(lambda m: f'<a href="{m[0]}" rel="noopener">{m[0]}</a>', safe))
