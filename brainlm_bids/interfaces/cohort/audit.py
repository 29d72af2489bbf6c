"""What else is in an embedding: site, scanner, motion, and how reliable it is."""

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.names import parse
from brainlm_bids.bids.outputs import model_stage
from brainlm_bids.cohort.maps import PCA, PlaneMap
from brainlm_bids.cohort.properties import Property
from brainlm_bids.interfaces.cohort.common import (
    GroupInputs,
    GroupInterface,
    Plain,
    key_columns,
)
from brainlm_bids.interfaces.cohort.tables import load_planes

# Entities of a recording that are not among those that tell it from others of its session.
_NOT_LABELS = {"sub", "ses", "task"}


class _AuditInputs(GroupInputs):
    label = traits.Str(mandatory=True)
    embedding = File(exists=True, mandatory=True, desc="(N, D)")
    untrained = File(exists=True, desc="(N, D) the control")
    connectivity = File(exists=True, mandatory=True, desc="(M, E) of the cohort's recordings")
    rows = traits.List(traits.Int, mandatory=True, desc="of the connectivity, for the N recordings")
    dimensions = traits.List(traits.Str, desc="names of the D dimensions")
    planes = File(exists=True, mandatory=True, desc="maps of the embedding, see `load_planes`")
    properties = traits.List(traits.Dict, mandatory=True, desc="name, values or None, levels")
    not_measured = traits.Dict(mandatory=True, desc="property -> why nothing is said of it")
    notes = traits.Dict(mandatory=True, desc="property -> what was assumed about its values")
    seed = traits.Int(mandatory=True)
    configuration = traits.Str(mandatory=True)


class Audit(GroupInterface):
    """Tables of what one model's embedding holds besides, a figure, and the record."""

    input_spec = _AuditInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.figures.audit import plot_audit

        self._begin()
        self._label = self.inputs.label
        features = self._features()
        maps = self._maps(features)
        distances = parcel_distances()
        confounded, couplings = self._confounding(features, distances)
        reliable, iccs, written = self._reliability(features)
        written.append(self._table_of(confounded, "group_confounding", self._about()))
        motion = couplings.get("embedding")
        written += [maps, self._dimensions(iccs.get("embedding"), motion)]
        figure = self._naming.figure("audit", model=self._label)
        coupled = couplings.get("connectivity")
        correlations = None if coupled is None else coupled.correlations
        if confounded or reliable:
            plot_audit(figure, confounded, distances, correlations, iccs, reliable)
            written.append(figure)
        else:
            figure.unlink(missing_ok=True)
        outputs.write_record(
            Path(self._naming.output_dir),
            self._naming.stem,
            model_stage(self._label, self._naming.scaling, "audit"),
            self.inputs.configuration,
            written,
        )

    def _features(self) -> dict[str, NDArray]:
        """Kinds of features, in the order of the tables."""
        given, rows = self.inputs, list(self.inputs.rows)
        connectivity = np.load(given.connectivity, mmap_mode="r")
        if rows != list(range(len(connectivity))):
            connectivity = connectivity[rows]
        features = {"embedding": np.load(given.embedding), "connectivity": connectivity}
        if isdefined(given.untrained):
            features["untrained"] = np.load(given.untrained)
        return features

    def _confounding(self, features: dict[str, NDArray], distances: NDArray) -> tuple[Any, Any]:
        from brainlm_bids.cohort.audit import confounding

        seed = self.inputs.seed
        return confounding(features, self._properties, self._people, distances, seed=seed)

    @property
    def _properties(self) -> list[Property]:
        return [
            Property(one["name"], np.array(one["values"], dtype=np.float64), tuple(one["levels"]))
            for one in self.inputs.properties
        ]

    @property
    def _people(self) -> list[str]:
        return [recording["participant_id"] for recording in self._recordings]

    def _maps(self, features: dict[str, NDArray]) -> Path:
        """Coordinates of all recordings in the maps of all kinds of features."""
        from brainlm_bids.cohort.maps import about_method, plane_maps

        seed = self.inputs.seed
        columns: dict[str, Any] = {key: list(v) for key, v in key_columns(self._recordings).items()}
        about: Plain = {}
        for kind, values in features.items():
            own = kind == "embedding"
            planes = load_planes(Path(self.inputs.planes)) if own else plane_maps(values, seed=seed)
            for plane in planes:
                name = f"{kind}_{plane.method}"
                columns |= {f"{name}_{k + 1}": plane.points[:, k].tolist() for k in range(2)}
                about[name] = {"Features": kind, **about_method(plane.method, seed)}
                if plane.method == PCA:  # distances in a UMAP have no variance to be shared
                    about[name] |= self._shares_of(plane)
        return self._table("group_map", columns, Maps=about)

    def _shares_of(self, plane: PlaneMap) -> Plain:
        """How much of a map each axis holds, and how much of it goes with each property."""
        from brainlm_bids.cohort.maps import map_shares

        seed = self.inputs.seed
        shares = map_shares(plane.points, self._properties, self._people, seed=seed)
        return {
            "VarianceOfAxes": list(plane.shares),
            "VarianceShares": {
                one: {"AboveChance": share.adjusted, "P": share.p}
                for one, share in shares.items()
                if np.isfinite(share.adjusted)
            },
        }

    def _reliability(
        self, features: dict[str, NDArray]
    ) -> tuple[list[Plain], dict[str, NDArray], list[Path]]:
        from brainlm_bids.cohort.audit import MOTION, reliability
        from brainlm_bids.cohort.reliability import MINIMUM_PAIRS, find_pairs

        names = [parse(recording["stem"]).entities for recording in self._recordings]
        pairs = find_pairs(
            [recording["participant_id"] for recording in self._recordings],
            [recording["session_id"] for recording in self._recordings],
            [recording["task"] for recording in self._recordings],
            ["_".join(f"{k}-{v}" for k, v in one.items() if k not in _NOT_LABELS) for one in names],
        )
        rows: list[Plain] = []
        iccs: dict[str, NDArray] = {}
        about: Plain = {}
        if pairs is None:
            about["NotMeasured"] = (
                f"fewer than {MINIMUM_PAIRS} subjects have two sessions, or two runs of one "
                "session, with the same task"
            )
        else:
            compared = dict(features)
            for name in (MOTION, "coverage"):
                column = [recording[name] for recording in self._recordings]
                if any(value is not None for value in column):
                    compared[name] = np.array(column, dtype=np.float64)[:, None]
            rows, iccs = reliability(compared, pairs, seed=self.inputs.seed)
            stems = [recording["stem"] for recording in self._recordings]
            about["Recordings"] = [[stems[row] for row in pair] for pair in pairs.rows.T]
        return rows, iccs, [self._table_of(rows, "group_reliability", about)]

    def _about(self) -> Plain:
        from brainlm_bids.cohort import audit, permanova, qc_fc

        return {
            "NotMeasured": self.inputs.not_measured,
            "Notes": self.inputs.notes,
            "PermutationsOfVarianceShare": permanova.PERMUTATIONS,
            "PermutationsOfCorrelations": qc_fc.PERMUTATIONS,
            "PermutationsOfPrediction": audit.PERMUTATIONS,
        }

    def _table_of(self, rows: list[Plain], key: str, about: Plain) -> Path:
        """A table; with its header alone if there is nothing to say."""
        from brainlm_bids.cohort.audit import CONFOUNDING_COLUMNS, RELIABILITY_COLUMNS

        confounding = key == "group_confounding"
        header = CONFOUNDING_COLUMNS if confounding else RELIABILITY_COLUMNS
        return self._table(key, {name: [row[name] for row in rows] for name in header}, **about)

    def _dimensions(self, icc: NDArray | None, motion: Any) -> Path:
        """A row per dimension of the embedding: its ICC, and its correlation with motion."""
        names = list(self.inputs.dimensions)
        unknown = np.full(len(names), np.nan)
        columns = {
            "dimension": names,
            "icc": (unknown if icc is None else icc).tolist(),
            "r_mean_fd": (unknown if motion is None else motion.correlations).tolist(),
        }
        return self._table("group_dimensions", columns)


def parcel_distances() -> NDArray[np.float64]:
    """Distance between the parcels of each connection.

    Returns
    -------
    ndarray
        (89676,) in mm, in the order of the connectivity features.
    """
    xyz = resources.parcels().xyz.astype(np.float64)
    first, second = np.triu_indices(len(xyz), k=1)
    return np.asarray(np.linalg.norm(xyz[first] - xyz[second], axis=1))
