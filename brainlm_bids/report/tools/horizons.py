"""What tables of forecast errors show: sentences and tables, for each repetition time.

A predictor is better than another where the 95 % interval of the difference of their R² over
subjects is above 0, worse where it is below, and undecided otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from brainlm_bids.figures.experiments import BASELINES, WHITE_NOISE_R2
from brainlm_bids.report.best import best_rows, decimals
from brainlm_bids.report.clauses import counted
from brainlm_bids.report.tools.parts import Cell, Table, best_place, cell, row, score
from brainlm_bids.report.values import Row, as_float, joined, number

# Of fewer subjects the percentile interval of a bootstrap covers far less than it is said to
FEW_SUBJECTS = 10
# Times that a sentence lists
MOST_TIMES = 6
BETTER, WORSE, UNDECIDED = "better than", "worse than", "not distinguishable from"
_METRICS = {"r2": "R²", "pearson_r": "Pearson r", "rmse": "RMSE"}


class Gain(NamedTuple):
    """The difference of two R², with its interval; None where there is none."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Which of `BETTER`, `WORSE` and `UNDECIDED` it is.

        >>> Gain(0.2, 0.1, 0.3).verdict, Gain(-0.2, -0.3, 0.1).verdict
        ('better than', 'not distinguishable from')
        """
        if self.low is None or self.high is None:
            return UNDECIDED
        return BETTER if self.low > 0 else WORSE if self.high < 0 else UNDECIDED

    @property
    def words(self) -> str:
        """The difference and its interval.

        >>> Gain(0.2, 0.1, 0.3).words, Gain(0.2, None, None).words
        ('difference 0.2 [0.1, 0.3]', 'difference 0.2')
        """
        text = f"difference {number(self.value, 2)}"
        if self.low is None or self.high is None:
            return text
        return f"{text} [{number(self.low, 2)}, {number(self.high, 2)}]"

    @property
    def reversed(self) -> Gain:
        """The difference the other way round."""
        turned = [None if one is None else -one for one in (self.value, self.high, self.low)]
        return Gain(*turned)


class Horizons(NamedTuple):
    """Tables of errors of one repetition time.

    Attributes
    ----------
    tr
        The repetition time, s.
    errors
        Rows of the table of errors: mean over subjects of every predictor and volume ahead.
    gains
        Rows of the table of comparisons.
    models
        Name of a model in the tables to its name in sentences.
    untrained
        The models with random weights.
    """

    tr: float
    errors: Sequence[Row]
    gains: Sequence[Row]
    models: Mapping[str, str]
    untrained: Sequence[str]

    @property
    def predictors(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(one["predictor"] for one in self.errors))

    @property
    def n_ahead(self) -> int:
        """Number of volumes ahead."""
        return len({one["horizon"] for one in self.errors})

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return int(as_float(self.errors[0].get("n_subjects")) or 0)

    def label(self, name: str) -> str:
        """A predictor in words."""
        return self.models.get(name) or BASELINES.get(name, (name,))[0]

    def of(self, name: str, metric: str) -> list[float | None]:
        """A metric of a predictor at all volumes ahead."""
        return [as_float(one.get(metric)) for one in self.errors if one["predictor"] == name]

    def mean(self, name: str, metric: str = "r2") -> float | None:
        """Mean of a metric over the volumes ahead; None where one is not defined."""
        values = [one for one in self.of(name, metric) if one is not None]
        return sum(values) / len(values) if values and len(values) == self.n_ahead else None

    def gain(self, one: str, other: str, horizon: str = "n/a") -> Gain | None:
        """The difference of two predictors at a volume ahead, or of their means ("n/a")."""
        for line in self.gains:
            pair = line["predictor"], line["compared_with"]
            if line["horizon"] == horizon and set(pair) == {one, other}:
                found = Gain(*(as_float(line.get(key)) for key in ("r2_difference", "low", "high")))
                return found if pair[0] == one else found.reversed
        return None

    @property
    def best_baseline(self) -> str | None:
        """The baseline with the largest mean R²."""
        names = [name for name in self.predictors if name not in self.models]
        place = best_place([self.mean(name) for name in names])
        return None if place is None else names[place]


def by_repetition_time(
    errors: Sequence[Row],
    gains: Sequence[Row],
    models: Mapping[str, str],
    untrained: Sequence[str] = (),
) -> list[Horizons]:
    """The tables of each repetition time, the shortest first.

    Parameters
    ----------
    errors, gains
        Rows of the two tables.
    models
        Name of a model in the tables to its name in sentences.
    untrained
        The models with random weights.
    """
    trs = sorted({float(one["repetition_time"]) for one in errors})
    return [
        Horizons(
            tr,
            [one for one in errors if float(one["repetition_time"]) == tr],
            [one for one in gains if float(one["repetition_time"]) == tr],
            models,
            untrained,
        )
        for tr in trs
    ]


def claims(horizons: Horizons, model: str) -> list[str]:
    """Sentences on one model: its R² beside baselines, the untrained control and white noise.

    Parameters
    ----------
    horizons
        The tables of a repetition time.
    model
        Name of the model in the tables.
    """
    mean, best = horizons.mean(model), horizons.best_baseline
    label, n = horizons.label(model), horizons.n_ahead
    if mean is None:
        return [f"R² of {label} is not defined at every volume ahead: nothing is concluded."]
    where = (
        f"{counted(horizons.n_subjects, 'subject')}, {counted(n, 'volume')} ahead, up to "
        f"{number(n * horizons.tr, 3)} s"
    )
    text = (
        f"Repetition time {number(horizons.tr, 3)} s: {label} forecasts with a mean R² of "
        f"{decimals(mean)} ({where})"
    )
    if best is not None:
        baseline = decimals(horizons.mean(best))
        text += f"; the best baseline is {horizons.label(best)} with {baseline}"
    sentences = [f"{text}."]
    if model in horizons.untrained:
        sentences.append(f"{label} has random weights: its forecasts are a control.")
    sentences += _against_baselines(horizons, model)
    sentences += _against_untrained(horizons, model)
    sentences.append(_against_white_noise(horizons, model))
    return sentences


def _against_baselines(horizons: Horizons, model: str) -> list[str]:
    baselines = [name for name in horizons.predictors if name not in horizons.models]
    gains = {name: horizons.gain(model, name) for name in baselines}
    known = {name: gain for name, gain in gains.items() if gain is not None}
    if not known:
        return [
            "The folder has no table of comparisons, which earlier versions did not write: which "
            "differences are more than chance is not known."
        ]
    if horizons.n_subjects < 2:
        return ["With fewer than two subjects no difference can be tested: nothing is concluded."]
    groups: dict[str, list[str]] = {}
    for name, gain in known.items():
        groups.setdefault(gain.verdict, []).append(f"{horizons.label(name)} ({gain.words})")
    parts = [f"{key} {joined(groups[key])}" for key in (BETTER, WORSE, UNDECIDED) if key in groups]
    sentences = [f"Over all volumes ahead it is {', '.join(parts)}."]
    if horizons.n_subjects < FEW_SUBJECTS:
        sentences.append(
            f"Bootstrap intervals over fewer than {FEW_SUBJECTS} subjects are too narrow: take "
            "these verdicts as provisional."
        )
    best = horizons.best_baseline
    if best in known:
        sentences.append(_by_volume(horizons, model, best))
    return sentences


def _by_volume(horizons: Horizons, model: str, best: str) -> str:
    """At how many volumes ahead a model is better or worse than the best baseline."""
    found: dict[str, list[int]] = {}
    for ahead in range(1, horizons.n_ahead + 1):
        gain = horizons.gain(model, best, str(ahead))
        if gain is not None:
            found.setdefault(gain.verdict, []).append(ahead)
    better, worse = (
        f"at {len(ahead)} of {horizons.n_ahead}{_times(ahead, horizons.tr)}"
        for ahead in (found.get(key, []) for key in (BETTER, WORSE))
    )
    return (
        f"Volume by volume it is better than {horizons.label(best)} {better}, and worse {worse} "
        "(intervals not corrected for the number of volumes)."
    )


def _times(ahead: Sequence[int], tr: float) -> str:
    listed = 0 < len(ahead) <= MOST_TIMES
    return f" ({', '.join(number(one * tr, 3) for one in ahead)} s)" if listed else ""


def _against_untrained(horizons: Horizons, model: str) -> list[str]:
    if model in horizons.untrained or len(horizons.models) < 2:
        return []
    sentences = []
    for other in horizons.untrained:
        gain = horizons.gain(model, other)
        if gain is not None and horizons.n_subjects > 1:
            sentences.append(
                f"It is {gain.verdict} the untrained control {horizons.label(other)} "
                f"({gain.words})."
            )
    return sentences


def _against_white_noise(horizons: Horizons, model: str) -> str:
    above = sum(one is not None and one > WHITE_NOISE_R2 for one in horizons.of(model, "r2"))
    n, limit = horizons.n_ahead, f"{WHITE_NOISE_R2:g}"
    if not above:
        return (
            f"At no volume ahead is its R² above {limit}, which white noise reaches: it does not "
            "show that it predicts anything."
        )
    return (
        f"At {above} of {counted(n, 'volume')} ahead its R² is above {limit}, which white noise "
        "does not exceed."
    )


def tables(horizons: Horizons) -> list[Table]:
    """The means of all predictors, the comparisons, and the errors at every volume ahead.

    Parameters
    ----------
    horizons
        The tables of a repetition time.
    """
    tr = number(horizons.tr, 3)
    names = horizons.predictors
    best = best_rows([horizons.mean(name) for name in names])
    first = {name: horizons.of(name, "r2")[0] for name in names}
    means = Table(
        f"Repetition time {tr} s: means over all volumes ahead. The row with the largest mean R² "
        "is marked.",
        ("Predictor", "Kind", "R² one volume ahead", *(f"Mean {m}" for m in _METRICS.values())),
        tuple(
            row(
                [
                    Cell(horizons.label(name)),
                    Cell(_kind(horizons, name)),
                    score(first[name]),
                    *(score(horizons.mean(name, metric)) for metric in _METRICS),
                ],
                best=place in best,
            )
            for place, name in enumerate(names)
        ),
    )
    found = [means]
    if horizons.gains:
        found.append(_comparisons(horizons))
    found.append(_every_volume(horizons))
    return found


def _kind(horizons: Horizons, name: str) -> str:
    if name in horizons.untrained:
        return "untrained model"
    return "model" if name in horizons.models else "baseline"


def _comparisons(horizons: Horizons) -> Table:
    rows = []
    for line in horizons.gains:
        gain = horizons.gain(line["predictor"], line["compared_with"], line["horizon"])
        assert gain is not None
        mean = line["horizon"] == "n/a"
        rows.append(
            row(
                [
                    Cell(horizons.label(line["predictor"])),
                    Cell(horizons.label(line["compared_with"])),
                    Cell("mean", 0.0) if mean else cell(line["horizon"]),
                    *(cell(one) for one in gain),
                    Cell(
                        ""
                        if horizons.n_subjects < 2
                        else gain.verdict.removesuffix(" than").removesuffix(" from")
                    ),
                ]
            )
        )
    return Table(
        f"Repetition time {number(horizons.tr, 3)} s: R² of a model less that of another "
        "predictor, with the 95 % interval over subjects.",
        ("Model", "Compared with", "Volumes ahead", "Difference", "Low", "High", "Verdict"),
        tuple(rows),
        folded=True,
    )


def _every_volume(horizons: Horizons) -> Table:
    """Errors at every volume ahead; the best predictor of each is marked."""
    rows = []
    best = {}
    for ahead in {one["horizon"] for one in horizons.errors}:
        at = [one for one in horizons.errors if one["horizon"] == ahead]
        place = best_place([as_float(one.get("r2")) for one in at])
        best[ahead] = None if place is None else at[place]["predictor"]
    for one in horizons.errors:
        values = [
            Cell(horizons.label(one["predictor"])),
            cell(one["horizon"]),
            cell(one["seconds"]),
        ]
        for metric in _METRICS:
            values += [score(one.get(f"{metric}{part}")) for part in ("", "_low", "_high")]
        rows.append(row(values, best=best[one["horizon"]] == one["predictor"]))
    header = ["Predictor", "Volumes ahead", "Seconds"]
    for label in _METRICS.values():
        header += [label, f"{label} low", f"{label} high"]
    return Table(
        f"Repetition time {number(horizons.tr, 3)} s: every volume ahead, mean over subjects with "
        "the 95 % interval. The predictor with the largest R² is marked at each volume.",
        tuple(header),
        tuple(rows),
        folded=True,
    )
