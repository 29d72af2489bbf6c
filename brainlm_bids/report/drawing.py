"""The figures of a recording that are drawn from its files in the output folder alone.

They can be drawn beside the results, or when somebody looks at the recording: the same files give
the same bytes. The other figures show images that are not kept, such as the registrations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.bids.outputs import Naming, atlas_path, figure_table
from brainlm_bids.notices import OF_RESOURCES, Level, Notice, from_json
from brainlm_bids.resources.images import load_volume
from brainlm_bids.settings import Settings

Volume = tuple[NDArray[Any], NDArray[np.float64]]


def wanted(policy: str, naming: Naming, model: str = "") -> bool:
    """Whether `--figures` asks for the figures of a recording, or of a model's results for it.

    Parameters
    ----------
    policy
        all, suspect or none.
    naming, model
        Whose sidecars tell the warnings.
    """
    if policy != "suspect":
        return policy == "all"
    of = _Recording(naming, model)
    sidecars = [of.sidecar(of.robust), *([of.sidecar("embeddings")] if model else [])]
    return any(is_suspect(from_json(sidecar.get("Warnings"))) for sidecar in sidecars)


def is_suspect(notices: Iterable[Notice]) -> bool:
    """Whether there is a warning, which a note is not, about the recording itself.

    Those about the atlas, the template or the model concern all recordings alike.

    >>> from brainlm_bids.notices import Kind, notice
    >>> is_suspect([notice(Kind.DEMO_MODEL, "..."), notice(Kind.NO_FIELDMAP, "...")])
    False
    >>> is_suspect([notice(Kind.BAD_VOLUMES, "...")])
    True
    """
    shared = {kind.value for kind in OF_RESOURCES}
    return any(one.level != Level.NOTE.value and one.kind not in shared for one in notices)


@dataclass(frozen=True)
class _Recording:
    """Where the files of a recording are; with the label of a model, also those of that model."""

    naming: Naming
    model: str = ""
    atlas: Path | None = None
    background: Volume | None = None

    @property
    def robust(self) -> str:
        """The key of the series that the model was given."""
        return "cohort_robust" if self.naming.scaling else "robust"

    def table(self, key: str) -> tuple[list[str], NDArray[np.float64]]:
        return files.read_tsv(self.naming.existing(key, model=self.model))

    def rows(self, key: str) -> list[dict[str, str]]:
        return files.read_rows(self.naming.existing(key, model=self.model))

    def sidecar(self, key: str) -> dict[str, Any]:
        return files.read_json(self.naming.existing(key, model=self.model, extension=".json"))


def forget(naming: Naming, *about: str, model: str = "") -> None:
    """Remove figures of earlier results: beside new ones they would be taken for theirs.

    Parameters
    ----------
    naming
        Of the files of the recording, or of the anatomical image.
    about
        What the figures describe, as in the table of figures.
    model
        Label of the model.
    """
    for key, row in figure_table().items():
        if row["of"] in about:
            naming.existing_figure(key, model=model).unlink(missing_ok=True)


def draw_recording(naming: Naming, *, missing: bool = False) -> list[Path]:
    """Draw the figures of a recording's series.

    Parameters
    ----------
    naming
        Of the files of the recording.
    missing
        Draw only those that are not there yet.

    Returns
    -------
    list of Path
        What was drawn. A figure whose files are not there is left out.
    """
    return _draw(_Recording(naming), _OF_SERIES, missing)


def draw_model(
    naming: Naming,
    model: str,
    *,
    atlas: Path | None = None,
    background: Volume | None = None,
    missing: bool = False,
) -> list[Path]:
    """Draw the figures of a model's results for a recording.

    Parameters
    ----------
    naming
        Of the files of the recording, with the scaling of what the model was given.
    model
        Label of the model.
    atlas
        Image of the parcels; None: that of the output folder.
    background
        T1w image of the template, (X, Y, Z), and its affine: below the networks.
    missing
        Draw only those that are not there yet.

    Returns
    -------
    list of Path
        What was drawn.
    """
    return _draw(_Recording(naming, model, atlas, background), _OF_MODEL, missing)


def is_missing(naming: Naming, model: str = "") -> bool:
    """Whether a figure of a recording, or of a model's results for it, could be drawn."""
    recording = _Recording(naming, model)
    return bool(_to_draw(recording, _OF_MODEL if model else _OF_SERIES, missing=True))


_Drawers = Mapping[str, tuple[str, Callable[[Path, _Recording], None]]]


def _to_draw(recording: _Recording, drawers: _Drawers, missing: bool) -> list[str]:
    naming, model = recording.naming, recording.model
    return [
        key
        for key, (needed, _) in drawers.items()
        if naming.existing(needed, model=model).is_file()
        and not (missing and naming.existing_figure(key, model=model).is_file())
    ]


def _draw(recording: _Recording, drawers: _Drawers, missing: bool) -> list[Path]:
    drawn = []
    for key in _to_draw(recording, drawers, missing):
        path = recording.naming.figure(key, model=recording.model)
        drawers[key][1](path, recording)
        drawn.append(path)
    return drawn


# --- of the series ---------------------------------------------------------------------------


def _series(path: Path, of: _Recording) -> None:
    from brainlm_bids.figures.parcels import plot_series

    _, values = of.table(of.robust)
    sidecar = of.sidecar(of.robust)
    networks = resources.parcels().network_index
    measured = ~_marked(sidecar.get("InterpolatedVolumes"), len(values))
    plot_series(path, values, float(sidecar["RepetitionTime"]), networks, measured=measured)


def _connectivity(path: Path, of: _Recording) -> None:
    from brainlm_bids.figures.parcels import plot_connectivity

    _, matrix = files.read_matrix(of.naming.existing("pearson"))
    plot_connectivity(path, matrix, resources.parcels().network_index)


def _coverage(path: Path, of: _Recording) -> None:
    from brainlm_bids.figures.parcels import plot_coverage

    parcels = resources.parcels()
    fraction = np.array([_float(row["fraction"]) for row in of.rows("coverage")])
    plot_coverage(path, fraction, parcels.xyz, parcels.network_index, names=parcels.names)


def _motion(path: Path, of: _Recording) -> None:
    from brainlm_bids.figures.motion import plot_motion

    names, values = of.table("confounds")
    sidecar = {**of.sidecar("denoised"), **of.sidecar("confounds")}
    bad = _marked(sidecar.get("BadVolumes"), len(values))
    plot_motion(
        path,
        dict(zip(names, values.T, strict=True)),
        float(sidecar["RepetitionTime"]),
        int(sidecar.get("DummyVolumes") or 0),
        sidecar.get("FramewiseDisplacementThreshold") or Settings.fd_spike_threshold,
        sidecar.get("StandardisedDVARSThreshold") or Settings.dvars_spike_threshold,
        bad if bad.any() else None,
    )


def _components(path: Path, of: _Recording) -> None:
    from brainlm_bids.figures.denoising import Limits, plot_aroma
    from brainlm_bids.preproc.denoising import aroma

    rows = of.rows("aroma_metrics")
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    numbers = ("max_rp_corr", "edge_fract", "csf_fract", "hfc", "variance")
    columns |= {name: np.array([_float(text) for text in columns[name]]) for name in numbers}
    limits = Limits(aroma.CSF_THRESHOLD, aroma.HFC_THRESHOLD, aroma.HYPERPLANE)
    plot_aroma(path, columns, limits)


_OF_SERIES: _Drawers = {
    "series": ("robust", _series),
    "connectivity": ("pearson", _connectivity),
    "coverage": ("coverage", _coverage),
    "motion": ("confounds", _motion),
    "components": ("aroma_metrics", _components),
}


# --- of a model ------------------------------------------------------------------------------


def _embeddings(path: Path, of: _Recording) -> None:
    from brainlm_bids.figures.embeddings import plot_embeddings

    _, values = of.table("embeddings")
    onset, duration, vectors = values[:, 0], values[:, 1], values[:, 2:]
    plot_embeddings(path, vectors, onset, duration, bad=_interpolated(of))


def _reconstruction(path: Path, of: _Recording) -> None:
    from brainlm_bids.figures.model import plot_reconstruction
    from brainlm_bids.model.windows import cut_windows

    names, robust = of.table(of.robust)
    _, predicted = of.table("reconstruction")
    sidecar = of.sidecar("reconstruction")
    ratio, window, tr = (
        float(sidecar[field]) for field in ("MaskRatio", "WindowVolumes", "RepetitionTime")
    )
    r2 = {
        row["name"]: _float(row["r2"])
        for row in of.rows("parcel_metrics")
        if row["predictor"] == "model" and float(row["mask_ratio"]) == ratio
    }
    bad, _, _ = _interpolated(of)
    # each window predicts up to its end, and the last one what is left
    ends = cut_windows(len(robust), int(window))[:-1] + window
    plot_reconstruction(
        path,
        robust,
        predicted,
        tr,
        np.array([r2.get(name, np.nan) for name in names]),
        of.rows("metrics"),
        names=names,
        title=f"Mask ratio {ratio:g}",
        borders=((ends - 0.5) * tr).tolist(),
        bad=(bad, tr, 0.0),
    )


def _networks(path: Path, of: _Recording) -> None:
    from brainlm_bids.figures.model import plot_networks

    parcels, naming = resources.parcels(), of.naming
    image = of.atlas or atlas_path(Path(naming.output_dir), naming.space, naming.atlas)
    atlas, affine = load_volume(image)
    network, _ = load_volume(naming.existing("networks", model=of.model))
    parcel = atlas.astype(np.int32)
    labels = np.zeros(len(parcels.names) + 1, dtype=np.int32)
    labels[parcel.ravel()] = network.ravel()
    scores = of.sidecar("networks")["Scores"]
    plot_networks(
        path,
        labels[1:],
        parcel,
        affine,
        parcels.network_index,
        {name: row["accuracy"] for name, row in scores.items() if name != "spatial_null_mean"},
        background=of.background,
        title="Networks from the model",
    )


_OF_MODEL: _Drawers = {
    "embeddings": ("embeddings", _embeddings),
    "reconstruction": ("reconstruction", _reconstruction),
    "networks": ("networks", _networks),
}


def _interpolated(of: _Recording) -> tuple[NDArray[np.bool_], float, float]:
    """Which volumes were interpolated (T,), and the sampling interval and the first time in s."""
    sidecar = of.sidecar(of.robust)
    tr, start = float(sidecar["RepetitionTime"]), float(sidecar.get("StartTime") or 0)
    _, values = of.table(of.robust)
    return _marked(sidecar.get("InterpolatedVolumes"), len(values)), tr, start


def _marked(places: object, n: int) -> NDArray[np.bool_]:
    """(n,) True at some places, counted from 0."""
    marked = np.zeros(n, dtype=bool)
    marked[[int(place) for place in places] if isinstance(places, list) else []] = True
    return marked


def _float(text: str) -> float:
    return float("nan") if text == "n/a" else float(text)
