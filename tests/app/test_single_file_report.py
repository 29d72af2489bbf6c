"""`--single-file-report` reaches the pages; a later call without it links the pictures again."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from synthetic_outputs import write_outputs

from brainlm_bids.app.dataset import write_reports
from brainlm_bids.progress import Progress
from brainlm_bids.settings import Settings


def _pages(folder: Path, *, single: bool) -> dict[str, str]:
    settings = Settings(
        bids_dir=folder, output_dir=folder, reports_only=True, single_file_report=single
    )
    runs: Any = [SimpleNamespace(subject=label) for label in ("01", "02")]
    with Progress("step", quiet=True) as progress:
        assert write_reports(settings, runs, progress) == 0
    return {path.name: path.read_text() for path in sorted(folder.glob("sub-*.html"))}


def test_the_setting_decides_where_the_pictures_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_outputs(tmp_path, 2, figures=True)
    linked = _pages(tmp_path, single=False)
    assert len(linked) == 2
    assert all('src="./sub-' in page and 'src="data:' not in page for page in linked.values())
    assert "one file" not in caplog.text
    with caplog.at_level(logging.INFO, "brainlm_bids"):
        single = _pages(tmp_path, single=True)
    assert all('src="data:' in page and 'src="./' not in page for page in single.values())
    assert caplog.text.count("one file with its pictures, 0.") == 2
    assert _pages(tmp_path, single=False) == linked
