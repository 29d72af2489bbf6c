"""Comments, docstrings and messages refer to pages that a reader can open."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "mkdocs.yml").is_file():
    pytest.skip("the documentation is not here (the image with the tests)", allow_module_level=True)
FOLDERS = ("brainlm_bids", "benchmarks", "docker", "tests", "workflows")
PAGE = re.compile(r"\bdocs/[\w/-]+\.(?:md|ipynb)\b")


def test_every_page_that_is_referred_to_exists() -> None:
    files = [
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".sh", ".md", ".toml", ".j2", ".awk", ".yml"}
    ]
    files += [ROOT / name for name in ("Dockerfile", "Makefile", "NOTICE", "pyproject.toml")]
    found = {
        (page, path.relative_to(ROOT).as_posix())
        for path in files
        for page in PAGE.findall(path.read_text(encoding="utf-8"))
    }
    assert any(page == "docs/reference/networks.md" for page, _ in found)
    missing = sorted(f"{where}: {page}" for page, where in found if not (ROOT / page).is_file())
    assert not missing


def test_no_file_refers_to_a_document_outside_the_repository() -> None:
    # written so that this file does not contain the names
    names = re.compile("|".join(["BRAINLM" + r"\.md", r"\bFACTS" + r"\b", r"\bDESIGN" + r"\b"]))
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    guilty = [str(path) for path in files if names.search(path.read_text(encoding="utf-8"))]
    assert not guilty
