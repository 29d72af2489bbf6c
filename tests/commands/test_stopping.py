"""SIGTERM and Ctrl-C end a command in order, a second Ctrl-C at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from brainlm_bids.commands.stopping import stoppable
from brainlm_bids.errors import Stopped

COMMAND = """
import sys, time
from brainlm_bids.commands.stopping import code_of, stoppable
try:
    with stoppable("brainlm-test"):
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            time.sleep(float(sys.argv[1]))
            print("tidied", flush=True)
except KeyboardInterrupt as error:
    sys.exit(code_of(error))
"""
TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(
    ("numbers", "tidying", "code", "tidied"),
    [
        ((TERM,), 0.0, 143, True),
        ((INT,), 0.0, 130, True),
        ((TERM, TERM), 0.5, 143, True),  # batch systems repeat it
        ((INT, TERM), 0.5, 130, True),
        ((INT, INT), 60.0, 130, False),
        ((TERM, INT), 60.0, 130, False),
    ],
)
def test_ends_in_order_and_then_at_once(
    numbers: Sequence[signal.Signals], tidying: float, code: int, tidied: bool
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tidying)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(INT, signal.default_int_handler),
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.2)
    said, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert ("tidied" in said) is tidied
    assert errors == ("" if tidied else "\nbrainlm-test: stopped at once\n")


IN_A_DESTRUCTOR = """
class Slow:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(1)
"""


@pytest.mark.parametrize(("number", "code"), [(TERM, 143), (INT, 130)])
def test_a_signal_in_a_destructor_is_not_lost(number: signal.Signals, code: int) -> None:
    """Python ignores what is raised there, and in the callbacks of imports."""
    program = COMMAND.replace("try:\n", IN_A_DESTRUCTOR + "try:\n", 1)
    program = program.replace(
        'print("ready", flush=True)\n            time', "Slow()\n            time"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(INT, signal.default_int_handler),
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    said, errors = process.communicate(timeout=20)
    assert (process.returncode, said, errors) == (code, "tidied\n", "")


def test_a_background_job_goes_on_ignoring_interrupts() -> None:
    """`command &` in a script: the shell lets it ignore Ctrl-C."""
    program = COMMAND.replace("time.sleep(60)", "time.sleep(1)")
    process = subprocess.Popen(
        [sys.executable, "-c", program, "0"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(INT, signal.SIG_IGN),
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    os.kill(process.pid, INT)
    assert process.communicate(timeout=20)[0] == "tidied\n" and process.returncode == 0


def test_a_signal_that_breaks_an_import_off_is_a_stop() -> None:
    """A module in C turns what is raised while it is initialised into an ImportError."""
    with pytest.raises(Stopped), stoppable("tool"):
        raise ImportError("initialization failed") from Stopped()
    with pytest.raises(ImportError, match="no such"), stoppable("tool"):
        raise ImportError("no such module")
