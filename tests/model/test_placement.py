"""Batches that fit: halved where memory runs out, down to one, and then the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import TR, recording
from torch import nn

from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.embedding import embed
from brainlm_bids.model.placement import Placement, place
from brainlm_bids.model.reconstruction import reconstruct


class _Memory:
    """Work that fits up to `limit` items at a time; notes what it was given."""

    def __init__(self, limit: int) -> None:
        self.limit, self.tried = limit, []  # type: ignore[var-annotated]

    def __call__(self, part: slice) -> list[int]:
        n = part.stop - part.start
        self.tried.append(n)
        if n > self.limit:
            raise torch.OutOfMemoryError("not enough")
        return list(range(part.start, part.stop))


def _on_a_device(batch_size: int) -> Placement:
    """A CPU that is taken for another device, so that running out of memory can be played."""
    placement = Placement(nn.Linear(1, 1), "cpu", "float32", batch_size)
    placement.device = "mtia"  # a device that autocast knows
    return placement


def test_a_batch_that_does_not_fit_is_halved() -> None:
    placement, work = _on_a_device(8), _Memory(3)
    parts = list(placement.batches(7, work))
    assert [item for _, items in parts for item in items] == list(range(7))
    assert work.tried == [7, 3, 3, 1]
    assert placement.batch_size == 3 and placement.device == "mtia"
    again = _Memory(3)
    list(placement.batches(4, again))
    assert again.tried == [3, 1]  # what fitted once is tried first


def test_the_cpu_is_the_last_resort() -> None:
    placement, work = _on_a_device(2), _Memory(0)

    def recovered(part: slice) -> list[int]:
        return [part.start] if placement.device == "cpu" else work(part)

    with pytest.warns(RuntimeWarning, match="continuing on the CPU in float32$"):
        parts = list(placement.batches(2, recovered))
    assert [items for _, items in parts] == [[0], [1]]
    assert (placement.device, placement.precision, placement.batch_size) == ("cpu", "float32", 1)
    with pytest.raises(torch.OutOfMemoryError):
        list(placement.batches(1, _Memory(0)))


def test_the_precision_stays_when_memory_runs_out() -> None:
    """The record of a stage names one precision: that of all windows."""
    placement, linear = _on_a_device(1), nn.Linear(8, 8)
    placement.precision = "bfloat16"

    def work(part: slice) -> torch.dtype:
        if placement.device != "cpu":
            raise torch.OutOfMemoryError("not enough")
        return linear(torch.ones(1, 8)).dtype

    with pytest.warns(RuntimeWarning, match="in bfloat16, which is slow there"):
        parts = list(placement.batches(2, work))
    assert [dtype for _, dtype in parts] == [torch.bfloat16] * 2
    assert (placement.device, placement.precision) == ("cpu", "bfloat16")


def test_float32_is_not_rounded_to_tf32_on_a_gpu() -> None:
    placement = _on_a_device(1)
    before = torch.backends.cudnn.allow_tf32
    ((_, allowed),) = placement.batches(1, lambda part: torch.backends.cudnn.allow_tf32)
    assert not allowed
    assert torch.backends.cudnn.allow_tf32 == before


def test_words_that_are_not_known_are_refused() -> None:
    module = nn.Linear(1, 1)
    with pytest.raises(UserError, match="precision 'half'"):
        place(module, "cpu", "half")
    with pytest.raises(UserError, match="device 'gpu'"):
        place(module, "gpu", "auto")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            place(module, "cuda", "auto")
    assert place(module, "cpu", "auto").precision == "float32"


def test_batches_and_bfloat16_change_next_to_nothing(model: LoadedModel) -> None:
    series, coords = recording(450)
    exact = embed(model, series, coords, tr=TR, seed=5)
    call = {"mask_ratio": 0.4, "seed": 5, "with_baselines": False}
    whole = reconstruct(model, series, coords, **call)  # type: ignore[arg-type]
    many = replace(model, placement=Placement(model.module, "cpu", "float32", 4))
    assert np.allclose(embed(many, series, coords, tr=TR, seed=5).vectors, exact.vectors, atol=1e-5)
    batched = reconstruct(many, series, coords, **call).series  # type: ignore[arg-type]
    assert np.allclose(batched, whole.series, atol=1e-5)
    rounded = replace(model, placement=Placement(model.module, "cpu", "bfloat16", 4))
    found = embed(rounded, series, coords, tr=TR, seed=5).vectors
    assert not np.array_equal(found, exact.vectors)
    cosine = (found * exact.vectors).sum(1) / (
        np.linalg.norm(found, axis=1) * np.linalg.norm(exact.vectors, axis=1)
    )
    assert cosine.min() > 0.999
