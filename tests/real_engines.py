"""SLURM, Apptainer and BABS as they are on this machine, for the tests marked `cluster`.

Without an engine a test is skipped; where BRAINLM_BIDS_ENGINES says which must be there ("slurm
apptainer babs"), its absence fails.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

# who runs what root must not run
SOMEBODY = 65534


def need(name: str, present: bool) -> None:
    """Skip the test, or fail it, if an engine is not there."""
    if present:
        return
    if name in os.environ.get("BRAINLM_BIDS_ENGINES", "").split():
        pytest.fail(f"{name} must be here (BRAINLM_BIDS_ENGINES)")
    pytest.skip(f"no {name} on this machine")


def need_slurm() -> None:
    found = shutil.which("sinfo") is not None
    need("slurm", found and subprocess.run(["sinfo"], capture_output=True).returncode == 0)


def need_image() -> Path:
    """The image file of Apptainer that $BRAINLM_BIDS_SIF names."""
    path = Path(os.environ.get("BRAINLM_BIDS_SIF", "/no/image.sif"))
    need("apptainer", shutil.which("apptainer") is not None and path.is_file())
    return path


def need_babs() -> Path:
    """The programs of the environment with BABS that $BRAINLM_BIDS_BABS names."""
    path = Path(os.environ.get("BRAINLM_BIDS_BABS", "/no/bin"))
    need("babs", (path / "babs").is_file() and shutil.which("7z") is not None)
    return path


def wait_for(finished: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not finished():
        assert time.monotonic() < end, "SLURM did not finish in time"
        time.sleep(1)


def start_as_somebody(
    command: Sequence[str], environment: Mapping[str, str], folder: Path | str = "/tmp"
) -> subprocess.Popen[str]:
    """Start a command as a user who is not root."""
    if os.getuid() == 0:
        user = [f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]
        command = ["setpriv", *user, *command]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env={**os.environ, **environment},
    )  # fmt: skip


def as_somebody(
    command: Sequence[str], environment: Mapping[str, str], folder: Path | str = "/tmp"
) -> SimpleNamespace:
    """Run a command as a user who is not root."""
    process = start_as_somebody(command, environment, folder)
    said = process.communicate()[0]
    return SimpleNamespace(code=process.returncode, said=said)


def name_of_somebody() -> str:
    return pwd.getpwuid(SOMEBODY if os.getuid() == 0 else os.getuid()).pw_name


@contextlib.contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that somebody who is not root reaches and writes to."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
