"""Measures the field of a head as scanners do, and writes the images of `fmap`.

Each kind has a grid of its own and a head that lies a little differently: what a field map shows
must be carried to the run. Images are (X, Y, Z), phases in rad unless said, points (3, N) RAS+ mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from brainlm_bids import files
from brainlm_bids.phantom.acquisition import FIELD_MAP_KINDS, FIELD_MAPS, FIELD_OF_VIEW, Acquisition
from brainlm_bids.phantom.field import READOUT, Distortion, Field, PhaseEncoding
from brainlm_bids.phantom.head import Warp, apply_affine, drawn_pose, epi_tissues, t1w_intensity
from brainlm_bids.phantom.scene import (
    GREY_LEVEL,
    NOISE,
    POINT_SPREAD,
    View,
    bold_affine,
    half_voxels,
    template_points,
)
from brainlm_bids.phantom.storing import write_nifti

ECHO_TIMES = (0.00492, 0.01476)  # s; the difference of phase wraps beyond 51 Hz
T2_STAR = 0.045  # s
GRADIENT_ECHO_VIEW = (216.0, 240.0, 156.0)  # mm
TILT_DEGREES = 9.0  # of the slices of the gradient echoes, about the x axis
BRIGHTNESS, BRIGHTNESS_NOISE = 1500.0, 15.0  # of white matter, and sd of each part of the signal
SCANNER_UNITS = 4096  # of phase per half turn
N_PAIR_VOLUMES = 3
# A stored LAS array runs to the left, to the front and up: where the phase encoding goes
TOWARDS = {"i": "RL", "i-": "LR", "j": "PA", "j-": "AP", "k": "IS", "k-": "SI"}

TRUTH = {
    "Description": "the field on the grid of the field map, where tissue lies; of a pair, in the "
    "pose of its first image, whose phase encoding is that of the runs",
    "Units": "Hz",
}


def field_fields(encoding: PhaseEncoding, identifiers: Sequence[str]) -> dict[str, Any]:
    """What the sidecar of an echo-planar image says of the field and of its field maps."""
    fields: dict[str, Any] = {
        "PhaseEncodingDirection": encoding.direction,
        "TotalReadoutTime": READOUT,
    }
    return fields | ({"B0FieldSource": list(identifiers)} if identifiers else {})


@dataclass(frozen=True)
class FieldMapWriter:
    """Writes the field maps of one session.

    prefix: sub-01 or sub-01_ses-01; ids: numbers of subject and session, which seed the noise.
    """

    acquisition: Acquisition
    warp: Warp
    field: Field
    prefix: str
    ids: tuple[int, int]

    @property
    def identifiers(self) -> tuple[str, ...]:
        """B0FieldIdentifier of each kind."""
        return tuple(map(self.identifier, self.acquisition.fieldmaps))

    def identifier(self, kind: str) -> str:
        """B0FieldIdentifier: no other field map of the subject has it."""
        return f"{kind}_{self.prefix.replace('-', '').replace('_', '')}"

    def write(self, folder: Path, truth: Path, intended: Sequence[str]) -> None:
        """Write all kinds, and the field on their grids to the folder of the truth.

        intended: paths in the data set of the images that they are for.
        """
        for kind in self.acquisition.fieldmaps:
            number = FIELD_MAP_KINDS.index(kind)
            rng = np.random.default_rng([FIELD_MAPS, self.acquisition.seed, *self.ids, number + 1])
            common = {
                "B0FieldIdentifier": self.identifier(kind),
                "IntendedFor": [f"bids::{path}" for path in intended],
                "Manufacturer": "brainlm phantom",
                "MagneticFieldStrength": 3,
            }
            # kinds share the names of their magnitudes: with several, acq- tells them apart
            several = len(self.acquisition.fieldmaps) > 1
            stem = f"{self.prefix}_acq-{kind}" if several else self.prefix
            write = self._write_pair if kind == "pair" else self._write_gradient_echoes
            affine, hertz = write(folder / stem, kind, common, rng)
            _write_image(truth / f"{stem}_desc-truth_fieldmap", affine, hertz, "<f4", TRUTH)

    def _write_gradient_echoes(
        self, stem: Path, kind: str, common: dict[str, Any], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write images of two echoes; returns their affine (4, 4) and the field in Hz."""
        affine, hertz, echoes = self._gradient_echoes(rng)
        units = [_scanner_units(np.angle(echo)) for echo in echoes]
        times = [{"EchoTime": time} for time in ECHO_TIMES]
        both = {"EchoTime1": ECHO_TIMES[0], "EchoTime2": ECHO_TIMES[1]}
        difference = np.angle(echoes[1] * np.conj(echoes[0]))
        magnitudes = {f"magnitude{k + 1}": (np.abs(echoes[k]), "<i2", times[k]) for k in range(2)}
        images: dict[str, tuple[np.ndarray, str, dict[str, Any]]] = {
            "phasediff": magnitudes | {"phasediff": (_scanner_units(difference), "<i2", both)},
            "phases": magnitudes | {f"phase{k + 1}": (units[k], "<i2", times[k]) for k in range(2)},
            "field": {
                "magnitude": (np.abs(echoes[0]), "<i2", times[0]),
                "fieldmap": (_measured(hertz, difference), "<f4", {"Units": "Hz"}),
            },
        }[kind]
        for suffix, (image, dtype, fields) in images.items():
            name = stem.with_name(f"{stem.name}_{suffix}")
            _write_image(name, affine, image, dtype, common | fields)
        return affine, hertz

    def _gradient_echoes(
        self, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Affine (4, 4), field (X, Y, Z) in Hz and two complex images of a head of its own pose."""
        voxel = max(3.0, 0.8 * self.acquisition.voxel)
        shape = tuple(max(8, round(size / voxel)) for size in GRADIENT_ECHO_VIEW)
        to_t1w = drawn_pose(rng, 2.0, 3.0)
        affine = np.eye(4)
        affine[:3, :3] = voxel * Rotation.from_euler("x", TILT_DEGREES, True).as_matrix()
        affine[:3, 3] = self._middle(to_t1w, 8.0) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        # eight points in each voxel: partial volume, and dephasing where the field is steep
        halves = np.diag([0.5, 0.5, 0.5, 1.0])
        halves[:3, 3] = -0.25
        grid = tuple(2 * n for n in shape)
        density = t1w_intensity(template_points(self.warp, to_t1w @ affine @ halves, grid))
        voxels = np.indices(grid, dtype=np.float32).reshape(3, -1)
        matrix = self.warp.pose @ to_t1w @ affine @ halves
        hertz = self.field.hertz(apply_affine(matrix, voxels))
        turn = rng.uniform(-2, 2, 3)
        receiver = rng.uniform(-np.pi, np.pi) + turn @ (voxels / np.array(grid)[:, None])
        echoes = []
        for time in ECHO_TIMES:
            phase = 2 * np.pi * hertz * time + receiver
            signal = BRIGHTNESS * np.exp(-time / T2_STAR) * density * np.exp(1j * phase)
            noise = BRIGHTNESS_NOISE * rng.normal(size=(2, *shape))
            echoes.append(_by_voxel(signal, shape) + noise[0] + 1j * noise[1])
        return affine, _by_voxel(hertz, shape), echoes

    def _middle(self, to_t1w: np.ndarray, height: float) -> Any:
        """Where (3,) the middle of the field of view lies, for a head in this pose (4, 4)."""
        middle = self.warp.to_t1w(np.array([[0.0, -18.0, height]])).T
        return apply_affine(np.linalg.inv(to_t1w), middle)[:, 0].round(1)

    def _write_pair(
        self, stem: Path, kind: str, common: dict[str, Any], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write spin echoes of both polarities: no dropout, and the head moves a little between.

        Returns their affine (4, 4), and the field in Hz in the pose of the first.
        """
        voxel = self.acquisition.voxel
        x, y, z = (max(8, round(size / voxel)) for size in FIELD_OF_VIEW)
        shape = (x, y, z + 2)
        to_t1w = drawn_pose(rng, 2.0, 3.0)
        affine = bold_affine(shape, voxel, self._middle(to_t1w, 20.0))
        grid, grid_to_voxel = half_voxels(shape, voxel)
        points = template_points(self.warp, to_t1w @ affine @ grid_to_voxel, grid)
        still = GREY_LEVEL * epi_tissues(points)[1].reshape(grid)
        still = ndimage.gaussian_filter(still, 2 * POINT_SPREAD)
        encoding = PhaseEncoding.from_bids(self.acquisition.phase_encoding)
        motions = np.eye(4), drawn_pose(rng, 0.2, 0.2)
        to_head = self.warp.pose @ to_t1w
        for each, motion in zip((encoding, encoding.opposite), motions, strict=True):
            distortion = Distortion.of(self.field, to_head, affine, each)
            view = View(affine, shape, np.linalg.inv(grid_to_voxel), distortion)
            volume = view(still, motion).reshape(shape)
            noisy = np.stack([self._noisy(volume, rng) for _ in range(N_PAIR_VOLUMES)], axis=-1)
            name = stem.with_name(f"{stem.name}_dir-{TOWARDS[each.direction]}_epi")
            fields = {"RepetitionTime": self.acquisition.tr, **field_fields(each, ())}
            _write_image(name, affine, noisy, "<i2", common | fields)
        return affine, self.field.hertz(apply_affine(to_head, view.world)).reshape(shape)

    def _noisy(self, volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not self.acquisition.switches["thermal_noise"]:
            return volume
        noise = NOISE * GREY_LEVEL * rng.standard_normal((2, *volume.shape), np.float32)
        return np.hypot(volume + noise[0], noise[1])


def _write_image(
    stem: Path, affine: np.ndarray, image: np.ndarray, dtype: str, fields: dict[str, Any]
) -> None:
    """Write an image (X, Y, Z) or (X, Y, Z, T) and its sidecar."""
    header = nib.Nifti1Image(np.zeros(1), affine).header
    header.set_data_shape(image.shape)
    if image.ndim == 4:
        header.set_zooms((*header.get_zooms()[:3], fields["RepetitionTime"]))
    volumes = np.rint(image) if dtype == "<i2" else image
    series = np.moveaxis(volumes, -1, 0) if image.ndim == 4 else [volumes]
    write_nifti(stem.with_name(f"{stem.name}.nii.gz"), header, series, dtype)
    files.write_json(stem.with_name(f"{stem.name}.json"), fields)


def _by_voxel(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Means (X, Y, Z) of the eight values in each voxel, of (8 X Y Z,)."""
    x, y, z = shape
    return np.asarray(values.reshape(x, 2, y, 2, z, 2).mean((1, 3, 5)))


def _scanner_units(phase: np.ndarray) -> np.ndarray:
    """Whole numbers from -4096 to 4095 of a phase in rad."""
    units = np.rint(phase / np.pi * SCANNER_UNITS)
    return np.where(units >= SCANNER_UNITS, -SCANNER_UNITS, units)


def _measured(hertz: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Field in Hz with the noise of a phase difference (rad), unwrapped without an error."""
    turn = 2 * np.pi * (ECHO_TIMES[1] - ECHO_TIMES[0])
    return hertz + np.angle(np.exp(1j * (difference - turn * hertz))) / turn
