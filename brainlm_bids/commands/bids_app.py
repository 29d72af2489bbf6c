"""`brainlm-bids`: arguments in, a `Settings` and an exit code out.

Nothing heavy is imported before the arguments are known, so that `--help` answers at once.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainlm_bids import __version__
from brainlm_bids.app import machine
from brainlm_bids.commands.parser import EXIT_USAGE, Parser, add_options, add_positional
from brainlm_bids.commands.stopping import code_of, stoppable
from brainlm_bids.errors import UserError
from brainlm_bids.messages import printable
from brainlm_bids.settings import TABLE, Settings, read_toml, rows_in
from brainlm_bids.system_errors import in_one_line
from brainlm_bids.table import GROUP_LEVEL, POSITIONAL, SECTIONS
from brainlm_bids.temporary import scratch
from brainlm_bids.values import Option

EXIT_OK, EXIT_FAILED, EXIT_INTERNAL = 0, 1, 70

# What the command line takes that is no setting.
CONFIG_FILE = Option(
    name="config_file",
    kind=Path,
    metavar="FILE",
    default_text="none",
    help="TOML file with settings, named as the flags but with underscores; flags of the command "
    "line take precedence",
)
NOTRACK = Option(
    name="notrack", kind=bool, help="accepted for compatibility; there is no telemetry"
)


def build_parser() -> Parser:
    """The parser, made from the table of settings; every flag with dashes or with underscores."""
    parser = Parser(
        prog="brainlm-bids",
        usage="brainlm-bids BIDS_DIR OUTPUT_DIR {participant,group} [{participant,group}] "
        "[options]",
        description="From raw BIDS fMRI to A424 parcel series to BrainLM embeddings, "
        "reconstructions and network maps. Flags may also be written with underscores.",
    )
    for row in rows_in(POSITIONAL):
        add_positional(parser, row)
    parser.add_argument("--version", action="version", version=f"brainlm-bids {__version__}")
    # a flag that was not given must not hide a value of the --config-file
    add_options(parser, (CONFIG_FILE, NOTRACK), suppress=True)
    for name in SECTIONS:
        add_options(parser.add_argument_group(name), rows_in(name), suppress=True)
    return parser


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Parse and check the command line.

    Raises
    ------
    UserError
        If a path, a label or a combination of flags makes no sense.
    SystemExit
        With 2 for a malformed command line (argparse).
    """
    given = vars(build_parser().parse_args(argv))
    given.pop("notrack", None)
    config_file = given.pop("config_file", None)
    values: dict[str, Any] = {
        "work_dir": Path("work").absolute(),
        "nprocs": machine.available_cores(),
    }
    if config_file is not None:
        values |= read_toml(config_file)
    values |= {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    for row in TABLE.values():
        if row.prefix and row.name in values:  # a label that is given twice counts once
            values[row.name] = tuple(dict.fromkeys(values[row.name]))
    settings = Settings(**values)
    _check(settings)
    _check_levels(settings, given)
    _check_states(settings, given)
    return settings


def _check_levels(settings: Settings, given: dict[str, Any]) -> None:
    """Refuse flags of the group level that would do nothing."""
    for row in rows_in(GROUP_LEVEL):
        if row.name in given and "group" not in settings.analysis_level:
            raise UserError(f"{row.flag} has an effect at group level only")
    if settings.regress_out and not settings.target:
        raise UserError("--regress-out needs a --target to predict")
    if "readouts" in given and not (settings.target or settings.decode_states):
        raise UserError("--readouts needs a --target to predict, or --decode-states")
    if settings.target and not settings.readouts:
        raise UserError(f"--readouts: name some of {', '.join(TABLE['readouts'].choices)}")
    for flag, given_column in (
        ("--regress-out", settings.regress_out),
        ("--harmonize", settings.harmonize),
    ):
        if given_column and "linear" not in settings.readouts:
            raise UserError(
                f"{flag} needs linear among the --readouts: it changes the features of a linear "
                "readout only"
            )
    _check_sites(settings)
    if settings.scaling_volumes is not None and settings.scaling_stats is not None:
        raise UserError(
            "--scaling-volumes has no effect with --scaling-stats, which gives the statistics"
        )


def _check_sites(settings: Settings) -> None:
    """Refuse what contradicts itself about sites."""
    for flag, given in (
        ("--harmonize", settings.harmonize),
        ("--folds-by", settings.folds_by),
        ("--strict", settings.strict),
    ):
        if given and not settings.target:
            raise UserError(f"{flag} needs a --target to predict")
    column = settings.harmonised_column
    if settings.keep and column is None:
        raise UserError("--keep needs --harmonize: it names what harmonisation leaves in place")
    if column is not None and column == settings.folds_by:
        raise UserError(
            f"--harmonize combat:{column} cannot be combined with --folds-by {column}: the effect "
            "of a site can be estimated from recordings of that site alone, and they are left out"
        )
    if column is not None and column in settings.keep:
        raise UserError(f"--keep {column}: this is what --harmonize removes")


def _check_states(settings: Settings, given: dict[str, Any]) -> None:
    """Refuse what the decoding of states cannot do."""
    if "state_delay" in given and settings.decode_states in (None, "task"):
        raise UserError("--state-delay needs --decode-states with a column of events.tsv")
    if settings.decode_states and "none" in settings.model:
        raise UserError("--decode-states: there is no embedding to decode from with --model none")


def _check(settings: Settings) -> None:
    _check_derivatives(settings)
    if settings.assume_orientation is not None and (settings.derivatives or settings.timeseries):
        raise UserError("--assume-orientation has an effect on raw images only")
    if settings.slice_timing and (settings.derivatives or settings.timeseries):
        raise UserError("--slice-timing has an effect on raw images only")
    _check_tedana(settings)
    if settings.slice_timing and "slicetiming" in settings.ignore:
        raise UserError("--slice-timing and --ignore slicetiming contradict each other")
    _check_folders(settings)
    if settings.timeseries and settings.parcellation:
        raise UserError(
            "--parcellation needs images: the --timeseries are those of the parcels of A424 already"
        )
    if settings.timeseries and settings.derivatives:
        raise UserError("--timeseries and --derivatives cannot be combined")
    _check_datalad(settings)
    _check_files(settings)
    _check_numbers(settings)
    if "none" in settings.model and len(settings.model) > 1:
        raise UserError("--model none cannot be combined with other models")


def _check_derivatives(settings: Settings) -> None:
    """Refuse what existing derivatives cannot do, or what they would suffer twice."""
    if len(settings.derivatives) > len(settings.derivatives_dirs):
        raise UserError(
            f"--derivatives {' '.join(settings.derivatives)}: give one folder of a program"
        )
    if settings.input_space != "auto" and not settings.derivatives:
        raise UserError(
            "--input-space selects among the files of --derivatives: give fmriprep=PATH or "
            "xcp_d=PATH"
        )
    if settings.strategy is not None and not settings.derivatives:
        raise UserError(
            f"--denoise {settings.denoise} uses fMRIPrep's confounds: give --derivatives "
            "fmriprep=PATH"
        )
    if settings.producer is None:
        return
    from brainlm_bids.bids.inputs import PRODUCERS

    producer = PRODUCERS[settings.producer]
    if settings.input_space not in ("auto", *producer.spaces):
        raise UserError(
            f"--input-space {settings.input_space}: {producer.title} writes no series in it; give "
            f"one of {', '.join(producer.spaces)}"
        )
    if not producer.denoised:
        return
    for name in ("denoise", "high_pass", "low_pass", "save_bold", "save_parcels"):
        row, value = TABLE[name], getattr(settings, name)
        if value not in (row.default, "none"):
            raise UserError(
                f"{row.flag} has no effect on the series of {producer.title}, which are denoised "
                "and filtered already, and are used as they are; leave it out"
            )


def _check_datalad(settings: Settings) -> None:
    if settings.datalad_drop and not settings.datalad_get:
        raise UserError("--datalad-drop needs --datalad-get: it drops only what the call fetched")
    if not settings.datalad_get:
        return
    if settings.timeseries:
        raise UserError(
            "--datalad-get fetches the files of data sets; get the files of --timeseries before"
        )
    for program in ("datalad", "git-annex"):
        if shutil.which(program) is None:
            raise UserError(
                f"--datalad-get: the program {program} is not installed (no container of "
                "brainlm-bids has it); run pip install datalad git-annex, or fetch the files "
                "before the call"
            )


def _check_tedana(settings: Settings) -> None:
    if settings.me_denoise == "none":
        return
    if settings.derivatives or settings.timeseries:
        raise UserError("--me-denoise has an effect on raw images only")
    if importlib.util.find_spec("tedana") is None:
        raise UserError(
            "--me-denoise tedana: the package tedana is not installed (no container of "
            "brainlm-bids has it); run pip install 'brainlm-bids[multiecho]', or leave the option "
            "out"
        )


def _check_files(settings: Settings) -> None:
    """Files and folders that settings name must exist."""
    for row in TABLE.values():
        value = getattr(settings, row.name)
        for path in (value if row.several else (value,)) if row.file else ():
            # what was never fetched costs its own run, where there may be others
            waits = row.several and path is not None and path.is_symlink()
            if path is not None and not path.is_file() and not waits:
                raise UserError(f"{row.flag} {path}: there is no such file")
    for folder in settings.derivatives_dirs.values():
        if not folder.is_dir():
            raise UserError(f"--derivatives {folder}: there is no such folder")


def _check_numbers(settings: Settings) -> None:
    """Numbers that are possible by themselves, but not together or not on this machine."""
    if settings.low_pass is not None and settings.low_pass >= settings.high_pass:
        raise UserError(
            f"--low-pass {settings.low_pass:g} s is not a shorter period than --high-pass "
            f"{settings.high_pass:g} s: no frequency would pass"
        )
    # a plugin's jobs run on other machines
    if settings.mem is None or settings.use_plugin is not None:
        return
    gigabytes = machine.available_memory() / 1e9
    if settings.mem > 1.1 * gigabytes:  # 16 may be meant of a machine with 15.5
        given = f"{settings.mem:.10g}"
        hint = f"; {settings.mem / 1000:.10g} is {given} MB" if settings.mem >= 1000 else ""
        raise UserError(
            f"--mem {given}: this machine, job or container has {gigabytes:.1f} GB; the "
            f"unit is GB{hint}"
        )


def _check_folders(settings: Settings) -> None:
    bids_dir, output_dir = settings.bids_dir, settings.output_dir
    if not settings.timeseries:  # given series need no data set
        _check_bids_dir(bids_dir)
    if output_dir.resolve() == bids_dir.resolve():
        raise UserError(
            f"OUTPUT_DIR is BIDS_DIR ({bids_dir}): nothing may be written into the raw data; "
            f"give another folder, for example {bids_dir / 'derivatives' / 'brainlm-bids'}"
        )
    if _inside(settings.work_dir, bids_dir):
        raise UserError(
            f"--work-dir {settings.work_dir} is in BIDS_DIR: nothing may be written into the "
            "raw data; give a folder outside of it"
        )


def _check_bids_dir(bids_dir: Path) -> None:
    if not bids_dir.is_dir():
        raise UserError(f"BIDS_DIR {bids_dir} is not a folder")
    if not os.access(bids_dir, os.R_OK | os.X_OK):
        raise UserError(f"BIDS_DIR {bids_dir}: cannot be read by user {os.getuid()}")


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def main(argv: Sequence[str] | None = None) -> int:
    """Run `brainlm-bids`; returns 0 (done), 1 (a run failed), 2 (usage) or 70 (internal).

    A call that was stopped returns 128 and the signal's number: 130 (^C), 143 (SIGTERM).
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        settings = parse(words)
        with stoppable("brainlm-bids"), scratch():
            from brainlm_bids.app import participant as app

            return int(app.run(settings, ["brainlm-bids", *words]))
    except UserError as error:
        print(printable(f"brainlm-bids: {error}"), file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt as error:
        print("brainlm-bids: stopped; the same command continues", file=sys.stderr)
        return code_of(error)
    except Exception as error:
        refused = in_one_line(error, "the output or work folder")
        if refused is not None:
            # a full disk is no error of the program, and nothing that was finished is lost
            text = printable(f"brainlm-bids: {refused}; the same command continues")
            print(text, file=sys.stderr)
            return EXIT_FAILED
        import traceback

        traceback.print_exc()
        print(
            f"brainlm-bids: internal error ({type(error).__name__}: {error}); please report it "
            "with the lines above",
            file=sys.stderr,
        )
        return EXIT_INTERNAL


if __name__ == "__main__":
    sys.exit(main())
