"""A page with its pictures in it: one file that can be mailed.

The pictures become data URIs where the page has linked them, and the content policy allows those in
place of files. Whatever else the page links (tables, other pages) stays a link, which leads nowhere
in a copy of the page alone.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from urllib.parse import unquote

from brainlm_bids.report.page import FRAMES_OF_FILES

# A page shows its interactive pictures in objects, which are frames of their own
_FRAMES_OF_DATA = "object-src data:; frame-src data:"
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_PICTURE = r"\./([^\"#?]+\.(?:svg|png))"
_SHOWN = re.compile(rf'(<img\b[^>]*?\bsrc=")({_PICTURE})"')
_OPENED = re.compile(rf'<a href="{_PICTURE}">([^<]*)</a>')


def with_pictures(page: str, folder: Path) -> str:
    """Embed the pictures that a page shows.

    Parameters
    ----------
    page
        HTML that `report.page.render` wrote.
    folder
        Where it lies; its links start there.

    Returns
    -------
    str
        The page, which shows all of its pictures wherever it lies. A picture that does not exist
        stays a link, and links that open a picture become buttons.
    """
    page = _SHOWN.sub(lambda found: _embedded(found, folder), page)
    page = _OPENED.sub(lambda found: _button(found, folder), page)
    return page.replace(FRAMES_OF_FILES, _FRAMES_OF_DATA)


def _embedded(found: re.Match[str], folder: Path) -> str:
    path = folder / unquote(found[3])
    if not path.is_file():
        return found[0]
    content = base64.b64encode(path.read_bytes()).decode()
    return f'{found[1]}data:{_TYPES[path.suffix]};base64,{content}"'


def _button(found: re.Match[str], folder: Path) -> str:
    """A link to data would be refused by browsers: the script opens what the page holds already."""
    if not (folder / unquote(found[1])).is_file():
        return found[0]
    return f'<button type="button" class="opens" hidden>{found[2]}</button>'
