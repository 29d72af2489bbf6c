"""`brainlm-bids-docker`: run `brainlm-bids` in its Docker image.

In: the arguments of `brainlm-bids`, with paths of this machine. Out: `docker run` with every file
and folder mounted that they name, and its exit code. It needs only `docker` and Python's standard
library: in a copy of the repository, `python3 -m brainlm_bids.commands.docker` works without any
installation.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from brainlm_bids.commands import bids_app as cli
from brainlm_bids.commands.containers import existing, mounts, supervise
from brainlm_bids.commands.parser import EXIT_USAGE, Parser, add_options
from brainlm_bids.errors import UserError
from brainlm_bids.settings import TABLE, read_toml, rows_in
from brainlm_bids.table import SECTIONS, Setting
from brainlm_bids.values import Option

PROGRAM = "brainlm-bids-docker"
IMAGE, GPU_IMAGE = "brainlm-bids:latest", "brainlm-bids:gpu"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
PASSED_VARIABLES = (*_PROXIES, *(name.upper() for name in _PROXIES))
EXIT_KILLED = 137


OPTIONS = (
    Option(
        name="image",
        kind=str,
        metavar="NAME",
        default_text=f"$BRAINLM_BIDS_IMAGE, otherwise {IMAGE}, or {GPU_IMAGE} with --gpus",
        help="name of the Docker image",
    ),
    Option(
        name="weights",
        kind=Path,
        metavar="DIR",
        default_text="$BRAINLM_BIDS_HOME, otherwise ~/.cache/brainlm-bids",
        help="folder in which BrainLM's weights are stored",
    ),
    Option(
        name="docker_options",
        kind=str,
        default=(),
        default_text="none",
        convert=shlex.split,
        metavar="TEXT",
        help="further options of docker run, for example --docker-options='--memory 8g'",
    ),
    Option(name="dry_run", kind=bool, default=False, help="print the docker command and stop"),
)


def build_parser() -> Parser:
    """The flags that `brainlm-bids` does not have, and --dry-run, which has another meaning."""
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} BIDS_DIR OUTPUT_DIR {{participant,group}} [options] [-- more options]",
        description="Run brainlm-bids in its Docker image. All options of brainlm-bids are "
        "accepted; the files and folders that they name are mounted. Arguments after -- are passed "
        "on unchanged: '-- --dry-run' is the dry run of brainlm-bids.",
    )
    add_options(parser, OPTIONS)
    parser.add_argument(
        "--gpus",
        nargs="?",
        const="all",
        metavar="GPUS",
        help="make GPUs available, as the option of docker run does (default: none; without a "
        "value: all)",
    )
    return parser


class Places:
    """Paths of this machine, and their places in the container."""

    def __init__(self, bids_dir: Path, output_dir: Path) -> None:
        self.mounts = {existing(bids_dir): "/data:ro", output_dir.absolute(): "/out"}

    def inside(self, path: Path, *, at: str = "", writable: bool = False) -> str:
        """The path in the container; it is mounted unless a folder above it is."""
        path = path.expanduser().absolute()
        for place, there in self.mounts.items():
            if path.is_relative_to(place) and not (writable and there.endswith(":ro")):
                return str(Path(there.removesuffix(":ro")) / path.relative_to(place))
        # the name is kept: outputs are named after the folder of a checkpoint
        there = at or f"/inputs/{len(self.mounts)}/{path.name}"
        self.mounts[path if writable else existing(path)] = there if writable else f"{there}:ro"
        return there


def main(argv: Sequence[str] | None = None) -> int:
    """Run the container; returns its exit code (2: malformed call; 137: it was killed)."""
    given = list(sys.argv[1:] if argv is None else argv)
    ours, behind = _split(given)
    wrapper, rest = build_parser().parse_known_args(ours)
    app = cli.build_parser().parse_args(rest)
    try:
        command, made = docker_command(wrapper, app, behind)
        if wrapper.dry_run:
            print(shlex.join(command))
            return 0
        for folder in made:  # otherwise docker makes them, as root
            folder.mkdir(parents=True, exist_ok=True)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"{PROGRAM}: {error.filename}: cannot be created ({error.strerror})", file=sys.stderr)
        return EXIT_USAGE
    print(f"{PROGRAM}: {shlex.join(command)}", file=sys.stderr)
    code = supervise(command)
    if code == EXIT_KILLED:
        print(
            f"{PROGRAM}: the container was killed (exit code 137), most likely because it ran out "
            "of memory; give it more, or use less (--nprocs 1). The same command continues",
            file=sys.stderr,
        )
    return 128 - code if code < 0 else code


def docker_command(
    wrapper: argparse.Namespace, app: argparse.Namespace, behind: Sequence[str]
) -> tuple[list[str], list[Path]]:
    """`docker run …`, and the folders that must exist before."""
    program = shutil.which("docker")
    if program is None:
        raise UserError("docker is not on the PATH")
    places = Places(app.bids_dir, app.output_dir)
    weights = wrapper.weights or Path(
        os.environ.get("BRAINLM_BIDS_HOME") or Path.home() / ".cache" / "brainlm-bids"
    )
    places.mounts[weights.expanduser().absolute()] = "/weights"
    inside = [*_inside_arguments(app, places), *behind]
    command = [program, "run", "--rm", *_identity(program)]
    if wrapper.gpus:
        command += ["--gpus", wrapper.gpus]
    if getattr(app, "offline", False):
        command += ["--network", "none"]
    for name in PASSED_VARIABLES:
        command += ["-e", name] if name in os.environ else []
    templates = os.environ.get("TEMPLATEFLOW_HOME")
    if templates and Path(templates).is_dir():
        command += ["-e", f"TEMPLATEFLOW_HOME={places.inside(Path(templates))}"]
    command += [*mounts("-v", places.mounts), *wrapper.docker_options]
    default = os.environ.get("BRAINLM_BIDS_IMAGE") or (GPU_IMAGE if wrapper.gpus else IMAGE)
    written = [path for path, there in places.mounts.items() if not there.endswith(":ro")]
    return [*command, wrapper.image or default, *inside], written


def _identity(program: str) -> list[str]:
    """Run as the calling user with all of their groups, so that they own the outputs."""
    if not hasattr(os, "getuid") or _rootless(program):
        return []  # in a rootless engine, root is the calling user
    flags = ["--user", f"{os.getuid()}:{os.getgid()}"]
    if sys.platform == "linux":
        more = sorted(set(os.getgroups()) - {os.getgid()})
        flags += [part for group in more for part in ("--group-add", str(group))]
    return flags


def _rootless(program: str) -> bool:
    command = [program, "info", "--format", "{{.SecurityOptions}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "rootless" in done.stdout


def _inside_arguments(app: argparse.Namespace, places: Places) -> list[str]:
    """The arguments of `brainlm-bids` with the paths of the container."""
    arguments = ["/data", "/out", *app.analysis_level]
    for row in chain.from_iterable(rows_in(name) for name in SECTIONS):
        value = getattr(app, row.name, None)
        if value is None:
            continue
        if row.kind is bool or row.counted:
            arguments += [row.flag] * int(value)
        else:
            arguments += [row.flag, *_values(row, value, places)]
    config = getattr(app, "config_file", None)
    if config is not None:
        _check_config(config)
        arguments += ["--config-file", places.inside(config)]
    return arguments


def _values(row: Setting, value: Any, places: Places) -> Iterator[str]:
    for item in value if row.several else [value]:
        if row.name == "derivatives":
            kind, _, path = item.partition("=")
            yield f"{kind}={places.inside(Path(path))}"
        elif row.name == "timeseries":
            # the folder: the repetition time may be in a JSON file beside the series
            yield f"{places.inside(item.parent)}/{item.name}"
        elif row.name == "parcellation" and _is_path(row, item):
            # the folder: the names are in a table beside the labels
            yield f"{places.inside(Path(item).parent)}/{Path(item).name}"
        elif _is_path(row, item):
            at = "/scratch" if row.name == "work_dir" else ""
            yield places.inside(Path(item), at=at, writable=row.written)
        else:
            yield str(item)


def _is_path(row: Setting, item: Any) -> bool:
    """Whether a value names a file or folder of this machine."""
    if row.words:
        return item not in row.words and not item.startswith("random:")
    if row.name == "parcellation":
        return "/" in item
    return row.kind is Path or row.name == "derivatives"


def _check_config(path: Path) -> None:
    """Refuse paths in a settings file: it is read in the container, where they mean nothing."""
    for name, value in read_toml(path).items():
        row = TABLE[name]
        for item in value if row.several else (value,):
            if _is_path(row, item):
                raise UserError(
                    f"--config-file {path}: {name} = '{item}' is a path of this machine; give it "
                    f"as {row.flag}, so that it can be mounted"
                )


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


if __name__ == "__main__":
    sys.exit(main())
