"""The files that describe the data set and its people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids import files
from brainlm_bids.phantom.acquisition import PEOPLE, Acquisition


def write_dataset_files(out: Path, truth: Path, n_subjects: int, acquisition: Acquisition) -> None:
    """Write descriptions, README files and participants.tsv of the data and of their truth."""
    rng = np.random.default_rng([PEOPLE, acquisition.seed])
    truth.mkdir(parents=True, exist_ok=True)
    made_by = [{"Name": "brainlm phantom", "Description": "simulated, no person was scanned"}]
    common = {"BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["The brainlm-bids developers"]}
    raw = {"Name": "brainlm phantom", "DatasetType": "raw", "GeneratedBy": made_by, **common}
    files.write_json(out / "dataset_description.json", raw)
    derived: dict[str, Any] = {"Name": "Truth of the brainlm phantom", "DatasetType": "derivative"}
    derived |= {"GeneratedBy": made_by, **common}
    files.write_json(truth / "dataset_description.json", derived)
    ignored = ["*_motion.*", "*_xfm.*", "*_geometry.*", "*_timeseries.*", "*_metrics.*"]
    ignored += ["*_T2starmap.*"] * bool(acquisition.echoes)
    ignored += ["*_fieldmap.*", "*_displacement.*"] * acquisition.has_field
    files.write_text(truth / ".bidsignore", "\n".join(ignored) + "\n")
    settings = {
        "seed": acquisition.seed,
        "motion": Path(acquisition.motion).name,
        "volumes": acquisition.n_volumes,
        "TR": f"{acquisition.tr} s",
        "voxel": f"{acquisition.voxel} mm",
        **acquisition.switches,
    }
    if acquisition.has_field:
        settings |= {
            "distortion": f"{acquisition.distortion} mm along {acquisition.phase_encoding}",
            "field maps": ", ".join(acquisition.fieldmaps) or "none",
        }
    if acquisition.slices != "none":
        settings["slices"] = f"{acquisition.slices}, {acquisition.multiband} at once"
    if acquisition.echoes:
        settings["echo times"] = ", ".join(f"{time} s" for time in acquisition.echoes)
    if acquisition.sbref:
        settings["single-band reference"] = True
    if acquisition.lesion:
        settings["lesion"] = True
        # BIDS has no place for masks in raw data; lesion-aware programs look for them there
        files.write_text(out / ".bidsignore", "*_label-lesion_mask.*\n")
    listed = "\n".join(f"- {key}: {value}" for key, value in settings.items())
    files.write_text(
        out / "README.md",
        "# A phantom\n\nSimulated heads: the ICBM 152 2009a template that nilearn packages, "
        "warped; no person was scanned. What is true of every run (motion, geometry, parcel "
        f"series, noise) lies in `derivatives/phantom`.\n\n{listed}\n",
    )
    text = "What is true of the simulated runs; see the sidecars.\n"
    files.write_text(truth / "README.md", text)
    ages, sexes = rng.integers(20, 80, n_subjects), rng.choice(["F", "M"], n_subjects)
    labels = [f"sub-{k + 1:02d}" for k in range(n_subjects)]
    files.write_tsv(
        out / "participants.tsv", ["participant_id", "age", "sex"], [labels, ages, sexes]
    )
    files.write_json(
        out / "participants.json",
        {
            "age": {"Description": "age of the imagined person", "Units": "year"},
            "sex": {"Description": "sex of the imagined person", "Levels": {"F": "f", "M": "m"}},
        },
    )
