"""Disks that are full or read-only, homes and shared memory that are not there, few open files."""

import resource
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults import network, private
from benchmarks.faults.bad_network import running
from benchmarks.faults.calls import Call, Outcome, judged, raw_data, reference, trial
from benchmarks.faults.fault import Fault, Trial

LARGE_KB = 1 << 20
NO_SPACE = "No space left on device", "no space left"
# Kilobytes of a disk on which a call that needs 7 MB stops at another place each.
OUTPUT_KB = (8, 400, 1100, 4000)
WORK_KB = (300, 2500)
CACHE_KB = (4, 1000, 2500)
RESUMED = "one line that names the file, exit code 1; then the same command: the same bytes"
DONE = "done, the same bytes as elsewhere"


class Place(NamedTuple):
    """A row: what is done to a call before and after it, and what is asked of it."""

    name: str
    about: str
    least: str
    spoil: Callable[[Call], None]
    mend: Callable[[Call], None] | None = None
    code: int = 0
    says: str = ""
    call: Callable[[Path], Call] = Call


def _full(name: str, sizes: Sequence[int], folder: Path, _seconds: float) -> Sequence[Trial]:
    """Calls on disks of some sizes, then the same command on the same disk when it is larger."""
    good = reference()

    def tried() -> list[Trial]:
        return [_one_full(name, size, folder / str(size), good) for size in sizes]

    return private.in_private(tried)


def _one_full(name: str, kilobytes: int, folder: Path, good: Path) -> Trial:
    call = Call(folder).prepare()
    private.small_disk(folder / name, kilobytes)
    first = call.run()
    says = next((text for text in NO_SPACE if text in first.text), NO_SPACE[0])
    faults = judged(first, 1, says, call)
    private.small_disk(folder / name, LARGE_KB)
    again = call.run()
    faults += judged(again, 0, "", call, good)
    return trial(f"{kilobytes} kB", faults, first, again)


def _full_cache(folder: Path, _seconds: float) -> Sequence[Trial]:
    """Fetch into a cache on a full disk, and again when it is larger."""

    def tried() -> list[Trial]:
        with network.small_world(folder) as image:
            return [_fetched(size, folder / str(size), image) for size in CACHE_KB]

    return private.in_private(tried)


def _fetched(kilobytes: int, home: Path, image: bytes) -> Trial:
    private.small_disk(home, kilobytes)
    started = time.monotonic()
    with running("") as server:
        network.fill(server, image)
        told = network.words_of(partial(network.fetch, "weights", home, server.url))
        faults = [] if "No space left on device" in told else [f"told {told!r}"]
        faults += [f"{path.name} is damaged" for path in network.damaged(home, server.content)]
        private.small_disk(home, LARGE_KB)
        again = network.words_of(partial(network.fetch, "weights", home, server.url))
    faults += [f"the next call failed: {again}"] if again else []
    faults += [f"{path.name} was left" for path in home.rglob("*.part")]
    return trial(f"{kilobytes} kB", faults, Outcome(1, told, time.monotonic() - started))


def _spoiled(place: Place, folder: Path, _seconds: float) -> Sequence[Trial]:
    """A call in a spoiled place; and, if it cannot be done there, the same when it is mended."""
    good = reference()

    def tried() -> list[Trial]:
        call = place.call(folder / "spoiled").prepare()
        place.spoil(call)
        first = call.run()
        outcomes = [first]
        done = good if place.code == 0 else None
        faults = judged(first, place.code, place.says, call, done)
        if place.mend is not None:
            place.mend(call)
            outcomes.append(call.run())
            faults += judged(outcomes[-1], 0, "", call, good)
        return [trial(place.name, faults, *outcomes)]

    return private.in_private(tried)


def _read_only(name: str, call: Call) -> None:
    private.read_only(call.folder / name)


def _writable(name: str, call: Call) -> None:
    private.writable(call.folder / name)


def _nothing(_call: Call) -> None:
    pass


def _few_files(number: int, _call: Call) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def _homeless(home: str | None, folder: Path) -> Call:
    return Call(folder, {"HOME": home, "XDG_CACHE_HOME": None, "XDG_CONFIG_HOME": None})


def _home_elsewhere(folder: Path) -> Call:
    """With a home folder that cannot be made either, by root or anybody."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "file"
    file.touch()
    return _homeless(str(file / "home"), folder)


def _two_processes(folder: Path) -> Call:
    return Call(folder, options=("--nprocs", "2"))


def _long_names(folder: Path) -> Call:
    temporary = folder / ("t" * 120)
    temporary.mkdir(parents=True)
    return Call(folder, {"TMPDIR": str(temporary)}, ("--nprocs", "2"))


PLACES = (
    Place(
        *(
            "read-only-bids",
            "BIDS_DIR mounted read-only",
            DONE,
            lambda _: private.read_only(raw_data()),
        ),
    ),
    Place(
        "read-only-output",
        "OUTPUT_DIR mounted read-only",
        "one line that says so, exit code 2, before anything is computed; then the same bytes",
        partial(_read_only, "out"),
        partial(_writable, "out"),
        2,
        "its file system is mounted read-only",
    ),
    Place(
        "read-only-work",
        "the work folder mounted read-only",
        RESUMED,
        partial(_read_only, "work"),
        partial(_writable, "work"),
        1,
        "cannot be written (Read-only file system); mount it writable",
    ),
    Place(
        *("read-only-home", "the home folder mounted read-only", DONE, partial(_read_only, "home")),
    ),
    Place(
        *("no-home", "no variable HOME", DONE, _nothing),
        call=partial(_homeless, None),
    ),
    Place(
        *(
            "home-elsewhere",
            "HOME is a folder that is not there and cannot be made",
            DONE,
            _nothing,
        ),
        call=_home_elsewhere,
    ),
    Place(
        "no-shared-memory",
        "/dev/shm cannot be written to",
        "done in one process, which is told; the same bytes",
        lambda _: private.hidden(Path("/dev/shm")),
        says="no worker processes can be started here",
        call=_two_processes,
    ),
    Place(
        *("long-temporary", "a folder for temporary files of 120 letters", DONE, _nothing),
        call=_long_names,
    ),
    Place(
        *("open-files", "at most 64 open files", DONE, partial(_few_files, 64)),
        call=_two_processes,
    ),
)
FAULTS = (
    Fault(
        "disks/full-output",
        f"OUTPUT_DIR on disks of {min(OUTPUT_KB)} kB to {max(OUTPUT_KB) // 1000} MB",
        RESUMED,
        partial(_full, "out", OUTPUT_KB),
    ),
    Fault(
        "disks/full-work",
        f"the work folder on disks of {min(WORK_KB)} kB to {max(WORK_KB) / 1000} MB",
        RESUMED,
        partial(_full, "work", WORK_KB),
    ),
    Fault(
        "disks/full-cache",
        "weights of 3 MB are fetched into a cache on smaller disks",
        "one line; no part left; the next call succeeds",
        _full_cache,
    ),
    *(Fault(f"disks/{one.name}", one.about, one.least, partial(_spoiled, one)) for one in PLACES),
)
