"""Log messages on standard error: one line each, with the time."""

import logging

FORMAT = "%(asctime)s %(levelname)s %(message)s"
# Nipype logs errors with complete tracebacks. The app logs in one line which step failed and why;
# the tracebacks are in the crash files.
QUIET = {"workflow": "CRITICAL", "interface": "WARNING", "utils": "WARNING", "filemanip": "WARNING"}


def configure(verbose: int) -> None:
    """Set up the messages of this process; again once Nipype, which adds a handler, is imported.

    Parameters
    ----------
    verbose : int
        0: messages of brainlm-bids, and warnings of other libraries; 1: also messages of Nipype;
        2: also the start of every step.
    """
    logging.basicConfig(level=logging.WARNING, format=FORMAT)
    logging.getLogger("brainlm_bids").setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    # its handler would print the same line again on standard output
    logging.getLogger("nipype").handlers.clear()
    for part, level in _levels(verbose).items():
        logging.getLogger(f"nipype.{part}").setLevel(level)


def nipype_config(verbose: int) -> dict[str, str]:
    """The section "logging" of a workflow's configuration; Nipype's own would undo `configure`."""
    return {f"{part}_level": level for part, level in _levels(verbose).items()}


def _levels(verbose: int) -> dict[str, str]:
    return dict.fromkeys(QUIET, "INFO") if verbose else QUIET
