#!/opt/brainlm-bids/bin/python -I
"""What runs first in the image: makes room for caches, drops root, starts the program, watches it.

In: the arguments of `brainlm-bids` (or `brainlm`, by the name this file is called under), any uid.
Out: the program's exit code; 137 and a line that says so if it was killed for want of memory.
"""

import json
import os
import pwd
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from brainlm_bids.app import machine
from brainlm_bids.commands import containers

PREFIX = Path("/opt/brainlm-bids")
SHIPPED = "BRAINLM_BIDS_SHIPPED"
WEIGHTS = "/weights"  # as the Dockerfile says
# Where libraries keep what they make; each gets a folder that can be written to.
CACHES = {
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "HF_HOME": "huggingface",
    "NIPYPE_CONFIG_DIR": "nipype",
    "TORCHINDUCTOR_CACHE_DIR": "torch",
    "XDG_CACHE_HOME": "cache",
}
ASKS_ONLY = {"-h", "--help", "--version"}

# --- who ---------------------------------------------------------------------------------------


def owner_wanted(program: str, arguments: Sequence[str]) -> tuple[int, int] | None:
    """uid and gid of the folder that is written to, or of the nearest one above it that exists."""
    target = _output(program, arguments)
    if target is None:
        return None
    for folder in (target, *target.parents):
        if folder.exists():
            found = folder.stat()
            return found.st_uid, found.st_gid
    return None


def _output(program: str, arguments: Sequence[str]) -> Path | None:
    """The folder that a call writes to, as far as that can be told before it is parsed."""
    if program == "brainlm" and arguments[:1] == ["fetch"]:
        home = os.environ.get("BRAINLM_BIDS_HOME")
        return Path(home) if home else None
    paths = [Path(text).absolute() for text in arguments if text.startswith(("/", "."))]
    if program == "brainlm":
        return paths[0] if paths else None
    # BIDS Apps: BIDS_DIR OUTPUT_DIR LEVEL, wherever they stand among the flags
    for level in ("participant", "group"):
        if level in arguments:
            place = list(arguments).index(level)
            return Path(arguments[place - 1]).absolute() if place >= 2 else None
    return None


def become(uid: int, gid: int) -> None:
    """Stop being root: be the owner of the output, with the groups that docker was told."""
    os.setgroups([group for group in os.getgroups() if group] or [gid])
    os.setgid(gid)
    os.setuid(uid)


# --- where -------------------------------------------------------------------------------------


def private_folder(places: Sequence[Path]) -> Path | None:
    """A folder of our own in the first place that can be written to."""
    for place in places:
        folder = place / f".brainlm-bids-cache-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            # /tmp may be shared (Apptainer): a folder of somebody else is not ours to trust
            if found.st_uid == os.getuid() and not found.st_mode & 0o022 and folder.is_dir():
                return folder
            return Path(tempfile.mkdtemp(prefix=".brainlm-bids-cache-", dir=place))
        except OSError:
            continue
    return None


def environment_for(given: Mapping[str, str], cache: Path | None) -> dict[str, str]:
    """The program's environment: caches in `cache`, a home, a name for a uid that has none."""
    values = dict(given)
    # of the host, where an engine hands them on: they would put other packages before ours
    for name in ("PYTHONPATH", "PYTHONHOME"):
        values.pop(name, None)
    values.setdefault("USER", _name())
    values.setdefault("LOGNAME", values["USER"])
    home = values.get("BRAINLM_BIDS_HOME")
    if home == WEIGHTS and not _usable(home) and not _holds_files(home):
        # nothing is mounted there, and nothing can be kept there: the cache of the user instead
        del values["BRAINLM_BIDS_HOME"]
    if cache is None:
        return values
    for variable, name in CACHES.items():
        if not _usable(values.get(variable)):
            values[variable] = str(cache / name)
            (cache / name).mkdir(exist_ok=True)
    if not _usable(values.get("HOME")):
        values["HOME"] = str(cache)
    if not _usable(values.get("TMPDIR", "/tmp")):
        values["TMPDIR"] = str(cache)
    return values


def _usable(folder: str | None) -> bool:
    return bool(folder) and Path(str(folder)).is_dir() and os.access(str(folder), os.W_OK)


def _holds_files(folder: str) -> bool:
    try:
        return any(Path(folder).iterdir())
    except OSError:
        return False


def _name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "brainlm"


# --- what the image lacks ----------------------------------------------------------------------


def lacking(shipped: Path) -> str | None:
    """A line that says what could not be put into this image, or None."""
    try:
        missing = json.loads((shipped / "baked.json").read_text())["missing"]
    except (OSError, ValueError, KeyError):
        return None
    if not missing:
        return None
    reason = next(iter(missing.values()))
    return (
        f"this image was built without {', '.join(missing)} ({reason}); unless they are given or "
        "in the cache (-v weights:/weights), they are downloaded or replaced, which is said below"
    )


# --- watching ----------------------------------------------------------------------------------


def watch(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the program as a child, and tell a kill for want of memory."""
    before = machine.oom_kills()
    code = containers.supervise(command, environment)
    if code == -signal.SIGKILL:
        print(f"brainlm-bids: {_why_killed(before)}", file=sys.stderr)
    return 128 - code if code < 0 else code


def _why_killed(before: int | None) -> str:
    after = machine.oom_kills()
    if before is None or after is None or after <= before:
        return "was killed (signal 9); the same command continues"
    return (
        f"out of memory: the limit of {machine.available_memory() / 1e9:.1f} GB was reached; give "
        "more (docker run --memory), or use less (--nprocs 1); the same command continues"
    )


def main(argv: Sequence[str]) -> int:
    """Start the program that `argv[0]` names."""
    program, arguments = Path(argv[0]).name, list(argv[1:])
    command = [str(PREFIX / "bin" / program), *arguments]
    if os.getuid() == 0:
        owner = owner_wanted(program, arguments)
        if owner is not None and owner[0] != 0:
            become(*owner)
    places = [Path(os.environ.get("TMPDIR", "/tmp")), Path("/tmp"), Path.cwd()]
    output = _output(program, arguments)
    cache = private_folder(places + ([output] if output else []))
    environment = environment_for(os.environ, cache)
    if not ASKS_ONLY & set(arguments) and program == "brainlm-bids":
        text = lacking(Path(os.environ.get(SHIPPED, "")))
        if text:
            print(f"brainlm-bids: {text}", file=sys.stderr)
    return watch(command, environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
