"""Learning curves, written as TSV, PNG and TensorBoard files."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from brainlm_bids.files import atomically, write_tsv

Row = Mapping[str, float]
# Panel of the figure -> columns of the curves and what the legend calls them.
PANELS: dict[str, dict[str, str]] = {
    "loss": {"train_loss": "training", "validation_loss": "validation"},
    "mean squared error": {
        "compared_mse": "network",
        "ridge_mse": "ridge regression",
        "mean_mse": "parcel's mean",
    },
    "R²": {"compared_r2": "network", "ridge_r2": "ridge regression", "mean_r2": "parcel's mean"},
}


def write_curves(file: Path, history: Sequence[Row]) -> Path:
    """One row per epoch; the columns are those of the first row."""
    names = list(history[0])
    return write_tsv(file, names, [[row[name] for row in history] for name in names])


def draw_curves(file: Path, history: Sequence[Row], title: str) -> Path:
    """The curves of loss, error and R² over epochs, beside the baselines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, (name, columns) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for column, label in columns.items():
            values = [row[column] for row in history]
            axes.plot(epochs, values, marker="." if len(epochs) < 30 else "", label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    with atomically(file) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)
    return file


class Board:
    """TensorBoard's event files of a run; scalars over training steps.

    What an interrupted part of the run had written from step `first` on is taken back.
    """

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboardX import SummaryWriter

        # Files are named by the second: one that goes on at once must not take the other's name.
        self._writer = SummaryWriter(
            str(folder), purge_step=first, filename_suffix=f".step{first}.{time.time_ns() % 10**9}"
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
        """Numbers as `group/name`; those that there are not (NaN) are left out."""
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"{group}/{name}", value, step)
