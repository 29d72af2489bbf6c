"""`make docs` refuses a site with broken links. Its own pages are built by the command itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "mkdocs.yml").is_file():
    pytest.skip("the documentation is not here (the image with the tests)", allow_module_level=True)


def _build(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Build a site of one page with the project's settings and the options of the Makefile."""
    options = re.search(r"mkdocs build(.*)", (ROOT / "Makefile").read_text())
    assert options is not None
    (folder / "docs").mkdir()
    (folder / "docs" / "index.md").write_text(text)
    config = folder / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: docs\nsite_dir: site\n"
        "nav: [index.md]\nhooks: []\nextra_css: []\n"
    )
    command = [sys.executable, "-m", "mkdocs", "build", *options[1].split(), "-f", str(config)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# Title\n\n[gone](nowhere.md)\n", "nowhere.md"),
        ("# Title\n\n[gone](#nowhere)\n", "nowhere"),
        ("# Title\n\n[ours](#title), [a glossary's term](#w)\n\nW { #w }\n:   a matrix\n", ""),
    ],
    ids=["page", "anchor", "right"],
)
def test_a_broken_link_fails_the_build(tmp_path: Path, text: str, complaint: str) -> None:
    done = _build(tmp_path, text)
    assert (done.returncode == 0) == (not complaint), done.stderr
    assert complaint in done.stderr
