"""A run of UK Biobank's size, made cheaply: memory and disk of the stages that hold it.

python -m benchmarks.large FOLDER     writes the run, its atlas and a transform, if not there
"""

import gzip
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from brainlm_bids import resources
from brainlm_bids.preproc.registration.transforms import resample_to

SHAPE = (88, 88, 64)
N_VOLUMES = 490
VOXEL_MM = 2.4
BRIGHTNESS = 10_000.0
NOISE = 0.03


def write_run(path: Path, n_volumes: int = N_VOLUMES, seed: int = 1) -> Path:
    """A gzipped int16 run in template space: grey matter above white, small shifts, noise.

    Volumes are shifted to first order (image + slope × shift), which costs no interpolation; each
    is written before the next is made.
    """
    affine = np.diag([-VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = [VOXEL_MM * (SHAPE[0] - 1) / 2, -142.0, -72.0]
    maps = resources.tissue_maps()
    contrast = maps.grey_matter + 0.8 * maps.white_matter
    base = BRIGHTNESS * resample_to(contrast, maps.affine, SHAPE, affine, np.eye(4))
    base = ndimage.gaussian_filter(base, 0.5)
    slopes = np.stack(np.gradient(base))
    rng = np.random.default_rng(seed)
    shifts = np.cumsum(rng.normal(0, 0.02, (n_volumes, 3)), axis=0)
    header = nib.Nifti1Image(np.zeros(1), affine).header
    header.set_data_shape((*SHAPE, n_volumes))
    header.set_data_dtype(np.int16)
    header.set_zooms((VOXEL_MM,) * 3 + (0.735,))
    header.set_xyzt_units("mm", "sec")
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(path, "wb", 1) as file:
        file.write(header.binaryblock + b"\0" * 4)
        for shift in shifts.astype(np.float32):
            volume = base + np.tensordot(shift, slopes, 1)
            volume += NOISE * BRIGHTNESS * rng.standard_normal(SHAPE, np.float32)
            file.write(np.rint(volume).astype("<i2").tobytes(order="F"))
    return path


def write_case(folder: Path, n_volumes: int = N_VOLUMES) -> dict[str, str]:
    """The run, the embedded atlas, and the identity as a transform; their paths."""
    import ants

    folder.mkdir(parents=True, exist_ok=True)
    paths = {"bold": folder / "bold.nii.gz", "atlas": folder / "atlas.nii.gz"}
    paths["transform"] = folder / "identity.mat"
    if not paths["bold"].is_file():
        write_run(paths["bold"], n_volumes)
    labels, affine = resources.approximate_atlas()
    nib.Nifti1Image(labels, affine).to_filename(paths["atlas"])
    ants.write_transform(ants.create_ants_transform(), str(paths["transform"]))
    return {name: str(path) for name, path in paths.items()}


if __name__ == "__main__":
    print(write_case(Path(sys.argv[1])))
