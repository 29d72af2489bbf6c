"""The sentence on networks names what exceeds smoothness, and only that."""

from brainlm_bids.report import network_facts

LIMIT = {
    "accuracy": "0.43",
    "adjusted_rand": "0.18",
    "knn_accuracy": "0.68",
    "knn_accuracy_distant": "0.40",
}


def test_the_sentence_tells_measures_above_the_limit_from_those_below() -> None:
    scores = {
        "accuracy": 0.5,
        "adjusted_rand": 0.18,
        "knn_accuracy": 0.6,
        "knn_accuracy_distant": 1,
    }
    text = network_facts.verdict(scores, LIMIT, "Networks")
    above, below = text.split("but not in")
    assert (
        "better than smoothness over space alone explains in accuracy (0.500, limit 0.430)" in above
    )
    assert "kNN accuracy without neighbours (1.000" in above
    assert "adjusted Rand index (0.180, limit 0.180)" in below and "kNN accuracy (0.600" in below
    all_below = network_facts.verdict(dict.fromkeys(LIMIT, 0.1), LIMIT, "Networks")
    assert "no better than smoothness over space alone explains: accuracy" in all_below
    all_above = network_facts.verdict(dict.fromkeys(LIMIT, 0.9), LIMIT, "Networks")
    assert "but not" not in all_above and " no better" not in all_above


def test_nothing_is_said_where_nothing_can_be_compared() -> None:
    assert network_facts.verdict({"accuracy": 0.5}, {}, "Networks") == ""
    assert network_facts.verdict({}, LIMIT, "Networks") == ""
    assert network_facts.cohort_verdicts([]) == network_facts.cohort_rows([]) == []


def test_a_cohort_has_its_consensus_its_recordings_and_the_controls() -> None:
    table = [
        {"participant_id": "sub-1", "features": "model", "accuracy": "0.3"},
        {"participant_id": "sub-2", "features": "model", "accuracy": "0.5"},
        {"participant_id": "consensus", "features": "model", "accuracy": "0.5"},
        {"participant_id": "control", "features": "spatial_null_95", **LIMIT},
    ]
    rows = network_facts.cohort_rows(table)
    assert [row[0] for row in rows] == [
        "consensus, model",
        "recordings, model",
        "control, smooth random fields, 95 %",
    ]
    assert rows[1][1:3] == ("0.400 (0.141)", "n/a")
    consensus, recordings = network_facts.cohort_verdicts(table)
    assert "better" in consensus and "no better" not in consensus
    assert "on average, agree with AA-7 no better than" in recordings
