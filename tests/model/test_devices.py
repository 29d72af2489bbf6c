"""The device and the precision that a model runs with, and when torch is asked about them."""

import subprocess
import sys

import pytest
import torch

from brainlm_bids.errors import UserError
from brainlm_bids.model import devices
from brainlm_bids.model.devices import choose_device, resolve_precision
from brainlm_bids.settings import TABLE


@pytest.mark.parametrize(
    ("cuda", "device", "precision", "expected"),
    [
        (False, "auto", "auto", "float32"),
        (False, "cpu", "auto", "float32"),
        (False, "auto", "bfloat16", "bfloat16"),
        (True, "auto", "auto", "bfloat16"),
        (True, "cuda", "auto", "bfloat16"),
        (True, "cpu", "auto", "float32"),
        (True, "auto", "float32", "float32"),
    ],
)
def test_auto_depends_on_the_device(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, device: str, precision: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert resolve_precision(device, precision) == expected


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        choose_device("cuda")
    with pytest.raises(UserError, match="no CUDA device"):
        resolve_precision("cuda", "float32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == "cuda"


def test_words_are_those_of_the_settings() -> None:
    assert TABLE["device"].choices == devices.DEVICES
    assert TABLE["precision"].choices == devices.PRECISIONS


def test_a_cpu_is_planned_for_without_torch() -> None:
    code = (
        "import sys\n"
        "from brainlm_bids.model.devices import resolve_precision\n"
        "assert resolve_precision('cpu', 'auto') == 'float32'\n"
        "from importlib.metadata import version\n"
        "if version('torch').endswith('+cpu'):\n"
        "    assert resolve_precision('auto', 'auto') == 'float32'\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
