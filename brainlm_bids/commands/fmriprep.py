"""`brainlm-bids-fmriprep`: run fMRIPrep in a container, then `brainlm-bids` on its derivatives.

In: the arguments of `brainlm-bids`, a few more, and any of fMRIPrep's, which are passed on
unchanged. Out: the outputs of both, and an exit code: that of fMRIPrep if it fails.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from brainlm_bids.commands import bids_app as cli
from brainlm_bids.commands.containers import existing, mounts
from brainlm_bids.commands.parser import EXIT_USAGE, Parser, add_options
from brainlm_bids.errors import UserError
from brainlm_bids.settings import TABLE
from brainlm_bids.table import Setting
from brainlm_bids.values import Option

PROGRAM = "brainlm-bids-fmriprep"
SPACE = "MNI152NLin6Asym:res-2"


OPTIONS = (
    Option(
        name="fmriprep_dir",
        kind=Path,
        metavar="DIR",
        default_text="OUTPUT_DIR/sourcedata/fmriprep",
        help="output folder of fMRIPrep",
    ),
    Option(
        name="apptainer",
        kind=Path,
        metavar="IMAGE",
        default_text="run fMRIPrep with fmriprep-docker",
        help="run this image file with Apptainer",
    ),
    Option(
        name="image",
        kind=str,
        metavar="NAME",
        default_text="that of fmriprep-docker",
        help="Docker image of fMRIPrep",
    ),
    Option(name="fs_license_file", kind=Path, metavar="FILE", help="licence file of FreeSurfer"),
    Option(
        name="freesurfer",
        kind=bool,
        default=False,
        help="let fMRIPrep reconstruct surfaces, which takes hours",
    ),
)


def build_parser() -> Parser:
    """The flags that neither `brainlm-bids` nor fMRIPrep has."""
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} BIDS_DIR OUTPUT_DIR participant [options]",
        description="Run fMRIPrep with fmriprep-docker or Apptainer, then brainlm-bids on its "
        "derivatives. All options of brainlm-bids are accepted; unknown options are passed on to "
        "fMRIPrep.",
    )
    add_options(parser, OPTIONS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run both; returns the exit code of fMRIPrep if it fails, otherwise that of `brainlm-bids`."""
    wrapper, rest = build_parser().parse_known_args(argv)
    app, passed_on = cli.build_parser().parse_known_args(rest)
    try:
        folder = (wrapper.fmriprep_dir or app.output_dir / "sourcedata" / "fmriprep").absolute()
        code = _run_fmriprep(wrapper, app, passed_on, folder)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_USAGE
    if code:
        print(f"{PROGRAM}: fMRIPrep failed with exit code {code}; {_logs(folder)}", file=sys.stderr)
        return code
    return cli.main([*_without(rest, passed_on), "--derivatives", f"fmriprep={folder}"])


def _run_fmriprep(
    wrapper: argparse.Namespace, app: argparse.Namespace, passed_on: list[str], folder: Path
) -> int:
    if not app.bids_dir.is_dir():
        raise UserError(f"BIDS_DIR {app.bids_dir} is not a folder")
    work = getattr(app, "work_dir", Path("work").absolute()) / "fmriprep"
    for path in (folder, work):
        path.mkdir(parents=True, exist_ok=True)
    options = [*fmriprep_options(app, wrapper.freesurfer), *_with_space(passed_on)]
    build = docker_command if wrapper.apptainer is None else apptainer_command
    command = build(wrapper, app, folder, work, options)
    print(f"{PROGRAM}:", " ".join(command), file=sys.stderr)
    return subprocess.run(command, check=False).returncode


def fmriprep_options(app: argparse.Namespace, freesurfer: bool) -> list[str]:
    """The options of fMRIPrep that correspond to ours."""
    options = [] if freesurfer else ["--fs-no-reconall"]
    for row in TABLE.values():
        if not row.in_fmriprep or row.kind is Path or not hasattr(app, row.name):
            continue
        options.append(row.flag)
        if row.kind is not bool:
            value = getattr(app, row.name)
            options += [str(item) for item in (value if row.several else [value])]
    tasks = getattr(app, "task_id", [])
    if len(tasks) == 1:  # fMRIPrep takes one task: for several, it processes all
        options += ["--task-id", tasks[0]]
    if getattr(app, "mem", None):
        options += ["--mem", f"{round(app.mem * 1000)}MB"]
    return options


def _shared_paths(app: argparse.Namespace) -> Iterator[tuple[Setting, Path]]:
    """The files and folders that fMRIPrep needs too."""
    for row in TABLE.values():
        if row.in_fmriprep and row.kind is Path and hasattr(app, row.name):
            yield row, getattr(app, row.name)


def _with_space(passed_on: list[str]) -> list[str]:
    """The user's output spaces and the one that BrainLM needs."""
    if "--output-spaces" not in passed_on:
        return [*passed_on, "--output-spaces", SPACE]
    if any(space.startswith("MNI152NLin6Asym") for space in passed_on):
        return passed_on
    place = passed_on.index("--output-spaces") + 1
    return [*passed_on[:place], SPACE, *passed_on[place:]]


def docker_command(
    wrapper: argparse.Namespace,
    app: argparse.Namespace,
    folder: Path,
    work: Path,
    options: list[str],
) -> list[str]:
    """The call of fmriprep-docker, which mounts the folders."""
    program = shutil.which("fmriprep-docker")
    if program is None:
        raise UserError(
            "fmriprep-docker is not installed: pip install fmriprep-docker, or give an image file "
            "with --apptainer"
        )
    command = [program, str(app.bids_dir.absolute()), str(folder), "participant", "-w", str(work)]
    if not sys.stdin.isatty():
        command.append("--no-tty")
    if wrapper.image:
        command += ["--image", wrapper.image]
    if wrapper.fs_license_file:
        command += ["--fs-license-file", str(existing(wrapper.fs_license_file))]
    for row, path in _shared_paths(app):
        command += [row.flag, str(path)]
    return [*command, *options]


def apptainer_command(
    wrapper: argparse.Namespace,
    app: argparse.Namespace,
    folder: Path,
    work: Path,
    options: list[str],
) -> list[str]:
    """`apptainer run` with the folders bound to the same places as in Docker."""
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        raise UserError("--apptainer: neither apptainer nor singularity is on the PATH")
    binds = {app.bids_dir.absolute(): "/data:ro", folder: "/out", work: "/scratch"}
    inside = ["/data", "/out", "participant", "-w", "/scratch"]
    if wrapper.fs_license_file:
        binds[existing(wrapper.fs_license_file)] = "/opt/freesurfer/license.txt:ro"
        inside += ["--fs-license-file", "/opt/freesurfer/license.txt"]
    for row, path in _shared_paths(app):
        binds[path] = f"/mnt/{row.name}"
        inside += [row.flag, f"/mnt/{row.name}"]
    image = str(existing(wrapper.apptainer))
    return [program, "run", "--cleanenv", *mounts("-B", binds), image, *inside, *options]


def _without(arguments: list[str], passed_on: list[str]) -> list[str]:
    """The arguments without those passed on to fMRIPrep, which are among them in this order."""
    left, waiting = [], list(passed_on)
    for argument in arguments:
        if waiting and argument == waiting[0]:
            waiting.pop(0)
        else:
            left.append(argument)
    return left


def _logs(folder: Path) -> str:
    crashes = sorted(folder.glob("sub-*/log/**/crash*"), key=lambda path: path.stat().st_mtime)
    if crashes:
        return f"see its last crash file, {crashes[-1]}"
    return f"see its logs in {folder / 'logs'} and {folder}/sub-*/log"


if __name__ == "__main__":
    sys.exit(main())
