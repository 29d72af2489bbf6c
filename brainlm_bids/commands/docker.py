"""`brainlm-bids-docker`: the arguments of `brainlm-bids`, run in its image with Docker.

In: paths of this machine. Out: `docker run` with everything that they name mounted, and its exit
code. It needs Python's standard library and `docker` alone: in a copy of the repository,
`python3 -m brainlm_bids.commands.docker` works without any installation.
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
from brainlm_bids.errors import UserError
from brainlm_bids.settings import TABLE, read_toml, rows_in
from brainlm_bids.table import SECTIONS, Setting

PROGRAM = "brainlm-bids-docker"
IMAGE, GPU_IMAGE = "brainlm-bids:latest", "brainlm-bids:gpu"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
PASSED_VARIABLES = (*_PROXIES, *(name.upper() for name in _PROXIES))
EXIT_KILLED = 137


def build_parser() -> argparse.ArgumentParser:
    """The flags that `brainlm-bids` does not have, and --dry-run, which is another one here."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} BIDS_DIR OUTPUT_DIR {{participant,group}} [options] [-- more options]",
        description="Run brainlm-bids in its Docker image. Takes the options of brainlm-bids too; "
        "folders and files that they name are mounted. What stands behind -- is handed on as it "
        "is: '-- --dry-run' is the dry run of brainlm-bids.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--image",
        metavar="NAME",
        default=os.environ.get("BRAINLM_BIDS_IMAGE"),
        help=f"the image (default: $BRAINLM_BIDS_IMAGE, else {IMAGE}, or {GPU_IMAGE} with --gpus)",
    )
    parser.add_argument(
        "--gpus", nargs="?", const="all", metavar="GPUS", help="give it GPUs (all), as docker does"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="where BrainLM's weights are, or will be kept (default: $BRAINLM_BIDS_HOME, else "
        "~/.cache/brainlm-bids)",
    )
    parser.add_argument(
        "--docker-options",
        type=shlex.split,
        default=[],
        metavar="TEXT",
        help="more options of docker run, for example --docker-options='--memory 8g'",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the docker command, and run nothing"
    )
    return parser


class Places:
    """Paths of this machine, and where they are in the container."""

    def __init__(self, bids_dir: Path, output_dir: Path) -> None:
        self.mounts = {existing(bids_dir): "/data:ro", output_dir.absolute(): "/out"}

    def inside(self, path: Path, *, at: str = "", writable: bool = False) -> str:
        """The path in the container, below what is mounted already or mounted now."""
        path = path.expanduser().absolute()
        for place, there in self.mounts.items():
            if path.is_relative_to(place) and not (writable and there.endswith(":ro")):
                return str(Path(there.removesuffix(":ro")) / path.relative_to(place))
        # its name is kept: outputs are called after the folder of a checkpoint
        there = at or f"/inputs/{len(self.mounts)}/{path.name}"
        self.mounts[path if writable else existing(path)] = there if writable else f"{there}:ro"
        return there


def main(argv: Sequence[str] | None = None) -> int:
    """Run the container; returns its exit code (2: a flag or path; 137: it was killed)."""
    given = list(sys.argv[1:] if argv is None else argv)
    own, behind = _split(given)
    wrapper, rest = build_parser().parse_known_args(own)
    app = cli.build_parser().parse_args(rest)
    try:
        command, made = docker_command(wrapper, app, behind)
        if wrapper.dry_run:
            print(shlex.join(command))
            return 0
        for folder in made:  # docker would make them, as root
            folder.mkdir(parents=True, exist_ok=True)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return cli.EXIT_USAGE
    except OSError as error:
        print(f"{PROGRAM}: {error.filename}: cannot be made ({error.strerror})", file=sys.stderr)
        return cli.EXIT_USAGE
    print(f"{PROGRAM}: {shlex.join(command)}", file=sys.stderr)
    code = supervise(command)
    if code == EXIT_KILLED:
        print(
            f"{PROGRAM}: the container was killed (exit code 137): out of memory, unless somebody "
            "killed it; give it more, or use less (--nprocs 1); the same command continues",
            file=sys.stderr,
        )
    return 128 - code if code < 0 else code


def docker_command(
    wrapper: argparse.Namespace, app: argparse.Namespace, behind: Sequence[str]
) -> tuple[list[str], list[Path]]:
    """`docker run …`, and the folders that have to be there before."""
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
    image = wrapper.image or (GPU_IMAGE if wrapper.gpus else IMAGE)
    written = [path for path, there in places.mounts.items() if not there.endswith(":ro")]
    return [*command, image, *inside], written


def _identity(program: str) -> list[str]:
    """Be the calling user inside, in all of their groups, so that the outputs are theirs."""
    if not hasattr(os, "getuid") or _rootless(program):
        return []  # of a rootless engine the root inside is the calling user
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
    """The arguments of `brainlm-bids` again, with the paths that hold inside."""
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
        elif _is_path(row, item):
            at = "/scratch" if row.name == "work_dir" else ""
            yield places.inside(Path(item), at=at, writable=row.written)
        else:
            yield str(item)


def _is_path(row: Setting, item: Any) -> bool:
    """Whether a value names a file or folder of this machine."""
    if row.words:
        return item not in row.words and not item.startswith("random:")
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
