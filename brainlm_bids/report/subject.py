"""The report of one subject: an output folder in, `sub-<label>.html` out.

Everything comes from the folder, so that `--reports-only` can write the report again. Whatever was
read is escaped; figures are linked by relative paths, as in fMRIPrep's reports.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from brainlm_bids.bids.derivatives import OfParticipant
from brainlm_bids.report.about import about
from brainlm_bids.report.contents import gather
from brainlm_bids.report.methods import methods
from brainlm_bids.report.page import render
from brainlm_bids.report.places import publish
from brainlm_bids.report.placing import place_warnings
from brainlm_bids.report.run_records import gather_runs
from brainlm_bids.report.sections import columns, overview, page_sections, sessions
from brainlm_bids.report.single_file import with_pictures
from brainlm_bids.report.standing import Cohort, find_cohort


def build_report(
    output_dir: Path,
    subject: str,
    *,
    version: str,
    cohort: Cohort | None = None,
    single_file: bool = False,
) -> Path:
    """Write the report of a subject from what the output folder holds.

    Files that are missing leave their part out. The report appears whole or not at all.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    subject
        Label, with or without "sub-".
    version
        Version of this program, shown in the report.
    cohort
        All recordings of the folder, to compare those of the subject with; None: those that the
        index knows.
    single_file
        Embed the pictures in the page.

    Returns
    -------
    Path
        The report, `output_dir/sub-<label>.html`.
    """
    output_dir = Path(output_dir)
    page = gather(output_dir, subject)
    if cohort is None:
        cohort = find_cohort(output_dir, [page.label])
    warnings = place_warnings(page.runs)
    sections = page_sections(page, warnings, cohort)
    tasks = dict.fromkeys(section.task for section in sections)
    text = render(
        "report.html.j2",
        subject=page,
        many=len(sections),
        sessions=sessions(sections),
        names={section.run.name: section for section in sections},
        rows=overview(page, sections),
        columns=columns(sections),
        warnings=warnings,
        scales=[scale for task in tasks for scale in cohort.scales(task)],
        maps=cohort.maps if any(section.marks for section in sections) else (),
        methods=_methods(output_dir, page.label),
        about=about(output_dir, page, {one.run.name: one.full_title for one in sections}, version),
    )
    if single_file:
        text = with_pictures(text, output_dir)
    return publish(output_dir, page.label, text)


def _methods(output_dir: Path, label: str) -> Markup:
    """How the runs of a subject were processed; empty where none is finished."""
    runs = gather_runs(output_dir, OfParticipant((label,)))
    return Markup(methods(runs).section() if runs else "")
