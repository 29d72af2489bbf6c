"""Files of a participant call besides the recordings: data set, methods text, reports."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainlm_bids import __version__, files
from brainlm_bids.app.ahead import report_key, report_steps
from brainlm_bids.app.parcellations import write_parcellation
from brainlm_bids.app.resources import Resources
from brainlm_bids.app.status import EXIT_FAILED, EXIT_OK
from brainlm_bids.bids.dataset import read_description, write_atlas_files, write_dataset_files
from brainlm_bids.bids.outputs import describe_labels
from brainlm_bids.bids.runs import Run, by_subject
from brainlm_bids.errors import UserError
from brainlm_bids.progress import Progress
from brainlm_bids.resources import parcels
from brainlm_bids.settings import Settings
from brainlm_bids.system_errors import in_one_line

if TYPE_CHECKING:
    from brainlm_bids.report.manuscript import Manuscript

LOG = logging.getLogger("brainlm_bids")


def write_dataset(settings: Settings, resources: Resources) -> None:
    """Write the files of the whole data set, and the atlas as used."""
    import nibabel as nb
    import numpy as np

    write_dataset_files(
        settings.output_dir,
        settings.bids_dir,
        describe_labels(),
        settings.derivatives_dirs,
        # with parcel series, BIDS_DIR need not be a data set
        linked=not settings.timeseries or bool(read_description(settings.bids_dir)),
    )
    atlas = resources.atlas
    data, affine = atlas.load()
    write_atlas_files(
        settings.output_dir,
        space=resources.space,
        label=atlas.label,
        image=nb.Nifti1Image(np.asarray(data, dtype=np.int16), affine),
        table=parcels().table(),
        description={
            "Name": atlas.label,
            "License": atlas.licence,
            "Source": atlas.source,
            "SHA256": atlas.sha256,
            "Approximate": atlas.approximate,
        },
    )
    for one in resources.parcellations:
        write_parcellation(settings.output_dir, one)


def write_methods(settings: Settings, about: str = "") -> bool:
    """The methods text of the finished runs of the selection, in `logs/`.

    Parameters
    ----------
    settings : Settings
        Of the call.
    about : str
        Hash of all that the text depends on; empty where that is not known.

    Returns
    -------
    bool
        Whether there is a finished run.
    """
    from brainlm_bids.report.methods import methods
    from brainlm_bids.report.run_records import gather_runs

    runs = gather_runs(settings.output_dir, settings)
    if runs:
        write_manuscript(settings, methods(runs))
        record = {"Configuration": about, "SHA256": files.file_sha256(_methods_text(settings))}
        files.write_json(_methods_record(settings), record)
    return bool(runs)


def are_methods_written(settings: Settings, about: str) -> bool:
    """Whether the methods text is the one of the same runs; about: as of `write_methods`."""
    if not about:
        return False
    try:
        record = files.read_json(_methods_record(settings))
        text = files.file_sha256(_methods_text(settings))
    except UserError:
        return False
    return record == {"Configuration": about, "SHA256": text}


def _methods_text(settings: Settings) -> Path:
    return settings.output_dir / "logs" / "CITATION.md"


def _methods_record(settings: Settings) -> Path:
    return settings.output_dir / "logs" / "records" / "methods.json"


def write_methods_beside_results(settings: Settings, about: str) -> int:
    """The methods text of finished runs; an error in it costs no result, and is told.

    Parameters
    ----------
    settings : Settings
        Of the call.
    about : str
        As of `write_methods`.

    Returns
    -------
    int
        The exit code.
    """
    try:
        if not are_methods_written(settings, about):
            write_methods(settings, about)
    except Exception as error:
        return internal_error(settings, "internal error in the methods text", error)
    return EXIT_OK


def internal_error(settings: Settings, where: str, error: Exception) -> int:
    """Tell an error of the program; one of the disk is not ours."""
    if in_one_line(error) is not None:
        raise error
    if isinstance(error, UserError):  # a file that cannot be read
        LOG.error("%s", error)
        return EXIT_FAILED
    text = f"{where} ({type(error).__name__}: {error}); please report it"
    LOG.error(text, exc_info=settings.verbose > 0)
    return EXIT_FAILED


def write_manuscript(settings: Settings, text: "Manuscript") -> None:
    """A text in all its forms, in `logs/`."""
    for extension, form in text.forms().items():
        files.write_text(settings.output_dir / "logs" / f"{text.name}{extension}", form)


def tell_size(settings: Settings, page: Path) -> None:
    """Log how large a page with its pictures is: mail servers refuse what is too large for them."""
    if settings.single_file_report:
        size = page.stat().st_size / 1e6
        LOG.info(f"{page}: one file with its pictures, {size:.1f} MB")


def write_reports(settings: Settings, runs: Sequence[Run], progress: Progress) -> int:
    """The HTML report of every subject, from what is in the output folder."""
    from brainlm_bids.report.places import refresh
    from brainlm_bids.report.standing import Cohort, find_cohort
    from brainlm_bids.report.subject import build_report

    out, subjects = settings.output_dir, list(by_subject(runs))
    progress.expect(report_steps(subjects))
    try:
        code, cohort = EXIT_OK, find_cohort(out, subjects)
    except Exception as error:  # pages that compare nothing are better than none
        where = "internal error in the comparison of recordings"
        code, cohort = internal_error(settings, where, error), Cohort(())
    for subject in subjects:
        try:
            with progress.step(report_key(subject)):
                page = build_report(
                    out,
                    subject,
                    version=__version__,
                    cohort=cohort,
                    single_file=settings.single_file_report,
                )
                tell_size(settings, page)
        except Exception as error:  # the others have theirs
            code = internal_error(settings, f"sub-{subject}: internal error in its report", error)
    # a neighbour's page may have been deleted since
    refresh(out, subjects)
    return code
