"""Functional connectivity, and the networks of the cohort."""

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.figures import palette
from brainlm_bids.interfaces.cohort.common import KEYS, GroupInputs, GroupInterface, key_columns
from brainlm_bids.interfaces.images import load_image

# Controls that are made from the parcels' places, and not from a recording
SAME_FOR_ALL = ("coordinates", "spatial_null_mean", "spatial_null_95")


class _ConnectivityOutputs(TraitedSpec):
    features = File(desc="(N, 89676) float32: Fisher z of the upper triangle, NaN if unknown")
    networks = File(desc="labels (N, 424) from connectivity, by the method used for the model")


class Connectivity(GroupInterface):
    """Functional connectivity of every recording: the baseline of decoding and of networks."""

    output_spec = _ConnectivityOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.model.networks import parcel_labels
        from brainlm_bids.parcels.connectivity import fisher_z

        self._begin()
        reference = resources.parcels().network_index
        shape = (len(self._recordings), len(reference) * (len(reference) - 1) // 2)
        path = folder / "connectivity.npy"
        features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        labels = np.zeros((len(self._recordings), len(reference)), dtype=np.int64)
        for row, recording in enumerate(self._recordings):
            _, matrix = files.read_matrix(self._of(recording).existing("pearson"))
            features[row] = fisher_z(matrix)
            labels[row] = parcel_labels(matrix, reference)
        features.flush()
        np.save(folder / "networks.npy", labels)
        self._results["features"] = str(path)
        self._results["networks"] = str(folder / "networks.npy")


class _NetworksInputs(GroupInputs):
    label = traits.Str(mandatory=True)
    atlas = File(exists=True, mandatory=True)
    template = File(exists=True, desc="T1w, beneath the networks of the figures")
    series_networks = File(exists=True, mandatory=True)
    rows = traits.List(traits.Int, mandatory=True, desc="of series_networks, for the recordings")


class GroupNetworks(GroupInterface):
    """Networks of all recordings and their consensus, as a table and as images."""

    input_spec = _NetworksInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.cohort.consensus import consensus

        self._begin()
        self._label = self.inputs.label
        self._atlas, self._affine = load_image(self.inputs.atlas)
        subjects = [recording["participant_id"] for recording in self._recordings]
        series = np.load(self.inputs.series_networks)[self.inputs.rows]
        reference = resources.parcels().network_index
        voted = consensus(self._labels(), subjects, reference)
        self._scores(voted.labels, consensus(series, subjects, reference).labels)
        self._images(voted.labels, voted.probability)
        self._figures(voted.labels, voted.probability)

    def _labels(self) -> NDArray[np.int64]:
        """(N, 424) from the recordings' images, at one voxel of each parcel."""
        import nibabel as nb

        labels, first = np.unique(self._atlas.astype(np.int64).ravel(), return_index=True)
        where = np.zeros(len(resources.parcels().names), dtype=np.int64)
        where[labels[labels > 0] - 1] = first[labels > 0]
        rows = []
        for recording in self._recordings:
            path = self._of(recording).path("networks", model=self._label)
            image: Any = nb.load(path)
            rows.append(np.asarray(image.dataobj).ravel()[where])
        return np.stack(rows).astype(np.int64)

    def _scores(self, model: NDArray[np.int64], series: NDArray[np.int64]) -> None:
        from brainlm_bids.cohort.consensus import agreement
        from brainlm_bids.model.networks import MEASURES

        reference = resources.parcels().network_index
        controls: dict[str, dict[str, float]] = {}
        rows: list[dict[str, Any]] = []
        for recording in self._recordings:
            keys = {name: column[0] for name, column in key_columns([recording]).items()}
            path = self._of(recording).path("networks", model=self._label, extension=".json")
            for features, scores in files.read_json(path)["Scores"].items():
                if features in SAME_FOR_ALL:
                    controls[features] = scores
                else:
                    rows.append({**keys, "features": features, **scores})
        compared = {
            "model": agreement(model, reference),
            "series": agreement(series, reference),
        }
        for kind, table in (("consensus", compared), ("control", controls)):
            rows += [
                {"participant_id": kind, "features": features, **scores}
                for features, scores in table.items()
            ]
        names = (*KEYS, "features", *MEASURES)
        self._table("group_networks", {name: [row.get(name) for row in rows] for name in names})
        self._consensus = {**compared, **controls}

    def _images(self, labels: NDArray[np.int64], probability: NDArray[np.float64]) -> None:
        index = self._atlas.astype(np.int64)
        dseg = np.concatenate([[0], labels])[index].astype(np.uint8)
        shares = np.hstack([np.zeros((len(probability), 1)), probability])
        probseg = np.moveaxis(shares[:, index], 0, 3).astype(np.float32)
        for key, data in (("consensus", dseg), ("network_probability", probseg)):
            self._image(key, data)
        self._sidecar("consensus", Scores=self._consensus)
        self._sidecar("network_probability", LabelMap=network_names())
        counts = [int((labels == k).sum()) for k in range(1, 8)]
        path = self._naming.path("consensus", model=self._label, extension=".tsv")
        columns: list[list[Any]] = [list(range(1, 8)), network_names(), counts]
        files.write_tsv(path, ["index", "name", "n_parcels"], columns)

    def _image(self, key: str, data: NDArray[Any]) -> None:
        import nibabel as nb

        image = nb.Nifti1Image(data, self._affine)
        image.header.set_xyzt_units("mm", "sec")
        with files.atomically(self._naming.path(key, model=self._label)) as temporary:
            image.to_filename(temporary)

    def _figures(self, labels: NDArray[np.int64], probability: NDArray[np.float64]) -> None:
        from brainlm_bids.figures.cohort import plot_probabilities
        from brainlm_bids.figures.model import plot_networks

        atlas, reference = self._atlas.astype(np.int32), resources.parcels().network_index
        background = load_image(self.inputs.template) if self.inputs.template else None
        plot_networks(
            self._naming.figure("consensus", model=self._label),
            labels,
            atlas,
            self._affine,
            reference,
            {
                palette.NETWORK_FEATURES[name]: scores["accuracy"]
                for name, scores in self._consensus.items()
                if name != "spatial_null_mean"
            },
            background=background,
            title="Consensus of the cohort",
        )
        plot_probabilities(
            self._naming.figure("network_probability", model=self._label),
            probability,
            atlas,
            self._affine,
            background=background,
        )


def network_names() -> list[str]:
    """Return the names of the seven networks.

    Returns
    -------
    list of str
        In the order of their numbers.
    """
    parcels = resources.parcels()
    first = [int(np.flatnonzero(parcels.network_index == k)[0]) for k in range(1, 8)]
    return [parcels.network_name[k] for k in first]
