"""The methods text of a tool, from what its folder records."""

from __future__ import annotations

from typing import Any

from brainlm_bids.report.clauses import counted, quoted
from brainlm_bids.report.manuscript import Heading, Manuscript, Paragraph
from brainlm_bids.report.methods import closing
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.tools.records import FINETUNE, FORECAST, PERTURB, PRETRAIN, Run
from brainlm_bids.report.values import as_list, joined, number


def methods_text(run: Run) -> Manuscript:
    """Describe what was done, with citations.

    Parameters
    ----------
    run
        The folder.
    """
    texts = {FORECAST: _forecast, PERTURB: _perturb, FINETUNE: _finetune, PRETRAIN: _pretrain}
    text = f"{texts[run.tool](run)} {_made_with(run)}"
    return Manuscript((Heading("Methods", 1), Paragraph(text), *closing([])), run.tool.upper())


def _made_with(run: Run) -> str:
    made = mapping(run.record.get("GeneratedBy")) or {
        "Version": mapping(run.record.get("Versions")).get("brainlm-bids")
    }
    seed = run.parameters.get("seed")
    return f"Computed with brainlm-bids {quoted(made.get('Version'))}; the random seed was {seed}."


def _models(run: Run) -> str:
    models = [quoted(name) for name in mapping(run.record.get("Weights"))]
    return f"BrainLM [@brainlm] ({joined(models)})" if models else "BrainLM [@brainlm]"


def _series(parameters: Any) -> str:
    if parameters.get("series") == "robustcohort":
        return "interquartile ranges of the cohort"
    return "interquartile ranges of each recording"


def _forecast(run: Run) -> str:
    p = run.parameters
    text = (
        f"{_models(run)} predicted the {counted(int(p['volumes']), 'sample')} of 0.735 s that "
        f"follow up to {counted(int(p['origins']), 'point')} of each recording, spread evenly. "
        "Only the volumes before a point were brought to the rate of the model and scaled; "
        "predictions were compared with the volumes that the scanner measured, in units of "
        f"{_series(p)}. "
    )
    if p.get("causal"):
        text += (
            "The high-pass filter and the removal of noise components were fitted to the volumes "
            "before each point alone. "
        )
    order = p.get("order")
    chosen = "chosen by AIC for each parcel" if order is None else f"of order {order}"
    return text + (
        "Baselines were the median of each parcel, its last volume, an autoregression of each "
        f"parcel ({chosen}), and a ridge regression on all parcels one volume back. R² is relative "
        "to the median of what was observed. Means are over participants, and 95 % intervals of "
        "means and of differences of R² between predictors are from 1000 bootstrap samples of "
        "participants."
    )


def _perturb(run: Run) -> str:
    p = run.parameters
    parcels = ", ".join(quoted(one) for one in as_list(p.get("parcels")))
    if p.get("scale") is not None:
        change = f"multiplied by {number(p['scale'])}"
    elif p.get("lesion") or not p.get("value"):
        change = "set to 0, the median of a parcel"
    else:
        change = f"set to {number(p['value'])} interquartile ranges"
    text = (
        f"The series of the parcels {parcels} were {change}, and the responses of {_models(run)} "
        "were compared with those to the unchanged series, with the same order of tokens and the "
        "same masks: the distance that the embedding moves, and the mean absolute change of what "
        "is predicted for each other parcel while it is masked. "
    )
    n_null, match = int(p.get("n_null") or 0), p.get("match")
    if not n_null:
        return text + "No null distribution was computed."
    alike = {
        "size": "of as many parcels",
        "hemisphere": "of as many parcels in each hemisphere",
        "space": "of as many parcels in each hemisphere that lie to one another as those do, made "
        "by turning the set about the centre of each hemisphere,",
    }.get(str(match), "of as many parcels")
    return text + (
        f"The same change of {counted(n_null, 'random set')} {alike} gave the null "
        "distribution; p is (1 + number of sets with at least this change) / (1 + number of sets), "
        "and q is corrected over parcels by the method of Benjamini and Hochberg. Values are means "
        "over participants."
    )


def _finetune(run: Run) -> str:
    p = run.parameters
    folds = (
        "one split of the participants"
        if p.get("single") or p.get("split")
        else f"cross-validation with {p.get('folds')} folds of participants"
    )
    fitted = "the head alone was fitted" if p.get("frozen") else "encoder and head were fitted"
    start = f"Starting from BrainLM [@brainlm] ({quoted(p.get('checkpoint'))}), "
    if p.get("future") is not None:
        fitted = "the decoder was" if p.get("frozen") else "encoder and decoder were"
        return (
            f"{start}{fitted} fitted to predict the last "
            f"{counted(int(p['future']), 'time patch', 'time patches')} of windows, in {folds}. "
            "Validation participants decided when to stop; errors are of test participants, at the "
            "volumes that the scanner measured, beside the model before fine-tuning and the "
            "baselines of forecasts. Intervals are from 1000 bootstrap samples of participants."
        )
    targets = joined([quoted(one) for one in as_list(p.get("target"))])
    return (
        f"{start}{fitted} to {targets} by AdamW in {folds}; in each, a part of the training "
        "participants decided when to stop, and test participants had no part in any fit or "
        "choice. The unchanged embedding, functional connectivity, motion, an untrained network "
        "and the mean or class shares of the training participants were tested on the same folds. "
        "Intervals are 95 % of 1000 bootstrap samples of participants, of scores and of their "
        f"differences; p values are from {p.get('permutations')} permutations of the target "
        "[@sklearn]."
    )


def _pretrain(run: Run) -> str:
    p, network = run.parameters, mapping(run.record.get("Network"))
    started = mapping(run.record.get("StartedFrom"))
    ratio = network.get("mask_ratio")
    return (
        f"BrainLM [@brainlm] was trained by masked prediction, starting from "
        f"{quoted(started.get('Source'))}, for {counted(int(p['epochs']), 'epoch')} by AdamW: "
        f"windows of 200 volumes, {number(ratio)} of the tokens masked, at most {p.get('batch')} "
        f"windows per step, peak learning rate {number(p.get('learning_rate'), 3)} after a warm-up "
        f"over {number(p.get('warm_up'))} of the steps, then half a cosine; weight decay "
        f"{number(p.get('weight_decay'), 3)}. Participants were split into training, "
        "validation and test. The checkpoint with the smallest validation error was kept. "
        "Baselines were the mean of the parcel, its neighbours in time, a ridge regression on the "
        "other parcels, and both, on the same windows and masks."
    )
