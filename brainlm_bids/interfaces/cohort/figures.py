"""The figures of the cohort."""

from pathlib import Path

from nipype.interfaces.base import File, TraitedSpec, traits

from brainlm_bids import files, resources
from brainlm_bids.interfaces.cohort.common import GroupInputs, GroupInterface, Plain
from brainlm_bids.parcels import scaling


class _DrawCohortInputs(GroupInputs):
    everyone = traits.List(traits.Dict, mandatory=True, desc="the left out too, with `included`")
    statistics = File(exists=True, mandatory=True)


class DrawCohort(GroupInterface):
    """Quality of the recordings, and the statistics beside those of BrainLM's training."""

    input_spec = _DrawCohortInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.figures.cohort import plot_quality, plot_statistics

        self._begin()
        plot_quality(self._naming.figure("quality"), self.inputs.everyone)
        parcels = resources.parcels()
        stats = scaling.load_stats(Path(self.inputs.statistics), list(parcels.names))
        plot_statistics(
            self._naming.figure("scaling"),
            stats.iqr,
            parcels.network_index,
            [recording["sd_demeaned"] for recording in self._recordings],
            [self._robust_sd(recording) for recording in self._recordings],
        )

    def _robust_sd(self, recording: Plain) -> float | None:
        sidecar = self._of(recording).path("cohort_robust", extension=".json")
        return files.read_json(sidecar)["StandardDeviationRobust"]
