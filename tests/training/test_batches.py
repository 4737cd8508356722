"""Batches come in a fixed order, whichever place the stream is entered at."""

import threading
from typing import Any

import jax
import numpy as np
import pytest

from equiform.training import batches
from equiform.training.batches import Batch, BatchStream
from tests.training.toys import molecules


def take(count: int, **start: Any) -> list[Batch]:
    with BatchStream(molecules(30), batch_size=4, seed=3, **start) as stream:
        return [next(stream) for _ in range(count)]


def test_entering_in_the_middle_gives_the_same_batches() -> None:
    everything = take(20)
    per_epoch = everything[0].per_epoch
    for first in (1, per_epoch - 1, per_epoch, per_epoch + 2):
        epoch, position = divmod(first, per_epoch)
        for one, other in zip(everything[first:], take(20 - first, epoch=epoch, position=position)):
            assert (one.epoch, one.position) == (other.epoch, other.position)
            assert (one.indices == other.indices).all()
            assert (one.graph.positions == other.graph.positions).all()


def test_an_epoch_has_every_structure_once_in_an_order_of_its_own() -> None:
    taken = take(20)
    orders = [np.concatenate([b.indices for b in taken if b.epoch == epoch]) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert (orders[0] != orders[1]).any()


def test_without_shuffling_it_is_one_pass() -> None:
    with BatchStream(molecules(30), batch_size=4, shuffle=False) as stream:
        indices = np.concatenate([batch.indices for batch in stream])
    assert sorted(indices) == list(range(30))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_precision_is_as_asked_and_counts_are_right(dtype: str) -> None:
    data = molecules(6)
    with jax.enable_x64(False), BatchStream(data, batch_size=4, shuffle=False, dtype=dtype) as stream:
        batch = next(stream)
    assert batch.graph.positions.dtype == batch.graph.graph_fields["energy"].dtype == np.dtype(dtype)
    assert batch.graph.senders.dtype == np.int32
    assert batch.num_atoms == data.num_atoms[batch.indices].sum() == int(batch.graph.num_atoms)


def test_an_error_of_the_thread_is_raised_where_the_batch_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(batches, "batch", broken)
    with BatchStream(molecules(3), batch_size=2) as stream, pytest.raises(OSError, match="the disk is gone"):
        next(stream)


def test_no_thread_is_left_behind() -> None:
    take(3)
    assert not [thread for thread in threading.enumerate() if thread.name == "equiform-batches"]
