"""`brainlm`: the tools beside the app. In: a subcommand and its flags; out: files, a table, and an
exit code (0 done, 1 an error that is said in one line, 2 usage). Heavy imports wait for the work.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from brainlm_bids import __version__
from brainlm_bids.commands.experiments import add_experiment_commands
from brainlm_bids.commands.training import add_training_commands, count, positive, whole
from brainlm_bids.errors import UserError

# as resources.FETCHABLE, kept here too so that --help needs no import; a test holds them equal
FETCHABLE = ("atlas", "cifti-atlas", "template", "111M", "650M", "13M")

# switch of `brainlm phantom` -> what it says in --help
PHANTOM_SWITCHES = {
    "drift": "slow drifts",
    "respiration": "respiration",
    "cardiac": "heart beat",
    "global-signal": "a signal common to all voxels",
    "spin-history": "brightness that follows motion",
    "non-steady": "bright first volumes",
    "thermal-noise": "thermal noise",
    "coil-shading": "uneven coil sensitivity",
    "dropout": "signal dropout near the sinuses",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each stores its function under `work`."""
    parser = argparse.ArgumentParser(
        prog="brainlm", description="Tools of brainlm-bids: resources, phantom data, training."
    )
    parser.add_argument("--version", action="version", version=f"brainlm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_fetch(commands)
    _add_phantom(commands)
    _add_score(commands)
    add_training_commands(commands)
    add_experiment_commands(commands)
    return parser


def _add_fetch(commands: Any) -> None:
    fetch = commands.add_parser(
        "fetch",
        help="download the atlas, the template or BrainLM's weights into the cache",
        description="Download resources into $BRAINLM_BIDS_HOME (default ~/.cache/brainlm-bids).",
    )
    fetch.add_argument("what", nargs="+", choices=FETCHABLE, help="what to download")
    fetch.add_argument("--home", type=Path, metavar="DIR", help="another folder for the cache")
    fetch.set_defaults(work=_fetch)


def _add_phantom(commands: Any) -> None:
    phantom = commands.add_parser(
        "phantom",
        help="write a simulated BIDS data set whose truth is known",
        description="Write a simulated raw BIDS data set; its truth is under derivatives/phantom.",
    )
    phantom.add_argument("out", type=Path, metavar="OUT", help="a new or empty folder")
    number: dict[str, tuple[Callable[[str], Any], Any, str]] = {
        "subjects": (count, 2, "subjects"),
        "sessions": (whole, 0, "sessions per subject; 0: no session level"),
        "runs": (count, 1, "runs per session"),
        "volumes": (count, 240, "volumes per run"),
        "tr": (positive, 2.0, "repetition time in seconds"),
        "voxel": (positive, 3.5, "voxel size of the BOLD in mm"),
        "seed": (whole, 42, "seed of every random number"),
    }
    for name, (kind, default, text) in number.items():
        phantom.add_argument(
            f"--{name}", type=kind, default=default, metavar="N", help=f"{text} ({default})"
        )
    phantom.add_argument(
        "--motion",
        default="low",
        metavar="KIND",
        help="none, low, high, or an FSL .par file of head motion (low)",
    )
    switches = phantom.add_argument_group("sources of noise and distortion, all on by default")
    for name, text in PHANTOM_SWITCHES.items():
        switches.add_argument(
            f"--{name}", action=argparse.BooleanOptionalAction, default=True, help=text
        )
    phantom.set_defaults(work=_phantom)


def _add_score(commands: Any) -> None:
    score = commands.add_parser(
        "phantom-score",
        help="compare derivatives of a phantom with its truth",
        description="Print a row per run: motion and its error, parcel series and their bound.",
    )
    score.add_argument("phantom", type=Path, metavar="PHANTOM", help="written by brainlm phantom")
    score.add_argument(
        "derivatives", type=Path, metavar="DERIVATIVES", help="output folder of brainlm-bids"
    )
    score.set_defaults(work=_score)


def _fetch(args: argparse.Namespace) -> None:
    from brainlm_bids import resources

    resources.fetch(args.what, home=args.home)


def _phantom(args: argparse.Namespace) -> None:
    from brainlm_bids.phantom import write_phantom

    kinds = ("none", "low", "high")
    switches = {name.replace("-", "_") for name in PHANTOM_SWITCHES}
    out = write_phantom(
        args.out,
        n_subjects=args.subjects,
        n_sessions=args.sessions,
        n_runs=args.runs,
        n_volumes=args.volumes,
        tr=args.tr,
        voxel=args.voxel,
        motion=args.motion if args.motion in kinds else Path(args.motion),
        seed=args.seed,
        **{name: getattr(args, name) for name in switches},
    )
    print(out)


def _score(args: argparse.Namespace) -> None:
    from brainlm_bids.phantom import recovered

    rows = recovered(args.derivatives, args.phantom)
    if not rows:
        raise UserError(f"{args.derivatives}: no run of the phantom {args.phantom} was found here")
    print(_table(rows))


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows of equal keys out in columns, numbers with three decimals."""
    lines = [list(rows[0])]
    lines += [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in r.values()] for r in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `brainlm` and return the exit code (argparse itself leaves with 2, or 0 for --help).

    One of several processes of torch does not return: see `_leave`.
    """
    args = build_parser().parse_args(argv)
    try:
        code = args.work(args) or 0
    except UserError as error:
        print(f"brainlm: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("brainlm: interrupted", file=sys.stderr)
        code = 130
    if "torch" in sys.modules and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _leave(code)
    return code


def _leave(code: int) -> NoReturn:
    """End this process at once, all being written.

    Threads of torch's process group may hold Python objects when the interpreter goes down, and
    abort (pytorch/pytorch#179291): a finished training would count as failed, and be queued again.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
