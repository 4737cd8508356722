"""Energies as a function of edge vectors, for programs with their own atoms, images and neighbour lists."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equiform.graph import Graph
from equiform.tasks.energy import Potential


def edge_energy(potential: Potential, graph: Graph, *, owned: Bool[Array, " atoms"] | None = None) -> Float[Array, " atoms"]:
    """The energy of each owned atom, eV, as a pure function of `graph.vectors`; zero for ghosts and padding.

    A program with domain decomposition, or with explicit periodic images, has ghosts in addition to the atoms it owns: copies
    of atoms that are owned elsewhere. Edges into ghosts must be given too, within the receptive field of the model
    (`num_layers` cutoffs around the owned atoms, one more for Equiformer with its degree embedding, and another one if an
    attention layer reads its energy). Then the sum over owned atoms is the energy; its derivative with respect to the vectors
    gives forces on atoms and ghosts (`equiform.edges.forces_from_edges`); those on ghosts must be added to their owners'. The
    shift per structure is left out, and so are reference energies, as everywhere in a potential.

    Args:
        potential: Its model reads only edges, and its energies are sums over atoms.
        graph: Atoms and ghosts, with `vectors`; positions and cells are ignored.
        owned: False for ghosts; None: all real atoms are owned.

    Raises:
        ValueError: The model reads positions too, or predicts no energy, or there are no vectors.
    """
    if not potential.by_edges:
        raise ValueError("this model reads positions other than through edges, so edge vectors do not determine its energy")
    if graph.vectors is None:
        raise ValueError("the graph has no edge vectors; set them with graph.replace(vectors=...)")
    outputs = potential.outputs(graph)
    if "energy" not in outputs:
        raise ValueError(f"this model predicts no energy; it predicts {', '.join(sorted(outputs))}")
    counted = jnp.asarray(graph.atom_mask) if owned is None else jnp.asarray(graph.atom_mask) & owned
    return jnp.where(counted, outputs["energy"], 0)
