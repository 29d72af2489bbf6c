"""What targets are decoded from: the rows of every table of decodings, in their order.

The group level and `brainlm finetune` share them. A source is a kind of features, the readout that
is fitted to them, and the statistics with which the series were scaled.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

RECORDING, COHORT = "recording", "cohort"
NO_SCALING = "n/a"

# What a source is there for
EMBEDDING, BASELINE, CONTROL = "embedding", "baseline", "control"

# Kinds of readouts, slower from the first to the last
LINEAR, ATTENTIVE, MLP = "linear", "attentive", "mlp"
READOUTS = (LINEAR, ATTENTIVE, MLP)
HEAD = "head"  # that of a fine-tuned model
_KEPT = "predictions are kept, and targets permuted between the subjects of a test fold"
# How p is made, by kind of readout
P_VALUES = {
    LINEAR: "everything is refitted to each permuted target",
    ATTENTIVE: _KEPT,
    MLP: _KEPT,
    HEAD: _KEPT,
}

_SCALED = {RECORDING: "scaled by the recording", COHORT: "scaled by the cohort"}


class Source(NamedTuple):
    """One thing that targets are decoded from.

    Attributes
    ----------
    features
        Kind of features, as in the tables.
    readout
        What is fitted to them, as in the tables. `cls`, `mean` and `linear` are penalised linear
        models; `attentive` and `mlp` are trained in the folds.
    scaling
        Statistics with which the series were scaled: those of each "recording" itself, or of the
        "cohort"; "n/a" where the features do not depend on it.
    label
        For figures and reports.
    role
        "embedding", "baseline" (what an embedding must beat to be of use) or "control" (what it
        must beat to have learned something).
    """

    features: str
    readout: str
    scaling: str
    label: str
    role: str

    @property
    def name(self) -> str:
        """Column of the tables of predictions, and key of the sidecars.

        >>> SOURCES[0].name, CONNECTIVITY.name
        ('embedding_cls_recording', 'connectivity_linear')
        """
        parts = (self.features, self.readout, self.scaling)
        return "_".join(part for part in parts if part != NO_SCALING)

    @property
    def kind(self) -> str:
        """Kind of the readout: "linear", "attentive" or "mlp"."""
        return self.readout if self.readout in (ATTENTIVE, MLP) else LINEAR


def _of_network(features: str, title: str, role: str) -> tuple[Source, ...]:
    readouts = {"cls": "CLS token", "mean": "mean token", ATTENTIVE: "attentive probe"}
    return tuple(
        Source(features, readout, scaling, f"{title}, {word}, {scaled}", role)
        for readout, word in readouts.items()
        for scaling, scaled in _SCALED.items()
    )


CONNECTIVITY = Source("connectivity", LINEAR, NO_SCALING, "functional connectivity", BASELINE)
MOTION = Source("motion", LINEAR, NO_SCALING, "motion and coverage", BASELINE)
COORDINATES = Source("coordinates", LINEAR, NO_SCALING, "coordinates of the parcels", CONTROL)

# The rows of the group level
SOURCES: tuple[Source, ...] = (
    *_of_network("embedding", "embedding", EMBEDDING),
    CONNECTIVITY,
    *(
        Source("series", MLP, scaling, f"MLP on the parcel series, {scaled}", BASELINE)
        for scaling, scaled in _SCALED.items()
    ),
    MOTION,
    *_of_network("untrained", "untrained", CONTROL),
    COORDINATES,
)

# The rows of the decoding of states within recordings
STATE_MOTION = Source(
    "motion", LINEAR, NO_SCALING, "motion, onset and duration of the block", BASELINE
)
STATE_SOURCES: tuple[Source, ...] = (
    *_of_network("embedding", "embedding", EMBEDDING),
    CONNECTIVITY,
    *(
        Source("series", readout, scaling, f"{title}, {scaled}", BASELINE)
        for readout, title in {
            LINEAR: "mean activity of the parcels",
            MLP: "MLP on the parcel series",
        }.items()
        for scaling, scaled in _SCALED.items()
    ),
    STATE_MOTION,
    *_of_network("untrained", "untrained", CONTROL),
    COORDINATES,
)

# Those that `brainlm finetune` has besides
FINETUNED: tuple[Source, ...] = tuple(
    Source("finetuned", HEAD, scaling, f"fine-tuned, {scaled}", EMBEDDING)
    for scaling, scaled in _SCALED.items()
)
MEAN_OF_TRAINING = Source(
    "baseline", "mean", NO_SCALING, "mean or class shares of the training recordings", CONTROL
)
EVERYTHING = (*SOURCES, *FINETUNED, MEAN_OF_TRAINING)

# Columns of every table of decodings: a row per target, source and metric
DECODING_COLUMNS = (
    *("target", "type", "features", "readout", "scaling", "metric", "value", "low", "high"),
    *("permutation_p", "n_recordings", "n_subjects", "n_folds", "n_repeats"),
)

# The readout and the scaling that are reported where one number is asked for: of simulated states a
# probe of all tokens finds twice what CLS and mean tokens find (benchmarks/readouts.py), and a site
# is plainer in series that the cohort scales, since they keep amplitudes
DEFAULT = (ATTENTIVE, RECORDING)


def by_name(name: str) -> Source:
    """Find a source by its name.

    Parameters
    ----------
    name
        See `Source.name`.

    Returns
    -------
    Source
        Of the group level or of `brainlm finetune`.

    Examples
    --------
    >>> by_name("connectivity_linear").label
    'functional connectivity'
    """
    return next(source for source in EVERYTHING if source.name == name)


def find(features: str, readout: str, scaling: str) -> Source:
    """Find the source of a row of a table of decodings.

    Parameters
    ----------
    features, readout, scaling
        Cells of the row.

    Returns
    -------
    Source
        One that is not in the table gets a label made of the cells.

    Examples
    --------
    >>> find("motion", "linear", "n/a") == MOTION
    True
    """
    key = (features, readout, scaling)
    made = Source(*key, " ".join(key), BASELINE)
    return next((source for source in EVERYTHING if source[:3] == key), made)


def selected(kinds: Collection[str]) -> tuple[Source, ...]:
    """The sources of some kinds of readouts.

    Parameters
    ----------
    kinds
        Some of `READOUTS`.

    Returns
    -------
    tuple of Source
        In the order of the tables.

    Examples
    --------
    >>> len(selected(["linear"])), len(selected(READOUTS))
    (11, 17)
    """
    return tuple(source for source in SOURCES if source.kind in kinds)


def default_of(sources: Sequence[Source]) -> Source | None:
    """The source whose scores are reported first.

    Parameters
    ----------
    sources
        Those that were decoded from.

    Returns
    -------
    Source or None
        The embedding with the default readout and scaling. Where that was left out, another
        readout of the embedding with the same scaling, the mean token first. None without any.

    Examples
    --------
    >>> default_of(SOURCES)[1:3] == DEFAULT
    True
    """
    readout, scaling = DEFAULT

    def rank(source: Source) -> tuple[bool, bool, bool]:
        return source.scaling == scaling, source.readout == readout, source.readout == "mean"

    embeddings = [source for source in sources if source.role == EMBEDDING]
    return max(embeddings, key=rank, default=None)
