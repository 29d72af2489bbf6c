"""Notebooks as pages of the site: a notebook (nbformat 4) in, Markdown and pictures out.

Notebooks are committed without outputs. The test that executes them leaves the executed ones in
build/notebooks; where one belongs to the notebook as it is now, its outputs are shown.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]


def page_of(path: Path, executed: Path) -> tuple[str, dict[str, bytes]]:
    """The page of a notebook, and its pictures by their file names.

    Parameters
    ----------
    path
        The notebook, without outputs.
    executed
        Where the executed notebook may be.

    Returns
    -------
    The Markdown text, and the PNG files that it shows.
    """
    notebook = _with_outputs(json.loads(path.read_text(encoding="utf-8")), executed)
    pictures: dict[str, bytes] = {}
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            parts += _shown(output, path.stem, pictures)
    parts.insert(1, f"[Download this notebook]({path.name}){{ download }}")
    return "\n\n".join(parts) + "\n", pictures


def _with_outputs(notebook: Notebook, executed: Path) -> Notebook:
    """The executed notebook, if it has the same cells; otherwise the notebook itself."""
    if not executed.is_file():
        return notebook
    done: Notebook = json.loads(executed.read_text(encoding="utf-8"))
    same = [_source(cell) for cell in done["cells"]] == [_source(c) for c in notebook["cells"]]
    return done if same else notebook


def _source(cell: dict[str, Any]) -> tuple[str, str]:
    return cell["cell_type"], "".join(cell["source"])


def _shown(output: dict[str, Any], stem: str, pictures: dict[str, bytes]) -> Iterator[str]:
    """An output as Markdown; its picture is added to `pictures`."""
    if output["output_type"] == "stream":
        if output["name"] == "stdout":
            yield _text("".join(output["text"]))
        return
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{stem}-{len(pictures)}.png"
        pictures[name] = base64.b64decode("".join(data["image/png"]))
        yield f"![Output of the cell above]({name})"
    elif "text/html" in data:
        yield '<div class="output">\n' + "".join(data["text/html"]) + "\n</div>"
    elif "text/plain" in data:
        yield _text("".join(data["text/plain"]))


def _text(text: str) -> str:
    return "```{ .text .output }\n" + text.rstrip("\n") + "\n```"
