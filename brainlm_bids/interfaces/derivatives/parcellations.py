"""The tables of a parcellation beside A424: coverage, denoised series, connectivity."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.bids.context import ParcellationInfo, RunContext
from brainlm_bids.bids.outputs import parcellation_stage, write_record
from brainlm_bids.interfaces import payloads
from brainlm_bids.notices import Kind, Notice, notice, to_json
from brainlm_bids.parcels.operator import Coverage
from brainlm_bids.resources import Labelled

LOG = logging.getLogger("brainlm_bids")

# Warnings about A424, its parcels, or what BrainLM makes of its series.
OF_A424 = frozenset(
    {
        *(Kind.APPROXIMATE_ATLAS, Kind.CUSTOM_ATLAS, Kind.SPACE_MISMATCH),
        *(Kind.LESION_PARCELS, Kind.MISSING_FREQUENCIES),
    }
)
# Below this share of parcels with a series there is a warning: labels may lie in another space.
LOW_COVERED = 0.5

Made = Callable[[dict[str, Any], float | None, dict[str, float]], dict[str, Any]]


def coverage_columns(
    coverage: Coverage, index: NDArray[np.int64], names: Sequence[str]
) -> tuple[list[str], list[list[Any]]]:
    """Header and columns of a table of coverage, a row per parcel."""
    columns = [index.tolist(), list(names), coverage.n_voxels.tolist()]
    columns += [coverage.n_covered.tolist(), coverage.fraction.tolist()]
    header = ["index", "name", "n_voxels", "n_covered", "fraction"]
    if coverage.in_lesion is not None:
        header.append("lesion")
        columns.append(coverage.in_lesion.tolist())
    return header, columns


@dataclass(frozen=True)
class ParcelTable:
    """What is to be written of a run about one parcellation.

    Attributes
    ----------
    context
        Of the run.
    info
        The parcellation.
    coverage
        How much of each of its parcels lies in the run.
    series
        (T, P), denoised; NaN before the steady state, in bad volumes and in parcels without data.
    """

    context: RunContext
    info: ParcellationInfo
    coverage: Coverage
    series: NDArray[np.float64]

    def write(self, n_dummy: int, warnings: Sequence[Notice], made: Made) -> None:
        """Write the tables, their sidecars, and the record that they are complete.

        Parameters
        ----------
        n_dummy
            Volumes before the steady state.
        warnings
            About the run.
        made
            Makes the sidecar of a denoised series, see `WriteFunctional`.
        """
        from brainlm_bids.preproc import steps

        naming = replace(self.context.naming, atlas=self.info.atlas.name)
        labelled = payloads.load(Labelled, self.info.labels)
        names = [str(name) for name in labelled.names]
        spaces = replace(self.context, atlas=self.info.atlas).spaces()
        summary = steps.summarise_series(self.series, n_dummy)
        missing = {names[k]: self.coverage.fraction[k] for k in np.flatnonzero(summary.missing)}
        said = [*self.info.warnings, *self._low_coverage(summary.missing)]
        said += [one for one in warnings if one.kind not in OF_A424]
        sources = {"Sources": self.context.sources}
        header, columns = coverage_columns(self.coverage, labelled.index, names)
        described = {
            **made(spaces, summary.demeaned_sd, missing),
            "Configuration": self.info.configuration,
            "Warnings": to_json(said),
        }
        derived = {"Sources": [naming.uri(naming.path("denoised"))], **spaces}
        sidecars = {"coverage": sources | spaces, "denoised": sources | described}
        sidecars["denoised"] |= self.context.input_data.about_series()
        sidecars["pearson"] = derived
        written = [
            files.write_tsv(naming.path("coverage"), header, columns),
            files.write_series(naming.path("denoised"), names, self.series),
            files.write_matrix(naming.path("pearson"), names, summary.connectivity),
        ]
        for key, values in sidecars.items():
            path = naming.path(key, extension=".json")
            written.append(files.write_json(path, naming.sidecar(key, values)))
        stage = parcellation_stage(self.info.atlas.name)
        out = Path(naming.output_dir)
        write_record(out, naming.stem, stage, self.info.configuration, written)

    def _low_coverage(self, missing: NDArray[np.bool_]) -> list[Notice]:
        share = 1.0 - float(missing.mean())
        if share >= LOW_COVERED:
            return []
        name = self.info.atlas.name
        text = (
            f"Only {share:.0%} of the parcels of {name} have a series: the others lie outside of "
            "the brain of the run. Check that its labels are in the space of the template."
        )
        LOG.warning("%s: %s", self.context.naming.stem, text)
        return [notice(Kind.PARCELLATION, text)]
