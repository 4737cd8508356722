"""A small trainable model and data sets for it, so that training is tested without any real architecture."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import equiform.models
from equiform.data.pipeline.dataset import Dataset
from equiform.fields import Field, find_field
from equiform.graph import Graph, fully_connected_edges, make_graph
from equiform.models.api import E3, ENERGY, Model, ModelConfig, Traits
from equiform.tasks.energy import Potential


class LearnerConfig(ModelConfig):
    name: str = "learner"
    cutoff: float = 4.0
    elements: tuple[int, ...] = (1, 6, 8)
    width: int = 8
    dropout: float = 0.0

    @property
    def traits(self) -> Traits:
        dipole = find_field("dipole", "graphs")
        outputs = (ENERGY, Field("dipole", "atoms", "polar", dipole.unit))
        return Traits(E3, outputs, elements=self.elements, cutoff=self.cutoff, edges_only=True)


class Learner(Model):
    """e_i = Σ_j (1 − (r/r_c)²)³ · f(r), f a two-layer network; a vector per atom in the same way."""

    embedding: Array
    bias: Array
    out: Array
    vector: Array
    config: LearnerConfig = eqx.field(static=True)

    def __init__(self, config: LearnerConfig, *, key: Any):
        keys = jax.random.split(key, 3)
        self.config = config
        self.embedding = jax.random.normal(keys[0], (8, config.width)) / 3
        self.bias = jnp.zeros(config.width)
        self.out = jax.random.normal(keys[1], (config.width,)) / 3
        self.vector = jax.random.normal(keys[2], (config.width,)) / 3

    def __call__(self, graph: Graph, *, key: Any = None) -> dict[str, Array]:
        fallback = jnp.asarray([0.0, 1.0, 0.0], graph.positions.dtype)
        vectors = jnp.where(graph.edge_mask[:, None], graph.edge_vectors(), fallback[None])
        r = jnp.sqrt((vectors**2).sum(-1))
        u = jnp.where(graph.edge_mask & (r < self.config.cutoff), r / self.config.cutoff, 1)
        centres = jnp.linspace(0, 1, 8, dtype=r.dtype)
        basis = jnp.exp(-30 * (u[:, None] - centres[None]) ** 2)
        hidden = jnp.tanh(basis @ self.embedding + self.bias[None])
        if key is not None and self.config.dropout:
            keep = jax.random.bernoulli(key, 1 - self.config.dropout, hidden.shape)
            hidden = jnp.where(keep, hidden / (1 - self.config.dropout), 0)
        envelope = (1 - u**2) ** 3
        atoms = graph.species.shape[0]
        energy = jax.ops.segment_sum(envelope * (hidden @ self.out), graph.receivers, atoms)
        charge = graph.species[graph.senders].astype(r.dtype)
        vector = (envelope * (hidden @ self.vector) * charge)[:, None] * vectors
        return {"energy": energy, "dipole": jax.ops.segment_sum(vector, graph.receivers, atoms)}

    def decay_mask(self) -> "Learner":
        mask = jax.tree.map(lambda _: True, self)
        return eqx.tree_at(lambda m: m.bias, mask, False)


def register(monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    """Make the learner known as a model, so that its model files can be read."""
    entry = (LearnerConfig, Learner)
    if monkeypatch is None:
        equiform.models.MODELS["learner"] = entry
    else:
        monkeypatch.setitem(equiform.models.MODELS, "learner", entry)


def learner(seed: int = 0, **config: Any) -> Potential:
    return Potential(Learner(LearnerConfig(**config), key=jax.random.key(seed)), scale=2.0)


def molecule(rng: np.random.Generator, atoms: int, **labels: Any) -> Graph:
    """A chain of atoms with Morse energies and forces in NumPy; labels may be replaced."""
    positions = np.cumsum(rng.normal([1.2, 0, 0], 0.25, (atoms, 3)), axis=0)
    senders, receivers = fully_connected_edges(atoms)
    vectors = positions[senders] - positions[receivers]
    r = np.linalg.norm(vectors, axis=1)
    near = r < 4.0
    senders, receivers, vectors, r = senders[near], receivers[near], vectors[near], r[near]
    decay = np.exp(-1.5 * (r - 1.2))
    window, slope = (1 - (r / 4) ** 2) ** 3, -6 * (r / 16) * (1 - (r / 4) ** 2) ** 2
    morse, gradient = (1 - decay) ** 2 - 1, 3 * (1 - decay) * decay
    energy = 0.5 * (morse * window).sum()
    pull = ((gradient * window + morse * slope) / r)[:, None] * vectors
    forces = np.zeros((atoms, 3))
    np.add.at(forces, receivers, pull)
    fields: dict[str, Any] = {"energy": np.asarray(energy), "forces": forces} | labels
    return make_graph(
        positions,
        rng.choice([1, 6, 8], atoms),
        senders,
        receivers,
        node_fields={"forces": fields.pop("forces")},
        graph_fields=fields,
    )


def molecules(count: int, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    return Dataset([molecule(rng, int(rng.integers(2, 7))) for _ in range(count)], 4.0)
