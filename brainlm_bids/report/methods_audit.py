"""The part of a cohort's methods text about site, motion and reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.report.clauses import quoted
from brainlm_bids.report.manuscript import Block, Heading, Paragraph
from brainlm_bids.report.values import Row, joined, read_json, read_tsv


def audit_blocks(naming: Naming, models: Sequence[str]) -> list[Block]:
    """Describe how the embeddings were compared with site, motion and one another.

    Parameters
    ----------
    naming
        Of the group's files.
    models
        Labels of the models.

    Returns
    -------
    list of Block
        Empty if nothing was measured.
    """
    confounding: list[Row] = []
    reliability: list[Row] = []
    about: Mapping[str, Any] = {}
    for label in models:
        path = naming.path("group_confounding", model=label)
        about = about or read_json(path.with_suffix(".json"))
        confounding += read_tsv(path)
        reliability += read_tsv(naming.path("group_reliability", model=label))
    sentences = [*_confounding(confounding, about), *_reliability(reliability)]
    if not sentences:
        return []
    return [Heading("Site, motion and reliability"), Paragraph(" ".join(sentences))]


def _kinds(rows: Sequence[Row]) -> str:
    names = {
        "embedding": "the embedding",
        "connectivity": "functional connectivity",
        "untrained": "the embedding by an untrained network",
    }
    return joined(
        [text for kind, text in names.items() if any(r["features"] == kind for r in rows)]
    )


def _confounding(rows: Sequence[Row], about: Mapping[str, Any]) -> list[str]:
    if not rows:
        return []
    names = [quoted(name) for name in dict.fromkeys(row["variable"] for row in rows)]
    permutations = quoted(about.get("PermutationsOfVarianceShare"))
    sentences = [
        f"The share of the variance between recordings that goes with {joined(names)} was measured "
        f"in {_kinds(rows)} by PERMANOVA [@anderson;@mcardle] on Euclidean distances of "
        f"standardised features, with {permutations} permutations between participants [@winkler]; "
        "shares above chance are relative to the mean over permutations."
    ]
    measures = {row["measure"] for row in rows}
    if measures & {"balanced_accuracy", "pearson_r"}:
        sentences.append(
            "The same properties were predicted for held-out participants by penalised linear "
            "models in five folds."
        )
    if "median_absolute_r" in measures:
        permutations = quoted(about.get("PermutationsOfCorrelations"))
        distance = (
            ", and these correlations with the distance of the parcels (QC-FC) [@power;@ciric]"
            if "distance_rho" in measures
            else ""
        )
        sentences.append(
            "The mean framewise displacement was correlated with each feature over participants"
            f"{distance}; p values come from {permutations} permutations of the participants."
        )
    return sentences


def _reliability(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    first = rows[0]
    sentences = [
        f"Two {quoted(first['compared'])} of each of {quoted(first['n_subjects'])} participants "
        "were compared by the intraclass correlation ICC(2,1) of each dimension [@shrout]"
    ]
    if any(row["measure"] == "identification_rate" for row in rows):
        sentences[0] += (
            ", and by the share of recordings to which the same participant's other recording was "
            "the most similar [@finn], with differential identifiability [@amico]"
        )
    return [f"{sentences[0]}."]
