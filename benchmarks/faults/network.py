"""Bad networks: weights, atlas and templates are fetched through each, into a cache of its own."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.faults.bad_network import BadServer, running
from benchmarks.faults.fault import Fault, Trial

REFUSED = "one line that names the address; no damaged file in the cache; the next call succeeds"
WEIGHTS_BYTES = 3_000_000


class Bad(NamedTuple):
    """A fault of the network: what is done, and how long it may take to give up."""

    name: str
    about: str
    fault: str
    seconds: float = 10.0


ROWS = (
    Bad("unreachable", "nobody listens at the address", "unreachable"),
    Bad("http-500", "the server answers 500", "500"),
    Bad("http-407", "a proxy asks for a password", "407"),
    Bad("redirect-loop", "redirections in a circle", "redirect loop"),
    Bad("redirect-nowhere", "a redirection to what is no address", "redirect nowhere"),
    Bad("login", "a page of a login under every address, with status 200", "login"),
    Bad("cut", "the connection ends in the middle of every answer", "cut"),
    Bad("crumbs", "a hundred bytes arrive of every answer", "crumbs"),
    Bad("no-end", "half of a file arrives, and neither its length nor its end", "no end"),
    Bad("wrong-sum", "other bytes than the checksum says", "wrong bytes"),
    Bad("endless", "an answer without end", "endless"),
    Bad("slow", "200 bytes a second", "slow"),
)


def fill(server: BadServer, image: bytes) -> None:
    """What a good server has: config and weights, atlas, template, mask, transform."""
    from brainlm_bids.resources.checkpoint import MODEL_REPOSITORY, MODEL_REVISION

    folder = f"/{MODEL_REPOSITORY}/resolve/{MODEL_REVISION}/vitmae_111M"
    server.content[f"{folder}/config.json"] = b'{"model_type": "vit_mae"}'
    weights = np.random.default_rng(0).bytes(WEIGHTS_BYTES)
    server.content[f"{folder}/pytorch_model.bin"] = weights
    server.content["/atlas.nii.gz"] = image
    template = "/tf/tpl-MNI152NLin6Asym/tpl-MNI152NLin6Asym_res-02"
    for name in ("T1w", "desc-brain_mask"):
        server.content[f"{template}_{name}.nii.gz"] = image


def fetch(what: str, home: Path, url: str) -> None:
    """Fetch one kind of resource as `brainlm fetch` does; UserError where that fails."""
    from brainlm_bids.resources import Sources
    from brainlm_bids.resources.atlas import real_atlas
    from brainlm_bids.resources.checkpoint import find_model
    from brainlm_bids.resources.template import from_templateflow

    sources = Sources(f"{url}/atlas.nii.gz", f"{url}/tf", url)
    if what == "weights":
        find_model("111M", home=home, sources=sources)
    elif what == "atlas":
        real_atlas(home, False, sources)
    else:
        from_templateflow(home, False, sources)


@contextmanager
def small_world(folder: Path, patience: float = 2.0) -> Iterator[bytes]:
    """An image that stands for atlas and templates; little patience and no cache of the user."""
    import nibabel as nib

    from brainlm_bids.files import sha256
    from brainlm_bids.resources import atlas, cache

    image = nib.Nifti1Image(np.random.default_rng(1).normal(size=(20, 20, 20)), np.eye(4))
    image.to_filename(folder / "image.nii.gz")
    content = (folder / "image.nii.gz").read_bytes()
    kept = (atlas.ATLAS_SHA256, cache.PATIENCE_S, cache.LARGEST_SMALL, cache.LARGEST)
    environment = dict(os.environ)
    atlas.ATLAS_SHA256, cache.PATIENCE_S = sha256(content), patience
    cache.LARGEST_SMALL, cache.LARGEST = 20 << 20, 40 << 20
    os.environ |= {"HOME": str(folder / "user"), "NO_PROXY": "127.0.0.1"}
    for name in ("TEMPLATEFLOW_HOME", "HF_HUB_OFFLINE", "BRAINLM_BIDS_SHIPPED"):
        os.environ.pop(name, None)
    try:
        yield content
    finally:
        atlas.ATLAS_SHA256, cache.PATIENCE_S, cache.LARGEST_SMALL, cache.LARGEST = kept
        os.environ.clear()
        os.environ.update(environment)


def _through(bad: Bad, folder: Path, _seconds: float) -> list[Trial]:
    """Fetch through the fault, look at the cache, and fetch again without the fault."""
    with small_world(folder) as image:
        return [_one(what, bad, folder / what, image) for what in ("weights", "atlas", "template")]


def _one(what: str, bad: Bad, home: Path, image: bytes) -> Trial:
    with running(bad.fault) as server:
        fill(server, image)
        url = "http://127.0.0.1:9" if bad.fault == "unreachable" else server.url
        started = time.monotonic()
        told = words_of(partial(fetch, what, home, url))
        seconds = time.monotonic() - started
        faults = _faults(told, what, bad)
        kept = damaged(home, server.content)
        if kept:
            faults.append(f"{kept[0]} is damaged in the cache")
        if seconds > bad.seconds:
            faults.append(f"gave up after {seconds:.0f} s only")
        server.fault = ""
        again = words_of(partial(fetch, what, home, server.url))
        if again and "has the sha256" in again:  # a part of another file: it was not kept
            again = words_of(partial(fetch, what, home, server.url))
        if again or damaged(home, server.content):
            faults.append(f"the next call failed: {again}")
    return Trial(not faults, f"{what}: {'; '.join(faults) or told}", seconds)


def words_of(function: Callable[[], None]) -> str:
    """What a user is told; an error of another kind by its name; empty where there is none."""
    from brainlm_bids.errors import UserError

    try:
        function()
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"CRASH {type(error).__name__}: {error}"
    return ""


def _faults(told: str, what: str, bad: Bad) -> list[str]:
    if told.startswith("CRASH") or "\n" in told:
        return [f"not one line: {told}"]
    recovers = bad.fault == "cut" and what == "weights"  # resumed by itself
    if not told and not recovers:
        return ["nothing was told"]
    return []


def damaged(home: Path, content: Mapping[str, bytes]) -> list[str]:
    """Files of the cache under their final names that are not what a good server has."""
    good = {path.rpartition("/")[2]: body for path, body in content.items()}
    good["A424+2mm.nii.gz"] = content.get("/atlas.nii.gz", b"")
    files = [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return [
        path.name
        for path in files
        if not path.name.startswith(".")
        and path.name in good
        and path.read_bytes() != good[path.name]
    ]


# --- several processes, and a proxy ----------------------------------------------------------


def _process(home: Path, url: str) -> None:
    fetch("weights", home, url)


def _at_once(folder: Path, _seconds: float) -> list[Trial]:
    """Four processes fetch the same weights at once; then one of four is killed in the middle."""
    trials = []
    with small_world(folder, patience=60), running("steady") as server:
        fill(server, b"")
        for kill in (False, True):
            home, started = folder / f"kill-{kill}", time.monotonic()
            context = multiprocessing.get_context("fork")
            jobs = [context.Process(target=_process, args=(home, server.url)) for _ in range(4)]
            for job in jobs:
                job.start()
            if kill:
                _kill_writer(home, jobs)
            for job in jobs:
                job.join(60)
            codes = sorted(job.exitcode if job.exitcode is not None else 99 for job in jobs)
            expected = [-signal.SIGKILL, 0, 0, 0] if kill else [0, 0, 0, 0]
            good = codes == expected and not damaged(home, server.content)
            good = good and any(home.rglob("pytorch_model.bin"))
            left = [path.name for path in home.rglob("*.part")]
            told = f"exit codes {codes}, parts left: {left}"
            trials.append(Trial(good and not left, told, time.monotonic() - started))
    return trials


def _kill_writer(home: Path, jobs: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """Kill the process that has the part of the weights open, when half of it is there."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for part in home.rglob(".pytorch_model.bin.*.part"):
            if part.stat().st_size > WEIGHTS_BYTES // 3:
                for job in jobs:
                    if job.pid is not None and _has_open(job.pid, part):
                        os.kill(job.pid, signal.SIGKILL)
                        return
        time.sleep(0.02)


def _has_open(pid: int, path: Path) -> bool:
    links = Path(f"/proc/{pid}/fd")
    try:
        return any(link.readlink() == path for link in links.iterdir())
    except OSError:
        return False


def _fetch_anew(what: str, home: Path, url: str) -> None:
    """As a user does, in a program of its own where the client of the hub keeps its settings."""
    from brainlm_bids.errors import UserError

    if what != "weights":
        return fetch(what, home, url)
    command = [sys.executable, "-m", "brainlm_bids.commands.brainlm", "fetch", "111M"]
    environment = os.environ | {"HF_ENDPOINT": url}
    done = subprocess.run(
        [*command, "--home", str(home)], capture_output=True, text=True, env=environment
    )
    if "Traceback" in done.stderr:
        raise RuntimeError(done.stderr[-300:])
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1])
    return None


def _proxy(folder: Path, _seconds: float) -> list[Trial]:
    """Through a proxy that answers, and one that does not; the addresses exist nowhere else."""
    trials = []
    with small_world(folder) as image, running() as server:
        fill(server, image)
        os.environ.pop("NO_PROXY", None)
        for name in ("no_proxy", "https_proxy", "HTTPS_PROXY"):
            os.environ.pop(name, None)
        for proxy, works in ((server.url, True), ("http://127.0.0.1:9", False)):
            os.environ["http_proxy"] = os.environ["HTTP_PROXY"] = proxy
            for what in ("weights", "atlas", "template"):
                home, started = folder / f"{works}-{what}", time.monotonic()
                told = words_of(partial(_fetch_anew, what, home, "http://brainlm.invalid"))
                kept = damaged(home, server.content)
                good = (told == "") is works and not kept and not told.startswith("CRASH")
                trials.append(Trial(good, f"{what}: {told}", time.monotonic() - started))
    return trials


FAULTS = (
    *(Fault(f"network/{bad.name}", bad.about, REFUSED, partial(_through, bad)) for bad in ROWS),
    Fault(
        "network/at-once",
        "four processes fetch the same weights; the one that writes is killed in the middle",
        "one writes, the others wait and go on; the file is whole, and no part is left",
        _at_once,
    ),
    Fault(
        "network/proxy",
        "a proxy of the environment, and one that is not there",
        "the proxy is used; without it one line, and no damaged file",
        _proxy,
    ),
)
