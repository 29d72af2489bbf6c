"""Blocks of events, their volumes, and the states that can be decoded."""

import numpy as np
import pytest

from brainlm_bids.cohort.states import (
    Block,
    block_volumes,
    choose_states,
    find_blocks,
    state_folds,
    whole_recording,
)
from brainlm_bids.errors import UserError


def test_stimuli_of_one_state_are_a_block_and_pauses_or_other_states_end_it() -> None:
    faces = [(12.0 + k, 0.9, "face") for k in range(16)]
    scenes = [(36.0 + k, 0.9, "scene") for k in range(16)]
    again = [(60.0 + k, 0.9, "scene") for k in range(16)]
    blocks = find_blocks([*faces, *scenes, *again])
    assert [(b.onset, round(b.duration, 6), b.state) for b in blocks] == [
        (12.0, 15.9, "face"),
        (36.0, 15.9, "scene"),
        (60.0, 15.9, "scene"),
    ]
    assert len(find_blocks([(0, 1, "a"), (1, 1, "b"), (2, 1, "a")])) == 3


def test_an_event_within_a_longer_one_does_not_shorten_the_block() -> None:
    assert find_blocks([(0, 20, "a"), (5, 1, "a")]) == [Block(0, 20, "a")]


def test_volumes_of_a_block_are_those_that_show_it_after_the_delay() -> None:
    # a boxcar, delayed, at the times of the volumes of a series that begins 4 s into the scan
    tr, start, n_volumes, delay = 0.735, 4.0, 300, 5.0
    blocks = [Block(12.0, 16.0, "face"), Block(100.0, 20.0, "house"), Block(215.0, 16.0, "face")]
    times = start + tr * np.arange(n_volumes)
    found = block_volumes(blocks, delay=delay, start=start, tr=tr, n_volumes=n_volumes)
    for block, (first, end) in zip(blocks, found, strict=True):
        shown = (times >= block.onset + delay) & (times < block.end + delay)
        assert np.flatnonzero(shown).tolist() == list(range(first, end))


def test_a_short_event_has_one_volume_and_one_outside_has_none() -> None:
    blocks = [Block(10.1, 0.0, "a"), Block(-20.0, 5.0, "a"), Block(500.0, 5.0, "a")]
    found = block_volumes(blocks, delay=5.0, start=0.0, tr=2.0, n_volumes=100)
    assert found.tolist() == [[8, 9], [0, 0], [0, 0]]


def test_states_that_occur_in_one_subject_are_left_out() -> None:
    states = ["a", "b", "a", "b", "a", "b", "a", "b", "c", "c", "c", "c", "c"]
    groups = ["1", "1", "1", "1", "2", "2", "2", "2", "1", "1", "1", "1", "1"]
    chosen = choose_states(states, groups)
    assert chosen.names == ("a", "b") and chosen.rows.tolist() == list(range(8))
    assert chosen.values.tolist() == [0.0, 1.0] * 4
    assert "'c' is left out: all of its blocks (5)" in chosen.notes[0]


def test_trials_in_place_of_states_are_refused() -> None:
    with pytest.raises(UserError, match="two states are needed that two participants have"):
        choose_states(["a", "b", "c"], ["1", "2", "3"])
    many = [f"trial{k}" for k in range(60) for _ in range(4)]
    with pytest.raises(UserError, match="60 different states"):
        choose_states(many, ["1", "2"] * 120)


def test_folds_leave_out_whole_groups_or_spread_the_states_of_single_blocks() -> None:
    people = np.repeat([f"sub-{k}" for k in range(7)], 4)
    for train, test in state_folds(np.tile([0.0, 1, 2, 3], 7), people, repeats=1, seed=0)[0]:
        assert not set(people[train]) & set(people[test])
    states = np.tile(np.arange(6.0), 2)
    every = state_folds(states, [str(k) for k in range(12)], repeats=3, seed=0)
    assert [len(folds) for folds in every] == [2, 2, 2]
    for train, test in (split for folds in every for split in folds):
        assert sorted(states[train]) == sorted(states[test]) == list(range(6))


def test_a_recording_in_one_state_is_cut_into_windows() -> None:
    blocks = whole_recording("rest", start=3.0, tr=0.735, n_volumes=450)
    found = block_volumes(blocks, delay=0.0, start=3.0, tr=0.735, n_volumes=450)
    assert found.tolist() == [[0, 200], [200, 400]]
    short = whole_recording("rest", start=3.0, tr=0.735, n_volumes=120)
    assert block_volumes(short, delay=0.0, start=3.0, tr=0.735, n_volumes=120).tolist() == [
        [0, 120]
    ]
