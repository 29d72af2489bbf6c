"""Contents of a DataLad data set: fetched before they are needed, and dropped afterwards.

Files come in; the program `datalad` is run. What a call has fetched is in a journal in the output
folder, so that a call that was killed leaves nothing behind that the next one does not drop, and
calls at the same time do not drop what another one needs.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from brainlm_bids.annex import (
    absent_among,
    annex_key,
    annexed_place,
    by_repository,
    is_absent,
    outside_of_repository,
    repository,
)
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, write_json
from brainlm_bids.locks import acquire, locked

LOG = logging.getLogger("brainlm_bids")
PROGRAM = "datalad"
SIDECAR = ".json"  # which stay: they are small, and tell which images a run needs
_TOGETHER = 500  # files in one command line
_BUSY = ("transfer already in progress", "unable to take transfer lock")
_TURN = 600.0  # s to wait for the calls that write or drop
_WAIT, _TRIES = 2.0, 150  # s between tries, and their number, while another call fetches a file


# --- the program -----------------------------------------------------------------------------


def get(paths: Iterable[Path], *options: str) -> dict[Path, str]:
    """Fetch contents, or install subdatasets (`-n`).

    Returns
    -------
    dict
        Why, for each path about which datalad reported a failure, or that is in no repository.
    """
    wanted = [annexed_place(path) for path in paths]
    faults = {path: outside_of_repository(path) for path in wanted if repository(path) is None}
    for top, names in by_repository(wanted).items():
        for start in range(0, len(names), _TOGETHER):
            faults |= _run("get", top, names[start : start + _TOGETHER], *options)
    return faults


def drop(paths: Iterable[Path]) -> dict[Path, str]:
    """Drop contents of which git-annex knows enough other copies; why, for those that it kept."""
    faults: dict[Path, str] = {}
    for top, names in by_repository(paths).items():
        for start in range(0, len(names), _TOGETHER):
            faults |= _run("drop", top, names[start : start + _TOGETHER])
    return faults


def _run(action: str, top: Path, names: Sequence[str], *options: str) -> dict[Path, str]:
    if not os.access(top / ".git", os.W_OK):
        text = f"{top / '.git'} cannot be written to (is the data set mounted read-only?)"
        return {top / name: text for name in names}
    command = [PROGRAM, "-f", "json", "-C", str(top), action, *options, "--", *names]
    code, output, errors = _call(command)
    cause = _known_cause(errors, top)
    if code and cause:
        return {top / name: cause for name in names}
    faults = {}
    for result in _results(output):
        if result.get("status") in ("error", "impossible"):
            faults[Path(str(result.get("path", top)))] = _message(result)
    if code and not faults:
        faults = {top / name: _last_line(errors) for name in names}
    return faults


def _call(command: Sequence[str]) -> tuple[int, str, str]:
    """Run a program that cannot ask for anything; exit code and outputs."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        start_new_session=True,  # without a terminal, ssh asks for no password
    )
    try:
        output, errors = child.communicate()
    except BaseException:  # ^C: it and what it has started end, too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        child.communicate()
        raise
    return child.returncode, output, errors


def _results(output: str) -> Iterator[Mapping[str, Any]]:
    for line in output.splitlines():
        with contextlib.suppress(ValueError):
            result = json.loads(line)
            if isinstance(result, dict):
                yield result


def _message(result: Mapping[str, Any]) -> str:
    said = result.get("message") or result.get("error_message") or "datalad gives no reason"
    if isinstance(said, list):  # a template, and what is filled in
        try:
            said = said[0] % tuple(said[1:])
        except (TypeError, ValueError, IndexError):
            said = " ".join(map(str, said))
    return " ".join(str(said).split())


def _known_cause(errors: str, top: Path) -> str:
    """What is known to be behind messages of git, and what to do; empty for others."""
    if "dubious ownership" in errors:
        return (
            f"git does not trust {top}, which belongs to another user; run: git config --global "
            f"--add safe.directory {top}"
        )
    if "auto-detect email address" in errors or "tell me who you are" in errors:
        return (
            "git does not know who you are, which git-annex needs; run: git config --global "
            "user.name NAME && git config --global user.email ADDRESS"
        )
    return ""


def _last_line(errors: str) -> str:
    lines = [" ".join(line.split()) for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else "datalad failed without a message"


# --- what a call has fetched -----------------------------------------------------------------


class Fetcher:
    """Fetches the files of runs and, if asked to, drops them again.

    Parameters
    ----------
    output_dir : Path
        Where the journal is kept, in `logs/fetched`.
    call : str
        Name of the call.
    drops : bool
        Whether contents are dropped when no run needs them any more.

    Notes
    -----
    As a context: the journal is locked as long as the call lives.
    """

    def __init__(self, output_dir: Path, call: str, *, drops: bool) -> None:
        self._folder = output_dir / "logs" / "fetched"
        self._journal = self._folder / f"{call}.json"
        self._alive: Any = None
        self._drops = drops
        self._got: dict[Path, str] = {}  # with their keys
        self._refused: set[Path] = set()
        self._uses: set[Path] = set()

    def __enter__(self) -> "Fetcher":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._alive = acquire(_lock_of(self._journal))
        with self._turn():
            self._write()
            if self._drops:
                self._adopt()
        return self

    def __exit__(self, *_: object) -> None:
        with self._turn():
            self._uses = set()
            if self._got:
                self._write()  # the next call drops what this one could not
            else:
                self._journal.unlink(missing_ok=True)
            self._alive.release()
            if not self._got:
                _lock_of(self._journal).unlink(missing_ok=True)

    def _turn(self) -> contextlib.AbstractContextManager[None]:
        return locked(self._folder / ".lock", _TURN)

    def use(self, paths: Iterable[Path]) -> None:
        """Tell other calls which files this one still needs, before it looks whether they exist."""
        with self._turn():
            self._uses = {annexed_place(path) for path in paths}
            self._write()

    def get(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Fetch files; why, for each of them that is still not there."""
        wanted = {path: annexed_place(path) for path in absent_among(paths)}
        keys = {place: annex_key(place) or "" for place in wanted.values()}
        if self._drops:
            self._got |= {place: key for place, key in keys.items() if place.suffix != SIDECAR}
            with self._turn():
                self._write()
        faults = self._get_in_turn(list(keys))
        still = {place for place in keys if is_absent(place)}
        for place in still:
            self._got.pop(place, None)
        reason = next(iter(faults.values()), "datalad reported no failure")
        return {path: faults.get(at, reason) for path, at in wanted.items() if at in still}

    def _get_in_turn(self, places: Sequence[Path]) -> dict[Path, str]:
        """Fetch files; wait where another call is just fetching one of them."""
        faults: dict[Path, str] = {}
        for _ in range(_TRIES):
            faults = get(place for place in places if is_absent(place))
            if not any(busy in text for text in faults.values() for busy in _BUSY):
                break
            time.sleep(_WAIT)
        return faults

    def drop_unused(self, needed: Collection[Path]) -> None:
        """Drop what this call has fetched and no run of any call needs any more.

        Parameters
        ----------
        needed : collection of Path
            Files of the runs that are still to be processed.
        """
        if not self._drops:
            return
        with self._turn():
            self._uses = {annexed_place(path) for path in needed}
            used = self._uses | self._used_by_others()
            keys = {annex_key(place) or self._got.get(place, "") for place in used}
            unused = [
                place
                for place, key in self._got.items()
                if place not in used and key not in keys and place not in self._refused
            ]
            faults = drop(unused)
            for place in unused:
                if place in faults and not is_absent(place):
                    LOG.warning("%s was not dropped: %s", place, faults[place])
                    self._refused.add(place)
                else:
                    del self._got[place]
            self._write()

    # --- the journal

    def _write(self) -> None:
        values = {
            "Fetched": {str(place): key for place, key in sorted(self._got.items())},
            "Needed": sorted(map(str, self._uses)),
        }
        write_json(self._journal, values)

    def _others(self) -> Iterator[Path]:
        return (path for path in self._folder.glob("*.json") if path != self._journal)

    def _used_by_others(self) -> set[Path]:
        """Files that other calls still need; one that was killed needs none."""
        used: set[Path] = set()
        for journal in self._others():
            with _if_dead(journal) as dead:
                if not dead:
                    used |= {Path(path) for path in _read(journal).get("Needed", ())}
        return used

    def _adopt(self) -> None:
        """Take over what calls have fetched that were killed, or could not drop it."""
        for journal in self._others():
            with _if_dead(journal) as dead:
                if not dead:
                    continue
                fetched = {Path(k): str(v) for k, v in _read(journal).get("Fetched", {}).items()}
                self._got |= {k: v for k, v in fetched.items() if k.exists() and not is_absent(k)}
                self._write()
                journal.unlink(missing_ok=True)
                _lock_of(journal).unlink(missing_ok=True)


def _lock_of(journal: Path) -> Path:
    return journal.with_suffix(".lock")


def _read(journal: Path) -> dict[str, Any]:
    try:
        return read_json(journal)
    except UserError:  # it has just been removed
        return {}


@contextlib.contextmanager
def _if_dead(journal: Path) -> Iterator[bool]:
    """Whether the call that keeps a journal has ended; its lock is held meanwhile."""
    from filelock import Timeout

    try:
        lock = acquire(_lock_of(journal), patience=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
