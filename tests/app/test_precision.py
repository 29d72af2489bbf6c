"""Outputs of one precision are not complete for a call with another; the device is no reason."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from brainlm_bids import resources
from brainlm_bids.commands import bids_app as cli
from brainlm_bids.files import read_json


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A call that embeds one series."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.8.0"}))
    values = np.random.default_rng(0).normal(100, 1, size=(60, 424))
    table = tmp_path / "sub-01_task-rest_timeseries.tsv"
    pd.DataFrame(values, columns=list(resources.parcels().names)).to_csv(
        table, sep="\t", index=False
    )
    return [
        *(str(raw), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work")),
        *("--timeseries", str(table), "--timeseries-tr", "0.735", "--atlas", "A424approx"),
        *("--model", "random:tiny", "--offline", "--nprocs", "1", "--mask-ratio", "0.75"),
    ]


def test_a_result_in_bfloat16_is_not_complete_for_float32(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def planned(*flags: str) -> str:
        capsys.readouterr()
        assert cli.main([*arguments, *flags, "--dry-run"]) == 0
        return capsys.readouterr().out.splitlines()[1].split()[1]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(arguments) == 0
    sidecar = read_json(next((tmp_path / "out").rglob("*_embeddings.json")))
    assert sidecar["Precision"] == "float32"
    done, again = "complete", "model-randomtiny"
    assert planned() == planned("--precision", "float32") == done
    assert planned("--precision", "bfloat16") == again
    # on a machine with a GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert planned() == planned("--device", "cuda") == again
    assert planned("--precision", "float32") == planned("--device", "cpu") == done
    # and the other way round; the series, of which nothing is said, are never made again
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main([*arguments, "--precision", "bfloat16"]) == 0
    assert planned("--precision", "bfloat16") == done
    assert planned() == again
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert planned() == planned("--device", "cuda") == done
    assert planned("--precision", "float32") == planned("--device", "cpu") == again
