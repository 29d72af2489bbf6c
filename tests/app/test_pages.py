"""Pages of subjects that are processed by calls of their own, as the jobs of an array do."""

import re
from pathlib import Path

import numpy as np
import pytest

from brainlm_bids.commands import bids_app
from brainlm_bids.parcels import N_PARCELS

# its first byte is in no process's memory: reading it answers EIO
DAMAGED = Path("/proc/self/mem")


def _call(folder: Path, label: str, *flags: str, code: int = 0) -> list[str]:
    """Process a series of random numbers; returns the words of the command."""
    series = folder / f"sub-{label}_task-rest_timeseries.npy"
    noise = np.random.default_rng(int(label)).normal(size=(60, N_PARCELS))
    np.save(series, 10000 + 40 * noise)
    (folder / "bids").mkdir(exist_ok=True)
    words = [str(folder / "bids"), str(folder / "out"), "participant", "--timeseries", str(series)]
    words += ["--timeseries-tr", "2", "--atlas", "A424approx", "--offline", "--model", "none"]
    words += ["--template", "MNI152NLin2009aSym", "--nprocs", "1", "-w", str(folder / "work")]
    assert bids_app.main([*words, *flags]) == code
    return ["brainlm-bids", *words, *flags]


def test_each_call_keeps_the_links_of_others_right_and_is_told_on_its_own_page(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    first = _call(tmp_path, "2")
    second = _call(tmp_path, "1", "--random-seed", "7")
    pages = {label: (out / f"sub-{label}.html").read_text() for label in "12"}
    assert 'rel="next"' in pages["1"] and 'href="./sub-2.html"' in pages["1"]
    assert 'rel="prev"' in pages["2"] and 'href="./sub-1.html"' in pages["2"]
    for label, command in (("1", second), ("2", first)):
        about = pages[label][pages[label].index('<section id="about">') :]
        (typed,) = re.findall(r"Command</th><td><code>(.*?)</code>", about)
        assert typed == " ".join(command)
        assert ("--random-seed" in about.partition("Settings")[2]) == (label == "1")
        assert "parcel series that were given" in about
    # a page that is written again is the same
    _call(tmp_path, "2", "--reports-only")
    assert (out / "sub-2.html").read_text() == pages["2"]
    assert (out / "sub-1.html").read_text() == pages["1"]


@pytest.mark.skipif(not DAMAGED.exists(), reason="no file that answers EIO")
def test_a_sidecar_that_the_disk_does_not_give_is_told_and_leaves_the_page_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A page without what the sidecar tells would look complete, and would stay."""
    _call(tmp_path, "1")
    page = tmp_path / "out" / "sub-1.html"
    before = page.read_text()
    (sidecar,) = (tmp_path / "out").rglob("*_desc-denoised_timeseries.json")
    kept = sidecar.rename(tmp_path / "kept.json")
    sidecar.symlink_to(DAMAGED)
    caplog.clear()
    _call(tmp_path, "1", "--reports-only", code=1)
    told = f"{sidecar}: cannot be read (Input/output error); see whether the disk is damaged"
    assert told in caplog.messages
    assert not any("please report" in text for text in caplog.messages)
    assert page.read_text() == before
    sidecar.unlink()
    kept.rename(sidecar)
    _call(tmp_path, "1", "--reports-only")
    assert page.read_text() == before
