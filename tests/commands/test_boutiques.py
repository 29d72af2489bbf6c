"""The Boutiques descriptor is that of the table of settings, and so is Nipoppy's pipeline."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from every_option import check_understood, invocation, rendered

from brainlm_bids import __version__
from brainlm_bids.commands import boutiques
from brainlm_bids.settings import TABLE

FOLDER = Path(__file__).resolve().parents[2] / "workflows"
in_repository = pytest.mark.skipif(
    not (FOLDER / "boutiques").is_dir(), reason="the recipes are not in the image"
)


@in_repository
def test_the_committed_descriptor_is_that_of_the_table() -> None:
    command = [sys.executable, "-m", "brainlm_bids.commands.boutiques"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept = FOLDER / "boutiques" / "descriptor.json"
    assert done.stdout == kept.read_text(encoding="utf-8"), (
        "the descriptor is out of date: "
        "python -m brainlm_bids.commands.boutiques workflows/nipoppy/descriptor.json"
    )
    assert (FOLDER / "boutiques" / "descriptor.json").samefile(kept)


@in_repository
def test_nipoppys_pipeline_is_of_this_version() -> None:
    pipeline = json.loads((FOLDER / "nipoppy" / "config.json").read_text())
    assert pipeline["VERSION"] == __version__
    image = pipeline["CONTAINER_INFO"]["URI"].replace("[[PIPELINE_VERSION]]", __version__)
    assert image == f"docker://{boutiques.IMAGE}"
    # Boutiques starts /bin/sh as a login shell, which does not find the program of the image
    assert boutiques.descriptor()["shell"] == "/bin/bash"


def test_every_option_is_an_input_and_is_understood() -> None:
    assert set(invocation()) == {*TABLE, "config_file", "notrack"}
    check_understood(rendered(invocation()))
    # the test sees an input that is not there
    less = {name: value for name, value in invocation().items() if name != "high_pass"}
    with pytest.raises((AssertionError, KeyError)):
        check_understood(rendered(less))


def test_inputs_have_the_bounds_and_choices_of_the_settings() -> None:
    inputs: dict[str, dict[str, Any]] = {one["id"]: one for one in boutiques.descriptor()["inputs"]}
    ratio = inputs["mask_ratio"]
    assert (ratio["minimum"], ratio["maximum"]) == (0, 1)
    assert ratio["exclusive-minimum"] and ratio["exclusive-maximum"] and ratio["list"]
    assert inputs["pooling"]["value-choices"] == ["cls", "mean", "max"]
    assert inputs["dummy_scans"]["integer"] and "maximum" not in inputs["dummy_scans"]
    assert inputs["verbose"]["value-choices"] == ["-v", "-vv"]
    assert "default-value" not in {key for one in inputs.values() for key in one}
    # folders that the call makes cannot be checked before it
    assert {inputs[name]["type"] for name in ("output_dir", "work_dir")} == {"String"}
    assert {inputs[name]["type"] for name in ("bids_dir", "scaling_stats")} == {"File"}
