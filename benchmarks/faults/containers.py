"""The container as any user, without a home, a network or a writable root.

The image is the one that `make image` builds, or that BRAINLM_BIDS_TEST_IMAGE names.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import small
from benchmarks.faults.calls import Outcome, left_over, trial
from benchmarks.faults.fault import Fault, NotTried, Trial
from benchmarks.faults.processes import differences, settle

IMAGE = os.environ.get("BRAINLM_BIDS_TEST_IMAGE", "brainlm-bids:cpu")
CLOSED = ("--read-only", "--tmpfs", "/tmp", "--network", "none")
NOBODY = 54321  # has no entry in the image's passwd
USERS = (0, 1000, NOBODY)
HOMES: tuple[tuple[str, ...], ...] = ((), ("-e", "HOME="), ("-e", "HOME=/nowhere"))
PATIENCE_S = 900


def docker(*words: str, patience: float = PATIENCE_S) -> Outcome:
    """Run the engine's client. NotTried without one."""
    client = os.environ.get("DOCKER", "docker")
    started = time.monotonic()
    try:
        done = subprocess.run([client, *words], capture_output=True, timeout=patience, check=False)
    except FileNotFoundError:
        raise NotTried(f"there is no {client} on this machine") from None
    except subprocess.TimeoutExpired:
        return Outcome(-1, f"hangs: stopped after {patience:.0f} s", patience)
    text = (done.stdout + done.stderr).decode(errors="replace")
    return Outcome(done.returncode, text, time.monotonic() - started)


def need_image() -> None:
    """Raise NotTried if there is no engine, or no image."""
    if docker("image", "inspect", IMAGE).code != 0:
        raise NotTried(f"no Docker engine with the image {IMAGE} (`make image`)")


def words(raw: Path, out: Path, user: int, *options: str) -> list[str]:
    """`docker run` of a call on one series, without its first words."""
    mounts = ["-v", f"{raw}:/data:ro", "-v", f"{out}:/out"]
    series = [f"/data/{path.name}" for path in sorted(raw.glob("*_timeseries.npy"))]
    call = ["/data", "/out", "participant", *small.QUICK, *small.MODEL]
    call += ["--timeseries", *series, "--timeseries-tr", "2"]
    return ["--user", f"{user}:{user}", *CLOSED, *options, *mounts, IMAGE, *call]


def new_folder(path: Path) -> Path:
    """An output folder that anybody may write to."""
    path.mkdir(parents=True)
    path.chmod(0o777)
    return path


def _users(folder: Path, _seconds: float) -> Sequence[Trial]:
    """Calls as some users, with and without a home; all make the same bytes."""
    need_image()
    raw = small.series(folder / "raw", 1)
    good = new_folder(folder / "good")
    trials: list[Trial] = []
    for user, home in [(user, HOMES[k % 3]) for k, user in enumerate(USERS)] + [
        (NOBODY, ()),
        (NOBODY, ("-e", "HOME=")),
    ]:
        first = not any(good.iterdir())
        out = good if first else new_folder(folder / f"out-{len(trials)}")
        done = docker("run", "--rm", *words(raw, out, user, *home))
        faults = _faults(done, 0, out)
        owner = user or out.stat().st_uid  # root becomes the owner of the folder
        strange = {path.lstat().st_uid for path in out.rglob("*")} - {owner}
        faults += [f"files of users {sorted(strange)}"] if strange else []
        if done.code == 0:
            settle(out)
        faults += [] if first else differences(good, out)[:3]
        what = f"uid {user} {' '.join(home)}"
        trials.append(trial(what, faults, done))
    return trials


def _faults(done: Outcome, code: int, out: Path) -> list[str]:
    found = [f"exit code {done.code}, not {code}: {done.text[-300:]}"] if done.code != code else []
    return done.faults + found + [f"{name} was left" for name in left_over(out)]


FAULTS = (
    Fault(
        "containers/users",
        f"uid 0, 1000 and {NOBODY}, which has no entry in passwd; HOME as the engine sets it, "
        "empty, or a folder that is not there; a read-only root, no network",
        "done, the same bytes, files of that user (of the owner of OUTPUT_DIR for root)",
        _users,
    ),
)
