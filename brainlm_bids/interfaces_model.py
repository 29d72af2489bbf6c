"""The Nipype interface of the model stage: robust series in, BrainLM's derivatives out."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces import Kernel, KernelInputSpec, load_image

NETWORK_SCORES = ("accuracy", "adjusted_rand", "knn_accuracy", "majority")
CONTROL = "random:tiny"


@lru_cache(maxsize=2)
def _loaded(source: str, seed: int, device: str) -> Any:
    """One model per process, shared by the runs that it serves."""
    from brainlm_bids.model.checkpoint import load_model

    return load_model(source, seed=seed, device=device)


class _RunModelInputs(KernelInputSpec):
    context = traits.Dict(mandatory=True)
    robust_tsv = File(exists=True, mandatory=True)
    atlas = File(exists=True, mandatory=True)
    source = traits.Str(mandatory=True, desc="folder of a checkpoint, or random:<name>")
    label = traits.Str(mandatory=True)
    mask_ratio = traits.List(traits.Float, mandatory=True)
    input_gain = traits.Float(mandatory=True)
    seed = traits.Int(mandatory=True)
    configuration = traits.Str(mandatory=True)
    device = traits.Enum("auto", "cpu", "cuda", usedefault=True, nohash=True)


class RunModel(Kernel):
    """Embeddings, reconstruction and networks of one run by one model."""

    input_spec = _RunModelInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        import torch

        torch.set_num_threads(self.inputs.n_threads)
        self._naming = Naming(**self.inputs.context["naming"])
        self._names, series = outputs.read_tsv(Path(self.inputs.robust_tsv))
        self._parcels = resources.parcels()
        if tuple(self._names) != self._parcels.names:
            raise UserError(f"{self.inputs.robust_tsv}: its columns are not the 424 A424 parcels")
        self._series = series.astype(np.float32)
        sidecar = outputs.read_json(Path(self.inputs.robust_tsv).with_suffix(".json"))
        self._tr, self._start = float(sidecar["RepetitionTime"]), float(sidecar["StartTime"])
        self._model = _loaded(self.inputs.source, self.inputs.seed, self.inputs.device)
        self._written: list[Path] = []
        self._shared = {
            "tr": self._tr,
            "seed": self.inputs.seed,
            "input_gain": self.inputs.input_gain,
        }
        with torch.inference_mode():
            self._embed()
            first = self._reconstruct()
            self._networks(first)
        outputs.write_record(
            Path(self._naming.output_dir),
            self._naming.stem,
            self.inputs.label,
            self.inputs.configuration,
            self._written,
        )

    def _made(self) -> dict[str, Any]:
        context = self.inputs.context
        model = context["models"][self.inputs.label]
        notes = []
        if self._model.untrained:
            notes.append("the model is untrained (random weights): a control, not a result")
        return {
            "Sources": [self._naming.uri(Path(self.inputs.robust_tsv))],
            "Model": {**model, "family": self._model.family, "untrained": self._model.untrained},
            "Atlas": context["atlas"],
            "Template": context["template"],
            "InputGain": self.inputs.input_gain,
            "RandomSeed": self.inputs.seed,
            "WindowVolumes": self._model.window,
            "RepetitionTime": self._tr,
            "Configuration": self.inputs.configuration,
            "Warnings": [*context["warnings"], *notes],
        }

    def _write(self, key: str, names: list[str], columns: Any, **values: Any) -> None:
        path = self._naming.path(key, model=self.inputs.label)
        self._written.append(outputs.write_tsv(path, names, columns))
        self._sidecar(key, **values)

    def _sidecar(self, key: str, **values: Any) -> None:
        path = self._naming.path(key, model=self.inputs.label, extension=".json")
        content = self._naming.sidecar(key, {**self._made(), **values})
        self._written.append(outputs.write_json(path, content))

    def _figure(self, name: str) -> Path:
        path = self._naming.figure(f"{self.inputs.label}{name}")
        self._written.append(path)
        return path

    def _embed(self) -> None:
        from brainlm_bids.model import inference
        from brainlm_bids.report import figures

        found = inference.embed(self._model, self._series, self._parcels.xyz, **self._shared)
        self._n_padded = int(found.n_padded)
        onset = self._start + np.asarray(found.onset)
        width = found.cls.shape[1]
        names = ["onset", "duration", *(f"cls_{k:04d}" for k in range(width))]
        columns = [onset.tolist(), list(found.duration), *found.cls.T.tolist()]
        self._write(
            "embeddings",
            names,
            columns,
            MaskRatio=0.0,
            Pooling="CLS token after the encoder's last layer norm",
            PaddedVolumes=self._n_padded,
            TokenOrderSeed=found.token_order_seed,
            OnsetReference="seconds from the first volume of the source run",
        )
        figures.plot_embeddings(
            self._figure("embeddings"), found.cls, onset, float(found.duration[0])
        )

    def _reconstruct(self) -> NDArray[np.float32]:
        """Metrics for every mask ratio; series and figure for the first, which is returned."""
        from brainlm_bids.model import inference
        from brainlm_bids.report import figures

        rows: list[dict[str, Any]] = []
        found = [
            inference.reconstruct(
                self._model,
                self._series,
                self._parcels.xyz,
                mask_ratio=ratio,
                ridge=True,
                **self._shared,
            )
            for ratio in self.inputs.mask_ratio
        ]
        for ratio, one in zip(self.inputs.mask_ratio, found, strict=True):
            rows += [
                {"mask_ratio": ratio, "predictor": predictor, **scores, "n_windows": one.n_windows}
                for predictor, scores in one.metrics.items()
            ]
        header = ["mask_ratio", "predictor", "mse", "mae", "r2", "pearson_r", "n_windows"]
        self._write("metrics", header, [[row[key] for row in rows] for key in header])
        first = found[0]
        self._write(
            "reconstruction",
            self._names,
            first.series.T.tolist(),
            MaskRatio=self.inputs.mask_ratio[0],
            StartTime=self._start,
            PaddedVolumes=self._n_padded,
        )
        figures.plot_reconstruction(
            self._figure("reconstruction"),
            self._series,
            first.series,
            self._tr,
            first.parcel_r2,
            rows,
            names=self._names,
            title=f"Mask ratio {self.inputs.mask_ratio[0]:g}",
        )
        return np.asarray(first.series)

    def _networks(self, reconstruction: NDArray[np.float32]) -> None:
        from brainlm_bids.report import figures

        scores, labels = {}, {}
        for name, features in self._features(reconstruction).items():
            found = self._cluster(features)
            scores[name] = {key: float(getattr(found, key)) for key in NETWORK_SCORES}
            labels[name] = np.asarray(found.labels)
        self._write_networks(labels["model"], scores)
        atlas, affine = load_image(self.inputs.atlas)
        figures.plot_networks(
            self._figure("networks"),
            labels["model"],
            atlas.astype(np.int32),
            affine,
            self._parcels.network_index,
            {name: values["accuracy"] for name, values in scores.items()},
            title="Seven networks without labels",
        )

    def _features(self, reconstruction: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """What the model says of each parcel, and the two controls that it must beat."""
        from brainlm_bids.model import inference

        with np.errstate(invalid="ignore", divide="ignore"):
            raw = np.nan_to_num(np.corrcoef(self._series.T))
        return {
            "model": inference.parcel_features(
                self._model,
                self._series,
                self._parcels.xyz,
                reconstruction=reconstruction,
                **self._shared,
            ),
            "series": raw,
            "untrained": self._untrained_features(),
        }

    def _untrained_features(self) -> NDArray[Any]:
        from brainlm_bids.model import inference

        control = _loaded(self._control_source(), self.inputs.seed, self.inputs.device)
        return np.asarray(
            inference.parcel_features(control, self._series, self._parcels.xyz, **self._shared)
        )

    def _control_source(self) -> str:
        """The same architecture with random weights where it has a name, else a small one."""
        label = self.inputs.label
        for size in ("13M", "111M", "650M"):
            if label.endswith(size):
                return f"random:{size}"
        return CONTROL

    def _cluster(self, features: NDArray[Any]) -> Any:
        from brainlm_bids.model.networks import parcel_networks

        return parcel_networks(features, self._parcels.network_index, self.inputs.seed)

    def _write_networks(self, labels: NDArray[Any], scores: dict[str, Any]) -> None:
        import nibabel as nb

        atlas, affine = load_image(self.inputs.atlas)
        lookup = np.zeros(len(labels) + 1, dtype=np.uint8)
        lookup[1:] = labels
        path = self._naming.path("networks", model=self.inputs.label)
        with outputs.atomically(path) as temporary:
            image = nb.Nifti1Image(lookup[atlas.astype(np.int32)], affine)
            image.header.set_xyzt_units("mm", "sec")
            image.to_filename(temporary)
        self._written.append(path)
        self._sidecar("networks", Scores=scores, Control=self._control_source())
        networks = self._parcels.network_index
        first = [int(np.flatnonzero(networks == k)[0]) for k in range(1, 8)]
        table = self._naming.path("networks", model=self.inputs.label, extension=".tsv")
        columns: list[list[Any]] = [
            list(range(1, 8)),
            [self._parcels.network[k] for k in first],
            [self._parcels.network_name[k] for k in first],
            [int((labels == k).sum()) for k in range(1, 8)],
        ]
        header = ["index", "abbreviation", "name", "n_parcels"]
        self._written.append(outputs.write_tsv(table, header, columns))
