"""The execution policy: chunk sizes of each platform, and models that know none."""

from pathlib import Path

import equinox as eqx
import jax
import pytest

import equiform.models
from equiform.models import build_model
from equiform.models.presets import preset
from equiform.runtime.policy import ExecutionPolicy, attention_logits, edge_chunk, policy_for

CPU = policy_for("cpu", None)
H100 = policy_for("gpu", 60 * 2**30)  # JAX takes three quarters of 80 GB


def numbers_per_edge(name: str) -> int:
    config = preset(name, elements=(1, 6, 8))
    return eqx.filter_eval_shape(lambda: build_model(config, key=jax.random.key(0))).numbers_per_edge


# Measured on processors: path weights, channels or kernel weights of a chunk that stay in the caches, and those of an edge.
@pytest.mark.parametrize(
    ("name", "in_caches", "of_an_edge"),
    [
        ("md17-l2", 500_000, 960),
        ("egnn-qm9", 400_000, 128),
        ("torchmd-et-qm9", 100_000, 256),
        ("se3-transformer-qm9", 1_000_000, None),
    ],
)
def test_chunks_of_a_processor_are_those_that_were_measured(name, in_caches, of_an_edge) -> None:
    numbers = numbers_per_edge(name)
    if of_an_edge is None:
        of_an_edge = numbers // 2
    assert CPU.edges_per_chunk(numbers) == max(in_caches // of_an_edge, 64)


@pytest.mark.parametrize("name", ["md17-l2", "small", "egnn-qm9", "torchmd-et-qm9", "se3-transformer-qm9"])
def test_chunks_of_a_large_accelerator_fill_it_and_are_bounded_by_its_memory(name) -> None:
    numbers = numbers_per_edge(name)
    chunk = H100.edges_per_chunk(numbers)
    assert chunk >= 8_192 and 4 * numbers * chunk <= 60 * 2**30 / 16
    assert policy_for("gpu", 120 * 2**30).edges_per_chunk(numbers) == pytest.approx(2 * chunk, abs=1)


def test_a_device_that_does_not_tell_its_memory_has_chunks_too() -> None:
    assert policy_for("gpu", None).edges_per_chunk(1000) == 8 * 2**30 // 32 // 4 // 1000
    assert policy_for("tpu", None).edges_per_chunk(10**9) == 8192
    assert ExecutionPolicy(100, fewest_edges=7).edges_per_chunk(1000) == 7


def test_what_is_requested_counts() -> None:
    assert edge_chunk(1000, 0) == 0 and edge_chunk(1000, 5) == 5
    assert edge_chunk(1000) == CPU.edges_per_chunk(1000) == 2000


def test_models_name_no_back_end_and_no_cache() -> None:
    for path in Path(equiform.models.__file__).parent.glob("*.py"):
        text = path.read_text()
        for word in ("default_backend", "platform", "local_devices", "CHUNK_"):
            assert word not in text, f"{path.name} speaks of {word}"


def test_logits_held_at_once_fit_a_cpus_cache_and_grow_with_an_accelerators_memory():
    assert 2**18 < CPU.logits_at_once < 2**20  # measured fastest at 1,000 tokens: 2^17 to 2^19
    assert H100.logits_at_once == 60 * 2**30 // 32 // 4 // 4
    assert attention_logits(7) == 7
