"""The results folder of an experiment: which recordings are complete, and writing the files.

There is one experiment per folder. A recording is the unit of failure and of resumption: the same
command, given again, computes what is missing. Other parameters are refused, so that nothing is
overwritten and a table never mixes two experiments.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from brainlm_bids import __version__, files, resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.dataset import BIDS_VERSION, CODE_URL, write_dataset_files
from brainlm_bids.bids.names import in_words
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.errors import UserError
from brainlm_bids.messages import tell
from brainlm_bids.model.checkpoint import LoadedModel, load_model
from brainlm_bids.notices import to_json
from brainlm_bids.progress import SPACING, Progress
from brainlm_bids.resources import ModelResource
from brainlm_bids.settings import configuration_hash
from brainlm_bids.training.run_folder import claim

# Options that may differ when an experiment is resumed: they change no result or add recordings.
FREE = frozenset(
    {"results", "device", "offline", "participant_label", "session_label", "task_id", "run_id"}
)


class Results:
    """Output folder of an experiment, and the fields that all its sidecars share."""

    def __init__(self, folder: Path, command: str, options: Any) -> None:
        """Claim the folder for one experiment.

        Parameters
        ----------
        folder
            The results folder.
        command
            "forecast" or "perturb".
        options
            Dataclass of the options of the command.

        Raises
        ------
        UserError
            If the folder holds something else.
        """
        self.folder, self.command = folder, command
        self.models = find_models(options.model, options.offline)
        values = {k: v for k, v in dataclasses.asdict(options).items() if k not in FREE}
        values["input"] = str(options.input.resolve())
        weights = {model.label: model.sha256 for model in self.models}
        self.about = {"Command": f"brainlm {command}", "Parameters": values, "Weights": weights}
        claim(folder, self.about)
        self.configuration = configuration_hash({"version": __version__, **self.about})
        self.problems: dict[str, str] = {}
        self.progress = Progress(quiet=True)  # of `each`, while it runs

    def describe(self, source: Path) -> None:
        """Write the files that make the folder a BIDS derivative.

        Parameters
        ----------
        source
            The data set, or the series, that the results derive from.
        """
        link = (source if source.is_dir() else source.parent).resolve().as_uri()
        made = {"Name": "brainlm-bids", "Version": __version__, "CodeURL": CODE_URL}
        values = {
            "Name": f"brainlm {self.command}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [made],
            "SourceDatasets": [{"URL": link}],
            "DatasetLinks": {"source": link},
        }
        files.write_json(self.folder / "dataset_description.json", values)
        described = outputs.describe_labels(self.command)
        write_dataset_files(self.folder, None, described)
        files.write_text(self.folder / "README.md", _README.format(self.command))

    def sidecar(self, naming: Naming, key: str, model: str = "", **values: Any) -> Path:
        """Write the sidecar of an output.

        Parameters
        ----------
        naming
            Names the file.
        key
            Key in the table of outputs.
        model
            Label of the model; none for an output of all models.
        **values
            Fields beside those that all sidecars share.

        Returns
        -------
        Path
            The sidecar.
        """
        path = naming.path(key, model=model, extension=".json")
        shown = [self.resource(model)] if model else self.models
        warnings = list(values.pop("Warnings", []))
        warnings += [warning for resource in shown for warning in resource.warnings]
        common = {
            "Models": {
                resource.label: {**resource.about(), "untrained": resource.random}
                for resource in shown
            },
            "Parameters": self.about["Parameters"],
            "Configuration": self.configuration,
            "Warnings": to_json(warnings),
        }
        return files.write_json(path, naming.sidecar(key, {**values, **common}))

    def resource(self, label: str) -> ModelResource:
        """Return the model of a label.

        Parameters
        ----------
        label
            The model's label in file names.

        Returns
        -------
        ModelResource
            The model.
        """
        return next(model for model in self.models if model.label == label)

    def is_complete(self, item: Recording, stage: str) -> bool:
        """Whether the outputs of a recording exist under this configuration.

        Parameters
        ----------
        item
            The recording.
        stage
            Stage of the experiment.

        Returns
        -------
        bool
            True if nothing is left to compute.
        """
        configuration = self._recording_configuration(item)
        complete = outputs.is_complete(self.folder, item.stem, stage, configuration)
        if complete:
            self.progress.found()
        return complete

    def complete(self, item: Recording, stage: str, written: Sequence[Path]) -> None:
        """Record that a recording is complete, after all its files are written.

        Parameters
        ----------
        item
            The recording.
        stage
            Stage of the experiment.
        written
            Files of the stage.
        """
        outputs.write_record(
            self.folder, item.stem, stage, self._recording_configuration(item), written
        )

    def _recording_configuration(self, item: Recording) -> str:
        status = item.path.stat()
        content = [item.configuration, status.st_size, status.st_mtime_ns]
        return configuration_hash({"experiment": self.configuration, "series": content})

    def each(
        self, items: Sequence[Recording], work: Callable[[Recording], None]
    ) -> list[Recording]:
        """Process all recordings; failures are reported and skipped.

        Parameters
        ----------
        items
            The recordings.
        work
            Processes one of them.

        Returns
        -------
        list of Recording
            Those that did not fail.

        Raises
        ------
        UserError
            If all failed.
        """
        done = []
        with Progress("recording", spacing=SPACING) as self.progress:
            for item in self.progress.each(items, self._title):
                try:
                    work(item)
                except UserError as error:
                    self._failed(item, str(error))
                    continue
                done.append(item)
        if not done:
            raise UserError("no recording could be used")
        return done

    def _title(self, item: Recording) -> str:
        return f"{in_words(item.stem)}: {self.command}"

    def _failed(self, item: Recording, text: str) -> None:
        message = text if text.startswith(item.stem) else f"{item.stem}: {text}"
        self.problems[item.stem] = message
        self.progress.leave_out()
        tell(f"brainlm: failed: {message}")


def find_models(specs: Sequence[str], offline: bool) -> list[ModelResource]:
    """Find the models of --model, before anything is computed.

    Parameters
    ----------
    specs
        Names or folders.
    offline
        Whether downloads are forbidden.

    Returns
    -------
    list of ModelResource
        One for each, in the same order.

    Raises
    ------
    UserError
        If one cannot be found, or two have the same label.
    """
    models = [resources.find_model(spec, offline=offline) for spec in dict.fromkeys(specs)]
    known = [model for model in models if model is not None]
    if not known:
        raise UserError("--model none: this command needs a model")
    labels = [model.label for model in known]
    repeated = next((label for label in labels if labels.count(label) > 1), None)
    if repeated:
        raise UserError(
            f"--model: two models have the label {repeated} in file names; rename a folder"
        )
    return known


def load(model: ModelResource, options: Any) -> LoadedModel:
    """Load the network of a resource on the requested device with the requested precision.

    Parameters
    ----------
    model
        The model.
    options
        Seed, device and precision.

    Returns
    -------
    LoadedModel
        The network, ready to use.
    """
    return load_model(
        model.name if model.path is None else model.path,
        seed=options.seed,
        device=options.device,
        precision=options.precision,
    )


_README = """\
# Results of `brainlm {0}`

Start with `{0}.html`. `experiment.json` has the parameters, `logs/*_call.json` the calls. Every
table has a sidecar (`.json`) that records how it was made. How to read the
numbers: docs/experiments.md of brainlm-bids.
"""
