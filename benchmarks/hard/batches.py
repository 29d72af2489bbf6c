"""All batches of hard inputs."""

from benchmarks.hard.benign import COMMON, raw_dataset
from benchmarks.hard.case import Batch
from benchmarks.hard.fmriprep import FMRIPREP
from benchmarks.hard.people import IDS, VALUES
from benchmarks.hard.raw_files import FILES, LOOSE
from benchmarks.hard.raw_images import HEADERS, VOLUMES_OF_RAW
from benchmarks.hard.raw_images import VALUES as VOXELS
from benchmarks.hard.registration import REGISTRATION
from benchmarks.hard.series import DATASETS, SERIES
from benchmarks.hard.units import UNITS

RAW = Batch(
    "raw",
    "Raw data sets: damaged files, odd names, headers, types, and whole bad volumes. Components "
    "are not removed (`--denoise none`), so that *r* tells about the input alone.",
    raw_dataset,
    lambda folder: [
        *(str(folder / "raw"), str(folder / "out"), "participant", "-w", str(folder / "work")),
        *(*COMMON, "--denoise", "none"),
    ],
    (*FILES, *HEADERS, *VOXELS, *VOLUMES_OF_RAW),
)

BATCHES = (UNITS, SERIES, DATASETS, LOOSE, VALUES, IDS, FMRIPREP, RAW, REGISTRATION)
