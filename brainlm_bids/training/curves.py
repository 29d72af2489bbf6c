"""Learning curves, written as TSV, PNG and TensorBoard files."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from brainlm_bids.files import atomically, write_tsv

Row = Mapping[str, float]
_COMPARED = {
    "compared": "network",
    "ridge_time": "ridge regression and time",
    "ridge": "ridge regression",
    "time": "neighbours in time",
    "mean": "parcel's mean",
}
# Panel of the figure -> columns of the curves and their labels in the legend.
PANELS: dict[str, dict[str, str]] = {
    "loss": {"train_loss": "training", "validation_loss": "validation"},
    "mean squared error": {f"{name}_mse": label for name, label in _COMPARED.items()},
    "R²": {f"{name}_r2": label for name, label in _COMPARED.items()},
}


def write_curves(file: Path, history: Sequence[Row]) -> Path:
    """Write the learning curves as a table.

    Parameters
    ----------
    file
        The TSV file.
    history
        A row per epoch, all with the same columns.

    Returns
    -------
    Path
        The file.
    """
    names = list(history[0])
    return write_tsv(file, names, [[row[name] for row in history] for name in names])


def draw_curves(file: Path, history: Sequence[Row], title: str) -> Path:
    """Draw loss, error and R² over epochs, beside the baselines.

    Parameters
    ----------
    file
        The PNG file.
    history
        A row per epoch.
    title
        Title of the figure.

    Returns
    -------
    Path
        The file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, (name, columns) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for column, label in columns.items():
            values = [row.get(column, math.nan) for row in history]
            axes.plot(epochs, values, marker="." if len(epochs) < 30 else "", label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    with atomically(file) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)
    return file


class Board:
    """TensorBoard's event files of a run: scalars over training steps.

    Parameters
    ----------
    folder
        Folder of the event files.
    first
        Events that an interrupted run wrote from this step on are discarded.
    """

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboardX import SummaryWriter

        # TensorBoard names files by the second, and reads them in the order of their names: within
        # one second nanoseconds keep the file of a resumed run after those of the run before it.
        self._writer = SummaryWriter(
            str(folder), purge_step=first, filename_suffix=f".{time.time_ns():020d}.step{first}"
        )

    def __enter__(self) -> "Board":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def write(self, group: str, values: Row, step: int) -> None:
        """Write numbers as `group/name`; NaN are left out.

        Parameters
        ----------
        group
            First part of the names.
        values
            Name to number.
        step
            Training step.
        """
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"{group}/{name}", value, step)
