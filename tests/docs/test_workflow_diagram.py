"""The diagram of the documentation is that of the graph as it is now."""

import importlib.util
from pathlib import Path
from types import ModuleType

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "mkdocs.yml").is_file():
    pytest.skip("the documentation is not here (the image with the tests)", allow_module_level=True)


@pytest.fixture(scope="module")
def diagram() -> ModuleType:
    path = ROOT / "docs" / "workflow_diagram.py"
    spec = importlib.util.spec_from_file_location("workflow_diagram", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_that_of_the_graph(diagram: ModuleType) -> None:
    graph = diagram.planned_graph()
    order = [step.name for step in nx.topological_sort(graph)]
    assert order.index("realign") < order.index("extract") < order.index("scale")
    picture = diagram.PICTURE.read_text(encoding="utf-8")
    assert diagram.draw(graph) == picture, "run: python docs/workflow_diagram.py"
