"""Evaluate a network on windows: error and R², beside those of simple predictors.

Windows and masks are the same each time, and the processes share the work. Sums are those of
`objective.Losses`, a row per window.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainlm_bids.model import baselines
from brainlm_bids.training.loader import MicroBatch, WindowSet, shares
from brainlm_bids.training.objective import MaskedPrediction, hidden_values, mse_and_r2

Sums = NDArray[np.float64]
# windows: indices; a value of COLUMNS: (windows, 4) sums as lists; empty without baselines
BaselineSums = Mapping[str, Any]
# Name of a baseline, as in `model.baselines`, to its name in the columns of the curves.
COLUMNS = {name: name for name in baselines.NAMES} | {"parcel_mean": "mean"}


class Evaluator:
    """Score a task on the device of an engine.

    Parameters
    ----------
    engine
        See `processes.start_engine`.
    task
        The network to score.
    micro
        Number of windows in a forward pass.
    """

    def __init__(self, engine: Any, task: MaskedPrediction, micro: int) -> None:
        self.engine, self.task, self.micro = engine, task, micro

    def sums(self, windows: WindowSet, stream: int) -> Sums:
        """Compute losses and sums of squares of every window.

        Parameters
        ----------
        windows
            The windows.
        stream
            Stream of random numbers of the masks (VALIDATION or TEST).

        Returns
        -------
        ndarray
            (windows, 5): loss, number, total, squares and errors, see `objective.Losses`.
        """
        device = self.engine.device
        assigned = self._share(len(windows), self.micro)
        rows = []
        with torch.no_grad():
            for part, weights in assigned:
                batch = windows[MicroBatch(stream, 0, part, weights)]
                losses = self.task(batch.signal.to(device), batch.order.to(device))
                rows.append(torch.stack([value.double() for value in losses], dim=1))
        return self._collect([some for some, _ in assigned], torch.cat(rows), len(windows))

    def baselines(self, windows: WindowSet, stream: int, n: int) -> BaselineSums:
        """Score the baselines of reconstruction on some of the windows.

        Parameters
        ----------
        windows
            The windows.
        stream
            Stream of random numbers of the masks.
        n
            Number of windows, spaced evenly over all.

        Returns
        -------
        dict
            windows: their indices; each value of `COLUMNS`: (n, 4) number, total, squares and
            errors. Empty for n = 0.
        """
        n = min(n, len(windows))
        if not n:
            return {}
        chosen = np.linspace(0, len(windows) - 1, n).astype(np.int64)
        assigned = self._share(n, 1)
        rows = [self._baselines_of(windows, stream, int(chosen[some[0]])) for some, _ in assigned]
        table = torch.from_numpy(np.stack(rows)).to(self.engine.device)
        sums = self._collect([some for some, _ in assigned], table, n)
        tables = sums.reshape(n, len(COLUMNS), 4).transpose(1, 0, 2).tolist()
        return {"windows": chosen.tolist(), **dict(zip(COLUMNS.values(), tables, strict=True))}

    def _share(self, n: int, micro: int) -> list[tuple[NDArray, NDArray]]:
        rank, world = self.engine.process_index, self.engine.num_processes
        return shares(np.arange(n), rank, world, micro)

    def _collect(self, windows: list[NDArray], rows: Tensor, n: int) -> Sums:
        """Rows of all processes in the order of the windows."""
        assigned = torch.from_numpy(np.concatenate(windows)).to(self.engine.device)
        places, gathered = self.engine.gather((assigned, rows))
        result = np.empty((n, rows.shape[1]))
        result[places.cpu().numpy()] = gathered.cpu().numpy()
        return result

    def _baselines_of(self, windows: WindowSet, stream: int, window: int) -> Sums:
        """Number, total, squares and errors of each of `COLUMNS`, one after the other."""
        recording, first, order = windows.locate(stream, 0, window)
        series = np.ascontiguousarray(windows.store.series(recording).T)
        part = slice(first, first + windows.config.window)
        hidden = np.zeros(series.shape, dtype=bool)
        hidden[:, part] = hidden_values(self.task, order)
        has_data = (series[:, part] != 0).any(axis=1, keepdims=True)
        counted = hidden & has_data
        truth = series[counted].astype(np.float64)
        sums: list[float] = []
        made = baselines.predictions(series, ~hidden)
        for name in COLUMNS:
            error = made[name][counted] - truth
            sums += [len(truth), truth.sum(), np.square(truth).sum(), np.square(error).sum()]
        return np.array(sums, dtype=np.float64)


def compared(sums: Sums, baseline: BaselineSums) -> dict[str, float]:
    """Score the network and the baselines on the windows of the baselines.

    Parameters
    ----------
    sums
        (windows, 5), see `Evaluator.sums`.
    baseline
        Sums of the baselines, see `Evaluator.baselines`.

    Returns
    -------
    dict
        compared_mse and compared_r2 (the network), and mse and r2 of each of `COLUMNS`, such as
        ridge_r2; NaN without baselines.
    """
    rows = sums[baseline["windows"], 1:] if baseline else np.empty((0, 4))
    tables = {"compared": rows}
    for name in COLUMNS.values():
        tables[name] = np.array(baseline[name]) if name in baseline else np.empty((0, 4))
    return {
        f"{name}_{metric}": value
        for name, table in tables.items()
        for metric, value in zip(("mse", "r2"), mse_and_r2(*table.T), strict=True)
    }
