"""Energies as a function of edge vectors: for programs that keep atoms, images and neighbours themselves."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equiform.graph import Graph
from equiform.tasks.energy import Potential


def edge_energy(potential: Potential, graph: Graph, *, owned: Bool[Array, " atoms"] | None = None) -> Float[Array, " atoms"]:
    """The energy of each owned atom, eV, as a pure function of `graph.vectors`; zero for ghosts and padding.

    A program that splits space among processes, or that writes periodic images out, has ghosts beside the atoms it owns:
    copies of atoms that are owned elsewhere. Edges into ghosts must be given too, as far as the layers of the model reach
    (`num_layers` cutoffs around what is owned). Then the sum over owned atoms is the energy; its derivative with respect to
    the vectors gives forces on atoms and ghosts (`equiform.edges.forces_from_edges`), those on ghosts being added to their
    owners'. The shift per structure is left out; reference energies are, as everywhere in a potential.

    Args:
        potential: With a model that reads only edges, and whose energies are sums over atoms.
        graph: Atoms and ghosts, with `vectors`; positions and cells are not looked at.
        owned: False for ghosts; None: all real atoms are owned.

    Raises:
        ValueError: The model reads positions too, or gives no energy, or there are no vectors.
    """
    if not potential.by_edges:
        raise ValueError("this model depends on positions not only through edges, so edge vectors do not decide its energy")
    if graph.vectors is None:
        raise ValueError("the graph has no edge vectors; set them with graph.replace(vectors=...)")
    outputs = potential.outputs(graph)
    if "energy" not in outputs:
        raise ValueError(f"this model gives no energy; it gives {', '.join(sorted(outputs))}")
    counted = jnp.asarray(graph.atom_mask) if owned is None else jnp.asarray(graph.atom_mask) & owned
    return jnp.where(counted, outputs["energy"], 0)
