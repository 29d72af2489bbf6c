"""What a process tells on standard error, and how much of it: one line a message, with the time."""

import logging

FORMAT = "%(asctime)s %(levelname)s %(message)s"
# Nipype's errors come with whole tracebacks; which step failed and why is said by us, and the
# tracebacks are in the crash files.
QUIET = {"workflow": "CRITICAL", "interface": "WARNING", "utils": "WARNING", "filemanip": "WARNING"}


def configure(verbose: int) -> None:
    """Set up this process' messages; again after Nipype was imported, which adds its own handler.

    `verbose`: 0: ours, and warnings of others; 1: what Nipype says, too; 2: what we do in detail.
    """
    logging.basicConfig(level=logging.WARNING, format=FORMAT)
    logging.getLogger("brainlm_bids").setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    # its handler writes to standard output, beside what is written here
    logging.getLogger("nipype").handlers.clear()
    for part, level in _levels(verbose).items():
        logging.getLogger(f"nipype.{part}").setLevel(level)


def nipype_config(verbose: int) -> dict[str, str]:
    """The section "logging" of a workflow's configuration, which would undo `configure`."""
    return {f"{part}_level": level for part, level in _levels(verbose).items()}


def _levels(verbose: int) -> dict[str, str]:
    return dict.fromkeys(QUIET, "INFO") if verbose else QUIET
