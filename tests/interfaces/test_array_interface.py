"""What the cache of a work folder depends on."""

from pathlib import Path
from typing import Any

import pytest
from nipype.interfaces.base import File, TraitedSpec, traits
from nipype.pipeline import engine

from brainlm_bids import __version__
from brainlm_bids.errors import Stopped
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface


class _Inputs(ArrayInputSpec):
    number = traits.Int()
    counter = File(nohash=True)


class _Outputs(TraitedSpec):
    number = traits.Int()


class _Counted(ArrayInterface):
    """Writes a line each time that it computes."""

    input_spec, output_spec = _Inputs, _Outputs

    def _compute(self, folder: Path) -> None:
        with Path(self.inputs.counter).open("a") as stream:
            stream.write(f"{self.inputs.version}\n")
        self._results["number"] = self.inputs.number


@pytest.mark.parametrize(
    ("changed", "again"),
    [({}, False), ({"n_threads": 2}, False), ({"number": 2}, True), ({"version": "0.0.9"}, True)],
)
def test_a_work_folder_of_another_version_is_not_used(
    tmp_path: Path, changed: dict[str, Any], again: bool
) -> None:
    counter = tmp_path / "counter"
    for values in ({}, changed):
        node = engine.Node(_Counted(number=1, counter=str(counter)), name="one")
        node.base_dir = str(tmp_path)
        node.inputs.trait_set(**values)
        node.run()
    assert len(counter.read_text().splitlines()) == 1 + again
    assert counter.read_text().splitlines()[0] == __version__


class _Stopped(ArrayInterface):
    input_spec, output_spec = _Inputs, _Outputs

    def _compute(self, folder: Path) -> None:
        raise Stopped


def test_what_stops_a_call_is_no_failure_of_its_step(tmp_path: Path) -> None:
    """Where steps run in the call's own process, the next one would begin."""
    graph = engine.Workflow(name="graph", base_dir=str(tmp_path))
    counter = tmp_path / "counter"
    first = engine.Node(_Stopped(number=1, counter=str(counter)), name="first")
    second = engine.Node(_Counted(number=2, counter=str(counter)), name="second")
    graph.connect(first, "number", second, "number")
    graph.add_nodes([engine.Node(_Counted(number=3, counter=str(counter)), name="third")])
    with pytest.raises(Stopped):
        graph.run(plugin="Linear")
    assert not list(tmp_path.rglob("crash*"))
