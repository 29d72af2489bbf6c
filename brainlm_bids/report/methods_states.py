"""The methods text of the decoding of states, written from its table and sidecar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainlm_bids.report.clauses import counted, quoted
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, joined, number


def states_text(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """Describe how states were decoded.

    Parameters
    ----------
    rows
        Of the table of scores.
    about
        Its sidecar.

    Returns
    -------
    str
        A paragraph.
    """
    first = rows[0]
    names = joined([quoted(name) for name in mapping(about.get("BlocksPerState"))])
    trained = {"attentive": "an attentive probe", "mlp": "a multilayer perceptron"}
    used = {row["readout"] for row in rows}
    readouts = [
        "L2-penalised logistic regression (as in scikit-learn [@sklearn])",
        *(name for readout, name in trained.items() if readout in used),
    ]
    sentences = [
        f"States ({names}) were decoded from {_blocks(about)}: {first['n_blocks']} blocks in "
        f"{counted(int(first['n_recordings']), 'recording')} of "
        f"{counted(int(first['n_subjects']), 'participant')}.",
        f"Readouts were {joined(readouts)}, in {first['n_folds']} folds that leave out whole "
        f"{about.get('LeftOutTogether', 'participants')}.",
        "p values come from states that were shuffled within "
        f"{'participants' if about.get('HaemodynamicDelay') is None else 'recordings'}, with the "
        "predictions kept.",
    ]
    return " ".join(sentences)


def _blocks(about: Mapping[str, Any]) -> str:
    delay = as_float(about.get("HaemodynamicDelay"))
    if delay is None:
        return "windows of 200 volumes, whose state is the task of the recording"
    return (
        f"the blocks of the column {quoted(str(about.get('Column')))} of events.tsv (events of one "
        f"state with pauses of at most {number(about.get('LargestGap'))} s), shown by the volumes "
        f"{number(delay)} s later; a window of the model was cut for each block so that the block "
        "begins with a time patch, and the tokens of the patches within the block were used"
    )
