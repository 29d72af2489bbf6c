"""The diagram of the page "The workflow", made from the graph that the program builds itself.

python docs/workflow_diagram.py          writes docs/img/workflow.svg

One raw run with a T1w image and one model is planned as in any call; the graph is caught when it
would start. Edges that follow from others are left out.
"""

import io
import tempfile
import textwrap
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from unittest import mock

import networkx as nx
import nibabel as nb
import numpy as np

PICTURE = Path(__file__).resolve().parent / "img" / "workflow.svg"
PARTS = {"anat": "T1w image", "func": "BOLD run", "model": "BrainLM"}
COLOURS = {"anat": "#7a4fa3", "func": "#2a6fb0", "model": "#b5532b"}
BOX_WIDTH, LINE, PAD, GAP, MARGIN = 220, 15, 10, 44, 12
CHARACTERS = 34  # of a line in a box


@dataclass(frozen=True)
class Step:
    """One node of the graph: its part (a key of `PARTS`), its name, and what it does."""

    part: str
    name: str
    text: str


def planned_graph() -> nx.DiGraph:
    """The graph of one raw run with a T1w image and one model; nodes are `Step`s."""
    from nipype.pipeline import engine

    from brainlm_bids.commands.bids_app import main

    caught: list[Any] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(engine.Workflow, "run", lambda self, **_: caught.append(self)),
        redirect_stdout(io.StringIO()),
    ):
        bids = Path(folder) / "bids"
        write_data_set(bids)
        options = ["--model", "demo", "--atlas", "A424approx", "--offline", "--nprocs", "1"]
        options += ["--template", "MNI152NLin2009aSym", "-w", str(Path(folder) / "work")]
        main([str(bids), str(Path(folder) / "out"), "participant", *options])
        flat = caught[0]._create_flat_graph()
    steps = {node: step_of(node) for node in flat.nodes()}
    return nx.transitive_reduction(nx.relabel_nodes(nx.DiGraph(flat), steps))


def write_data_set(folder: Path) -> None:
    """A raw data set of one person, whose images hold noise: it is planned, never processed."""
    folder.mkdir()
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    sidecar = '{"RepetitionTime": 2.0, "TaskName": "rest"}'
    (folder / "task-rest_bold.json").write_text(sidecar)
    rng = np.random.default_rng(0)
    shapes = {"anat/sub-01_T1w": (20, 20, 20), "func/sub-01_task-rest_bold": (20, 20, 20, 40)}
    for name, shape in shapes.items():
        values = rng.integers(1, 1000, shape).astype(np.int16)
        image = nb.Nifti1Image(values, np.diag([8.0, 8.0, 8.0, 1.0]))
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((8.0, 8.0, 8.0, 2.0)[: len(shape)])
        path = folder / "sub-01" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nb.save(image, path)


def step_of(node: Any) -> Step:
    """What the diagram says of a node: the first sentence of its interface's docstring."""
    part = node.fullname.split(".")[1].split("_")[0]
    name = "embed, reconstruct" if part == "model" else node.name
    text = (type(node.interface).__doc__ or "").strip().split("\n\n")[0]
    return Step(part, name, " ".join(text.split()))


# --- the picture ---------------------------------------------------------------------------------


def layers_of(graph: nx.DiGraph) -> list[list[Step]]:
    """Steps by the longest way to them; within a layer, near the steps that they follow."""
    layers = [
        sorted(layer, key=lambda step: (step.part, step.name))
        for layer in nx.topological_generations(graph)
    ]
    place = {step: k / max(len(layers[0]) - 1, 1) for k, step in enumerate(layers[0])}
    for layer in layers[1:]:
        before = {step: [place[other] for other in graph.predecessors(step)] for step in layer}
        layer.sort(key=lambda step, seen=before: (np.mean(seen[step]), step.name))
        place |= {step: (k + 1) / (len(layer) + 1) for k, step in enumerate(layer)}
    return layers


def draw(graph: nx.DiGraph) -> str:
    """The graph as SVG, from top to bottom."""
    layers = layers_of(graph)
    width = MARGIN + max(map(len, layers)) * (BOX_WIDTH + MARGIN)
    boxes: dict[Step, tuple[float, float, float]] = {}  # left, top, height
    top = MARGIN + 26.0
    for layer in layers:
        heights = [2 * PAD + LINE * (1 + len(lines_of(step))) for step in layer]
        free = width - len(layer) * BOX_WIDTH
        for k, step in enumerate(layer):
            left = free * (k + 1) / (len(layer) + 1) + k * BOX_WIDTH
            boxes[step] = (left, top, heights[k])
        top += max(heights) + GAP
    parts = [_edge(boxes[a], boxes[b]) for a, b in sorted(graph.edges, key=_names)]
    parts += [_box(step, boxes[step]) for layer in layers for step in layer]
    return _page(width, top - GAP + MARGIN, [*_legend(), *parts])


def lines_of(step: Step) -> list[str]:
    return textwrap.wrap(step.text.rstrip("."), CHARACTERS)


def _names(edge: tuple[Step, Step]) -> tuple[str, ...]:
    return (edge[0].part, edge[0].name, edge[1].part, edge[1].name)


def _edge(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    x0, y0 = start[0] + BOX_WIDTH / 2, start[1] + start[2]
    x1, y1 = end[0] + BOX_WIDTH / 2, end[1]
    bend = (y1 - y0) / 2
    path = (
        f"M{x0:.0f} {y0:.0f} C{x0:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f} {x1:.0f} {y1:.0f}"
    )
    return f'<path d="{path}" class="edge" marker-end="url(#tip)"/>'


def _box(step: Step, box: tuple[float, float, float]) -> str:
    left, top, height = box
    colour = COLOURS[step.part]
    rectangle = (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{BOX_WIDTH}" height="{height:.0f}" rx="6" '
        f'fill="white" stroke="{colour}"/>'
    )
    baseline = top + PAD + LINE - 4
    title = (
        f'<text x="{left + PAD:.0f}" y="{baseline:.0f}" class="name" style="fill:{colour}">'
        f"{escape(step.name)}</text>"
    )
    lines = [
        f'<text x="{left + PAD:.0f}" y="{baseline + LINE * k:.0f}">{escape(line)}</text>'
        for k, line in enumerate(lines_of(step), start=1)
    ]
    return "\n".join([rectangle, title, *lines])


def _legend() -> list[str]:
    return [
        f'<text x="{MARGIN + 110 * k}" y="{MARGIN + 8}" class="name" style="fill:{COLOURS[part]}">'
        f"{escape(text)}</text>"
        for k, (part, text) in enumerate(PARTS.items())
    ]


def _page(width: float, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" '
        'aria-label="The steps from a T1w image and a BOLD run to embeddings">'
    )
    style = (
        "<style>text{font:11.5px sans-serif;fill:#333}.name{font-weight:bold}"
        ".edge{fill:none;stroke:#8a94a3;stroke-width:1.3}</style>"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#8a94a3"/></marker></defs>'
    )
    back = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([head, style, back, *parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(planned_graph()), encoding="utf-8")
