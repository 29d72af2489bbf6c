"""What a release consists of agrees with itself."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import brainlm_bids

ROOT = Path(__file__).parents[1]


def _citation() -> dict:
    path = ROOT / "CITATION.cff"
    if not path.is_file():
        pytest.skip("CITATION.cff is not here: this is not the repository")
    return yaml.safe_load(path.read_text())


def test_the_citation_is_of_this_version_and_complete() -> None:
    citation = _citation()
    assert citation["version"] == brainlm_bids.__version__
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["license"] == "Apache-2.0"
    assert all(citation.get(key) for key in ("title", "abstract", "authors", "repository-code"))
    released = "date-released" in citation
    assert released or ".dev" in citation["version"], "a release has a date"


def test_the_citation_names_the_paper_of_brainlm_as_the_methods_do() -> None:
    (paper,) = _citation()["references"]
    entry = (ROOT / "brainlm_bids" / "data" / "methods.bib").read_text().split("\n}\n")[0]
    assert paper["doi"] == re.findall(r"doi = \{(.+)\}", entry)[0]
    names = re.findall(r"author = \{(.+)\}", entry)[0].split(" and ")
    ours = [f"{one.get('name-particle', '')} {one['family-names']}" for one in paper["authors"]]
    assert [name.strip() for name in ours] == [name.split(",")[0] for name in names]


def test_every_program_of_the_package_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for target in project["scripts"].values():
        module, _, function = target.partition(":")
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        assert re.search(rf"^def {function}\(", path.read_text(), re.M), target
