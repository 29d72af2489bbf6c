"""Files of a participant call besides the recordings: data set, methods text, reports."""

import logging
import platform
import sys
from collections.abc import Sequence

from brainlm_bids import __version__, files
from brainlm_bids.app.context import model_info
from brainlm_bids.app.resources import Resources
from brainlm_bids.app.status import EXIT_FAILED, EXIT_OK
from brainlm_bids.bids import inputs as bids_inputs
from brainlm_bids.bids.dataset import (
    read_description,
    write_atlas_files,
    write_dataset_files,
)
from brainlm_bids.bids.inputs import Run
from brainlm_bids.bids.outputs import describe_labels
from brainlm_bids.resources import parcels
from brainlm_bids.settings import Settings
from brainlm_bids.table import SERIES

LOG = logging.getLogger("brainlm_bids")


def write_dataset(settings: Settings, resources: Resources, runs: Sequence[Run]) -> None:
    """Write the files of the whole data set, the atlas as used, and the methods text."""
    import nibabel as nb
    import numpy as np

    write_dataset_files(
        settings.output_dir,
        settings.bids_dir,
        describe_labels(),
        settings.fmriprep_dir,
        # with parcel series, BIDS_DIR need not be a data set
        linked=not settings.timeseries or bool(read_description(settings.bids_dir)),
    )
    atlas, labels = resources.atlas, parcels()
    data, affine = atlas.load()
    table = {
        "index": labels.index.tolist(),
        "name": list(labels.names),
        "hemisphere": list(labels.hemisphere),
        "network_index": labels.network_index.tolist(),
        "network": list(labels.network),
        "x": labels.xyz[:, 0].tolist(),
        "y": labels.xyz[:, 1].tolist(),
        "z": labels.xyz[:, 2].tolist(),
    }
    write_atlas_files(
        settings.output_dir,
        space=resources.space,
        label=atlas.label,
        image=nb.Nifti1Image(np.asarray(data, dtype=np.int16), affine),
        table=table,
        description={
            "Name": atlas.label,
            "License": atlas.licence,
            "Source": atlas.source,
            "SHA256": atlas.sha256,
            "Approximate": atlas.approximate,
        },
    )
    text, references = _methods(settings, resources, runs)
    logs = settings.output_dir / "logs"
    files.write_text(logs / "CITATION.md", text)
    files.write_text(logs / "CITATION.bib", references)


def _kind_of_source(settings: Settings) -> str:
    if settings.timeseries:
        return "timeseries"
    return "raw" if settings.fmriprep_dir is None else "fmriprep"


def _methods(settings: Settings, resources: Resources, runs: Sequence[Run]) -> tuple[str, str]:
    """The methods text of some runs, and its references: (Markdown, BibTeX)."""
    from importlib.metadata import version

    from brainlm_bids.report.methods import methods

    with_t1w = {run.t1w is not None for run in runs if not (run.problem or run.skip)}
    facts = {
        **settings.changing(SERIES),
        **settings.subset(("mask_ratio",)),
        "version": __version__,
        "versions": {name: version(name) for name in ("nipype", "antspyx", "scikit-learn", "torch")}
        | {"python": platform.python_version()},
        "source": _kind_of_source(settings),
        "has_t1w": with_t1w.pop() if len(with_t1w) == 1 else None,
        "template": resources.space,
        "atlas": resources.atlas.label,
        "scaling_stats": None if settings.scaling_stats is None else settings.scaling_stats.name,
        "models": [
            {
                **model_info(label, model).sidecar(),
                "untrained": model.random,
                "warning": " ".join(str(warning) for warning in model.warnings if not model.random),
            }
            for label, model in resources.models.items()
        ],
    }
    return methods(facts)


def write_reports(
    settings: Settings, runs: Sequence[Run], resources: Resources | None = None
) -> int:
    """Write the HTML report of every subject from the files in the output folder.

    With the call's resources, each report has its own subject's methods: `logs/CITATION.md` is for
    all subjects of a call, and another call may have written it since.
    """
    from brainlm_bids.report.subject import build_report

    code = EXIT_OK
    for subject, subject_runs in bids_inputs.by_subject(runs).items():
        try:
            text = None if resources is None else _methods(settings, resources, subject_runs)[0]
            path = build_report(settings.output_dir, subject, version=__version__, methods=text)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in files.CANNOT_WRITE:
                raise
            # the other subjects get their reports
            text = f"sub-{subject}: internal error in its report ({type(error).__name__}: {error})"
            LOG.error("%s; please report it", text, exc_info=settings.verbose > 0)
            code = EXIT_FAILED
            continue
        print(f"report: {path}", file=sys.stderr)
    return code
