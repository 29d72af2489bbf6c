"""What is known in advance of the studyforrest run: its task, and the parcels that follow it."""

from pathlib import Path

import numpy as np

from brainlm_bids.preproc.denoising.temporal import highpass_matrix

STEM = "sub-02_task-objectcategories_run-1"
VISUAL = 1  # the visual network's index in AA-7


def t_of_the_task(series: np.ndarray, shared: Path) -> np.ndarray:
    """t of each parcel on 'a picture is shown', through a haemodynamic response."""
    from nilearn.glm.first_level import compute_regressor

    func = shared / "data" / "studyforrest" / "sub-02" / "func"
    rows = (func / f"{STEM}_events.tsv").read_text().splitlines()[1:]
    events = np.array([[float(x) for x in row.split("\t")[:2]] for row in rows])
    condition = np.column_stack([events, np.ones(len(events))]).T
    # volumes are taken at the middle of their 2 s
    regressor, _ = compute_regressor(condition, "glover", np.arange(len(series)) * 2.0 + 1.0)
    x = highpass_matrix(len(series), 2.0) @ regressor[:, 0]
    y = series - series.mean(axis=0)
    beta = x @ y / (x @ x)
    residual = ((y - np.outer(x, beta)) ** 2).sum(axis=0) / (len(series) - 2)
    return np.asarray(beta / np.sqrt(residual / (x @ x)))
