"""The Nipype interface of the model: from a robust series to the files of BrainLM."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.context import RecordingContext, from_plain
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.array_interface import (
    ArrayInputSpec,
    ArrayInterface,
    figures_trait,
)
from brainlm_bids.interfaces.context import Record
from brainlm_bids.interfaces.images import load_image
from brainlm_bids.interfaces.software import software_versions
from brainlm_bids.notices import Notice, to_json
from brainlm_bids.report import drawing
from brainlm_bids.settings import Settings

if TYPE_CHECKING:
    from brainlm_bids.model.embedding import Embeddings
    from brainlm_bids.model.networks import Networks
    from brainlm_bids.model.reconstruction import Reconstruction
    from brainlm_bids.model.steps import ModelResults

POOLINGS = {
    "cls": "CLS token after the encoder's last layer norm",
    "mean": "mean over the other tokens after the encoder's last layer norm",
    "max": "maximum over the other tokens after the encoder's last layer norm",
}


@lru_cache(maxsize=2)
def loaded_model(source: str, seed: int, device: str, precision: str) -> Any:
    """Load a model; one per process, shared by the runs that it serves.

    Parameters
    ----------
    source
        Folder of a checkpoint, or `random:<name>`.
    seed
        Seed of random weights.
    device, precision
        See `model.placement.place`.

    Returns
    -------
    LoadedModel
        The network.
    """
    from brainlm_bids.model.checkpoint import load_model

    return load_model(source, seed=seed, device=device, precision=precision)


@lru_cache(maxsize=1)
def untrained_control(source: str, seed: int, device: str, precision: str) -> Any:
    """Make the same architecture with random weights, as a control of the model.

    Parameters
    ----------
    source
        Folder of a checkpoint, or `random:<name>`.
    seed
        Seed of the model; the control has another one.
    device, precision
        See `model.placement.place`.

    Returns
    -------
    LoadedModel
        The untrained network.
    """
    from brainlm_bids.model.checkpoint import control_seed, untrained_twin

    return untrained_twin(loaded_model(source, seed, device, precision), control_seed(seed))


class _RunModelInputs(ArrayInputSpec):
    context = Record(RecordingContext, mandatory=True)
    robust_tsv = File(exists=True, mandatory=True)
    atlas = File(exists=True, mandatory=True)
    template = File(exists=True, nohash=True, desc="T1w, beneath the networks of the figures")
    source = traits.Str(mandatory=True, desc="folder of a checkpoint, or random:<name>")
    label = traits.Str(mandatory=True)
    mask_ratio = traits.List(traits.Float, mandatory=True)
    input_gain = traits.Float(mandatory=True)
    seed = traits.Int(mandatory=True)
    configuration = traits.Str(mandatory=True)
    pooling = traits.Str(Settings.pooling, usedefault=True)
    window_stride = traits.Either(None, traits.Int, desc="volumes; None: the window")
    token_orders = traits.Int(Settings.token_orders, usedefault=True)
    save_tokens = traits.Bool(Settings.save_tokens, usedefault=True)
    precision = traits.Str(Settings.precision, usedefault=True)
    device = traits.Str(Settings.device, usedefault=True, nohash=True)
    figures = figures_trait()


class RunModel(ArrayInterface):
    """Embeddings, reconstruction and networks of one run by one model."""

    input_spec = _RunModelInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        import torch

        torch.set_num_threads(self.inputs.n_threads)
        self._context = from_plain(RecordingContext, self.inputs.context)
        self._naming = self._context.naming
        self._parcels = resources.parcels()
        self._names, self._series = self._read_series()
        sidecar = files.read_json(Path(self.inputs.robust_tsv).with_suffix(".json"))
        self._tr, self._start = float(sidecar["RepetitionTime"]), float(sidecar["StartTime"])
        self._source_tr = sidecar.get("SourceRepetitionTime")
        self._bad = np.zeros(len(self._series), dtype=bool)
        self._bad[[int(row) for row in sidecar.get("InterpolatedVolumes") or ()]] = True
        self._loading = (
            self.inputs.source,
            self.inputs.seed,
            self.inputs.device,
            self.inputs.precision,
        )
        self._model = loaded_model(*self._loading)
        self._written: list[Path] = []
        self._warnings: list[Notice] = []
        results = self._run()
        self._write_embeddings(results.embeddings)
        self._write_reconstructions(results.reconstructions)
        self._write_networks(results.networks)
        self._draw()
        outputs.write_record(
            Path(self._naming.output_dir),
            self._naming.stem,
            outputs.model_stage(self.inputs.label, self._naming.scaling),
            self.inputs.configuration,
            self._written,
        )

    def _run(self) -> "ModelResults":
        from brainlm_bids.model import steps

        options = steps.ModelOptions(
            seed=self.inputs.seed,
            mask_ratios=tuple(self.inputs.mask_ratio),
            input_gain=self.inputs.input_gain,
            pooling=self.inputs.pooling,
            stride=self.inputs.window_stride or None,
            token_orders=self.inputs.token_orders,
            tokens=self.inputs.save_tokens,
        )
        try:
            return steps.run_model(
                self._model,
                untrained_control(*self._loading),
                self._series,
                self._parcels.xyz,
                self._parcels.network_index,
                tr=self._tr,
                options=options,
            )
        except UserError as error:
            raise UserError(f"{self.inputs.robust_tsv}: {error}") from None

    def _read_series(self) -> tuple[list[str], NDArray[np.float32]]:
        """Names of the parcels, and the series (T, 424)."""
        path = Path(self.inputs.robust_tsv)
        names, series = files.read_tsv(path)
        if sorted(names) != sorted(self._parcels.names):
            raise UserError(
                f"{path}: has {len(names)} columns that are not the {len(self._parcels.names)} "
                "parcels of A424; their names are in the atlas's dseg.tsv"
            )
        if tuple(names) != self._parcels.names:
            raise UserError(f"{path}: its columns are the parcels of A424 in another order")
        constant = (np.ptp(series, axis=0) == 0) & (series[0] != 0)
        if constant.any():
            first = names[int(np.flatnonzero(constant)[0])]
            raise UserError(
                f"{path}: {int(constant.sum())} parcels are constant but not 0, {first} the first; "
                "scale the series again"
            )
        return names, series.astype(np.float32)

    def _made(self) -> dict[str, Any]:
        model = self._context.models[self.inputs.label]
        warnings = [
            *self._context.warnings,
            *model.warnings,
            *([resources.UNTRAINED] if self._model.untrained else []),
            *self._warnings,
        ]
        return {
            "Sources": [self._naming.uri(Path(self.inputs.robust_tsv))],
            "Model": {
                **model.sidecar(),
                "family": self._model.family,
                "untrained": self._model.untrained,
            },
            **self._context.spaces(),
            "InputGain": self.inputs.input_gain,
            "RandomSeed": self.inputs.seed,
            "WindowVolumes": self._model.window,
            "SoftwareVersions": software_versions(),
            "Device": self._model.placement.device,
            "Precision": self._model.placement.precision,
            "RepetitionTime": self._tr,
            "SourceRepetitionTime": self._source_tr,
            "Configuration": self.inputs.configuration,
            "Warnings": to_json(dict.fromkeys(warnings)),
        }

    def _write(self, key: str, names: list[str], columns: Any, **values: Any) -> None:
        path = self._naming.path(key, model=self.inputs.label)
        self._written.append(files.write_tsv(path, names, columns))
        self._sidecar(key, **values)

    def _write_matrix(self, key: str, matrix: NDArray[Any], **values: Any) -> None:
        path = self._naming.path(key, model=self.inputs.label)
        self._written.append(files.write_matrix(path, self._names, matrix))
        self._sidecar(key, **values)

    def _sidecar(self, key: str, **values: Any) -> None:
        path = self._naming.path(key, model=self.inputs.label, extension=".json")
        content = self._naming.sidecar(key, {**self._made(), **values})
        self._written.append(files.write_json(path, content))

    def _draw(self) -> None:
        drawing.forget(self._naming, "model", model=self.inputs.label)
        if drawing.wanted(self.inputs.figures, self._naming, self.inputs.label):
            template = self.inputs.template
            self._written += drawing.draw_model(
                self._naming,
                self.inputs.label,
                atlas=Path(self.inputs.atlas),
                background=load_image(template) if template else None,
            )

    def _write_embeddings(self, embeddings: "Embeddings") -> None:
        from brainlm_bids.model.windows import padding_warnings

        options = self.inputs
        shown = self._model.network.sees_padding
        self._warnings += padding_warnings(embeddings.n_padded, self._model.window, shown=shown)
        onset = self._start + np.asarray(embeddings.onset)
        dimensions = [f"{options.pooling}_{k:04d}" for k in range(embeddings.vectors.shape[1])]
        self._embedding_note = {
            "MaskRatio": 0.0,
            "Pooling": POOLINGS[options.pooling],
            "WindowStride": options.window_stride or self._model.window,
            "PaddedVolumes": embeddings.n_padded,
            "Padding": ("mirror image" if shown else "zeros") if embeddings.n_padded else None,
            "TokenOrderSeed": embeddings.token_order_seed,
            "TokenOrders": 1 if embeddings.spread is None else options.token_orders,
            "TokenOrderSpread": embeddings.spread,
            "OnsetReference": "seconds from the first volume of the source run",
        }
        self._write(
            "embeddings",
            ["onset", "duration", *dimensions],
            [onset.tolist(), list(embeddings.duration), *embeddings.vectors.T.tolist()],
            **self._embedding_note,
        )
        extent = [[onset[0]], [onset[-1] + embeddings.duration[-1] - onset[0]], [len(onset)]]
        self._write(
            "recording_embedding",
            ["onset", "duration", "n_windows", *dimensions],
            [*extent, *([value] for value in embeddings.recording.tolist())],
            **self._embedding_note,
        )
        if embeddings.tokens is not None:
            self._write_tokens(embeddings.tokens, onset)
        if embeddings.attention is not None:
            self._write_matrix("attention", embeddings.attention, **self._embedding_note)

    def _write_tokens(self, tokens: NDArray[np.float16], onset: NDArray[np.float64]) -> None:
        """Write an npz that names its axes: parcels or rows of patches, and time patches."""
        rows = "parcel" if self._model.network.rows_are_parcels else "patch_row"
        arrays = {
            "tokens": tokens,
            "axes": np.array(["window", rows, "time_patch", "dimension"]),
            "onset": onset,
        }
        if rows == "parcel":
            arrays["parcel"] = np.array(self._names)
        path = self._naming.path("tokens", model=self.inputs.label)
        with files.atomically(path) as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        self._written.append(path)
        self._sidecar("tokens", **self._embedding_note)

    def _write_reconstructions(self, reconstructions: "tuple[Reconstruction, ...]") -> None:
        """Metrics for every mask ratio; the series for the first."""
        from brainlm_bids.model.reconstruction import METRICS

        pooled: list[dict[str, Any]] = []
        parcels: list[dict[str, Any]] = []
        for ratio, result in zip(self.inputs.mask_ratio, reconstructions, strict=True):
            for predictor, scores in result.metrics.items():
                key = {"mask_ratio": ratio, "predictor": predictor}
                pooled.append({**key, **scores, "n_windows": result.n_windows})
                table = result.parcel_metrics[predictor]
                parcels += [
                    {**key, "name": name, **{metric: table[metric][p] for metric in METRICS}}
                    for p, name in enumerate(self._names)
                ]
        self._write_rows("metrics", pooled, MaskRatios=list(self.inputs.mask_ratio))
        self._write_rows("parcel_metrics", parcels)
        first = reconstructions[0]
        note = {"MaskRatio": self.inputs.mask_ratio[0], "StartTime": self._start}
        columns = first.series.T.tolist()
        self._write("reconstruction", self._names, columns, PaddedVolumes=first.n_padded, **note)

    def _write_rows(self, key: str, rows: list[dict[str, Any]], **values: Any) -> None:
        self._write(key, list(rows[0]), [[row[name] for row in rows] for name in rows[0]], **values)

    def _write_networks(self, networks: "dict[str, Networks]") -> None:
        labels = networks["model"].labels
        scores = {features: result.scores() for features, result in networks.items()}
        scores |= resources.spatial_null()
        atlas, affine = load_image(self.inputs.atlas)
        self._write_network_image(labels, scores, atlas, affine)
        self._write_network_table(labels)

    def _write_network_image(
        self,
        labels: NDArray[Any],
        scores: dict[str, Any],
        atlas: NDArray[Any],
        affine: NDArray[np.float64],
    ) -> None:
        import nibabel as nb

        lookup = np.zeros(len(labels) + 1, dtype=np.uint8)
        lookup[1:] = labels
        path = self._naming.path("networks", model=self.inputs.label)
        with files.atomically(path) as temporary:
            image = nb.Nifti1Image(lookup[atlas.astype(np.int32)], affine)
            image.header.set_xyzt_units("mm", "sec")
            image.to_filename(temporary)
        self._written.append(path)
        self._sidecar("networks", Scores=scores)

    def _write_network_table(self, labels: NDArray[Any]) -> None:
        from brainlm_bids.figures.networks import network_colours

        networks = self._parcels.network_index
        first = [int(np.flatnonzero(networks == k)[0]) for k in range(1, 8)]
        table = self._naming.path("networks", model=self.inputs.label, extension=".tsv")
        columns: list[list[Any]] = [
            list(range(1, 8)),
            [self._parcels.network_name[k] for k in first],
            [self._parcels.network[k] for k in first],
            network_colours(np.arange(1, 8)),
            [int((labels == k).sum()) for k in range(1, 8)],
        ]
        header = ["index", "name", "abbreviation", "color", "n_parcels"]
        self._written.append(files.write_tsv(table, header, columns))
