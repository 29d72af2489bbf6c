"""Every command line of the README and of the documentation is one that its parser takes."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brainlm_bids.commands import bids_app, brainlm, docker, fmriprep

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _bids_app(arguments: list[str]) -> None:
    bids_app.build_parser().parse_args(arguments)


def _brainlm(arguments: list[str]) -> None:
    brainlm.build_parser().parse_args(arguments)


def _docker(arguments: list[str]) -> None:
    ours, _ = docker._split(arguments)
    _bids_app(docker.build_parser().parse_known_args(ours)[1])


def _fmriprep(arguments: list[str]) -> None:
    rest = fmriprep.build_parser().parse_known_args(arguments)[1]
    bids_app.build_parser().parse_known_args(rest)


PARSERS: dict[str, Callable[[list[str]], None]] = {
    "brainlm-bids": _bids_app,
    "brainlm-bids-docker": _docker,
    "brainlm-bids-fmriprep": _fmriprep,
    "brainlm": _brainlm,
}


def _lines(page: Path) -> Iterator[str]:
    """The lines of a page's code blocks, those that go on in the next joined with it."""
    language: str | None = None
    for line in page.read_text().replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            language = line.strip("` ") if language is None else None
        elif language in ("", "bash", "sh", "console"):
            yield line


def _commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """(program, arguments) of each call of a page, also of those in a container."""
    for line in _lines(page):
        if re.search(r"[{}|$<>\[\]]", line):  # a synopsis, or a line with variables
            continue
        try:
            words = shlex.split(line.replace("…", ""), comments=True)
        except ValueError:  # an apostrophe in the output of a program
            continue
        places = [k for k, word in enumerate(words) if word in PARSERS]
        if not places or not (places[0] == 0 or "run" in words[:2]):
            continue
        program = words[places[-1]]
        if "--entrypoint" in words:
            program = words[words.index("--entrypoint") + 1]
        yield program, words[places[-1] + 1 :]


CALLS = [(page, *call) for page in PAGES for call in _commands(page)]


@pytest.mark.parametrize(
    ("page", "program", "arguments"),
    [
        pytest.param(*call, id=f"{call[0].name}: {' '.join([call[1], *call[2]])}"[:120])
        for call in CALLS
    ],
)
def test_a_command_of_the_documentation_is_understood(
    page: Path, program: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        PARSERS[program](arguments)
    except SystemExit as stop:
        assert not stop.code, f"{page}: {program} {arguments}: {capsys.readouterr().err}"


def test_commands_were_found() -> None:
    """The test above looks where commands are."""
    assert {program for _, program, _ in CALLS} == set(PARSERS)
    assert sum(page.name == "README.md" for page, *_ in CALLS) >= 7
    assert len(CALLS) > 40
    with pytest.raises(SystemExit):
        _bids_app(["BIDS", "OUT", "participant", "--no-such-flag"])
