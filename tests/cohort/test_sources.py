"""The table of what targets are decoded from."""

from brainlm_bids.cohort import sources


def test_every_embedding_has_its_untrained_control() -> None:
    kinds = {name: set() for name in ("embedding", "untrained")}
    for source in sources.SOURCES:
        if source.features in kinds:
            kinds[source.features].add((source.readout, source.scaling))
    assert kinds["embedding"] == kinds["untrained"] and len(kinds["embedding"]) == 6


def test_names_and_labels_are_unique() -> None:
    everything = (*sources.SOURCES, *sources.FINETUNED, sources.MEAN_OF_TRAINING)
    for attribute in ("name", "label"):
        assert len({getattr(source, attribute) for source in everything}) == len(everything)


def test_the_default_is_an_embedding_of_any_selection() -> None:
    assert sources.default_of(sources.SOURCES)[:3] == ("embedding", *sources.DEFAULT)
    for kinds in (["linear"], ["attentive"], ["linear", "mlp"]):
        chosen = sources.selected(kinds)
        found = sources.default_of(chosen)
        assert found in chosen
        assert (found.role, found.scaling) == (sources.EMBEDDING, sources.DEFAULT[1])
    assert sources.default_of(sources.selected(["mlp"])) is None
