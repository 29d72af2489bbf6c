"""The page of a tool of `brainlm`: its folder in, `forecast.html` or the like out.

Everything comes from the records, tables, sidecars and figures of the folder, so that `brainlm
report` can write the page again, also of a training that is at work or was interrupted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from brainlm_bids import files
from brainlm_bids.bids.calls import recorded
from brainlm_bids.errors import UserError
from brainlm_bids.messages import tell
from brainlm_bids.report.page import Places, render
from brainlm_bids.report.tools import finetune, forecast, perturb, pretrain
from brainlm_bids.report.tools.methods import methods_text
from brainlm_bids.report.tools.parts import Section
from brainlm_bids.report.tools.records import (
    FINETUNE,
    FORECAST,
    PERTURB,
    PRETRAIN,
    TOOLS,
    Run,
    about,
    calls_table,
    index_of,
    runs_of,
    settings_table,
    unfinished,
)

_TITLES = {
    FORECAST: "Forecasts of brain states",
    PERTURB: "Perturbation in silico",
    FINETUNE: "Fine-tuning",
    PRETRAIN: "Pretraining",
}
_SECTIONS = {
    FORECAST: forecast.sections,
    PERTURB: perturb.sections,
    FINETUNE: finetune.sections,
    PRETRAIN: pretrain.sections,
}


def page_name(tool: str) -> str:
    """Name of the page of a tool.

    >>> page_name("forecast")
    'forecast.html'
    """
    return f"{tool}.html"


def write_pages(folder: Path) -> list[Path]:
    """Write the page of every tool that wrote into a folder.

    Parameters
    ----------
    folder
        The results of `brainlm forecast`, `perturb`, `finetune` or `pretrain`.

    Returns
    -------
    list of Path
        The pages.

    Raises
    ------
    UserError
        If no tool wrote into the folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    runs = runs_of(folder)
    if not runs:
        raise UserError(
            f"{folder}: holds no results of brainlm {', '.join(TOOLS[:-1])} or {TOOLS[-1]}; the "
            "reports of brainlm-bids are written by its option --reports-only"
        )
    tools = {run.tool for run in runs}
    return [files.write_text(folder / page_name(run.tool), _page(run, tools)) for run in runs]


def write_page(folder: Path, *, show: bool = False) -> None:
    """Write the pages of a folder; a page that fails is one line, and costs no result.

    Parameters
    ----------
    folder
        The results of a tool.
    show
        Whether to print where the pages are.
    """
    try:
        pages = write_pages(folder)
    except Exception as error:  # whatever it is, the results are complete without a page
        text = " ".join(str(error).split())
        tell(
            f"brainlm: {folder}: the page could not be written ({type(error).__name__}: {text}); "
            "the results are not affected, and `brainlm report` writes it again"
        )
        return
    for page in pages if show else ():
        tell(f"report: {page}")


@contextlib.contextmanager
def reported(
    folder: Path, tool: str, command: Sequence[str] = (), **facts: Any
) -> Iterator[dict[str, Any]]:
    """Record a call of a tool in its folder, and write its page at the start and at the end.

    Parameters
    ----------
    folder
        The results, claimed for this tool.
    tool
        Its name.
    command
        The words of the command line; none for a call from Python.
    **facts
        Further fields of the record.

    Yields
    ------
    dict
        The record; the call may add fields.
    """
    show = True
    try:
        with recorded(folder, command, Tool=tool, **facts) as record:
            write_page(folder)
            yield record
    except UserError:  # its one line is all that there is to read
        show = False
        raise
    finally:
        write_page(folder, show=show)


def _page(run: Run, tools: set[str]) -> str:
    sections: list[Section] = _SECTIONS[run.tool](run)
    index = index_of(run)
    return render(
        "tool.html.j2",
        Places(index=index),
        title=_TITLES[run.tool],
        tool=run.tool,
        unfinished=unfinished(run),
        failed=_failed(run),
        sections=sections,
        others=[page_name(tool) for tool in TOOLS if tool in tools and tool != run.tool],
        about=about(run),
        details=[settings_table(run), calls_table(run)],
        methods=Markup(methods_text(run).section()),
    )


def _failed(run: Run) -> list[tuple[str, str]]:
    """What failed in the last call, with the reasons."""
    facts = run.last.facts if run.last else {}
    failed = facts.get("Failed")
    listed = [(str(k), str(v)) for k, v in failed.items()] if isinstance(failed, dict) else []
    problems = facts.get("Problems")
    return listed + [("", str(one)) for one in problems or [] if isinstance(problems, list)]
