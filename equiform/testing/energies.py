"""Checks of potentials: derivatives, the cutoff, isolated atoms, exact symmetry."""

import numpy as np

from equiform.algebra.so3.rotations import random_rotation
from equiform.graph import make_graph
from equiform.tasks.api import Task
from equiform.tasks.energy import Potential
from equiform.testing.samples import (
    Check,
    close,
    elements_of,
    evaluate,
    graph_of,
    is_potential,
    molecule,
    node_fields,
    sample,
    single,
)


def forces_are_the_gradient(potential: Potential) -> None:
    """Forces equal central differences of the energy, to 1e-6."""
    graph = sample(potential)
    forces = evaluate(potential, graph)["forces"]
    step = 1e-4
    for atom, axis in [(0, 0), (1, 2), (3, 1)]:
        energies = []
        for sign in (1, -1):
            moved = graph.positions.copy()
            moved[atom, axis] += sign * step
            energies.append(evaluate(potential, graph.replace(positions=moved))["energy"][0])
        close(forces[atom, axis], -(energies[0] - energies[1]) / (2 * step), 1e-6, "force against finite differences")


def stress_is_the_strain_gradient(potential: Potential) -> None:
    """Stress equals central differences of the energy with respect to strain over volume, to 1e-6, in a skewed cell."""
    positions, species = molecule(potential, 4)
    cell = np.array([[5.1, 0.0, 0.0], [1.3, 4.7, 0.0], [-0.8, 0.9, 5.6]])
    graph = graph_of(potential, positions, species, cell)
    stress = evaluate(potential, graph, stress=True)["stress"][0]
    close(stress, stress.T, 1e-10, "symmetry of the stress")
    step = 1e-5
    for i, j in [(0, 0), (1, 2), (2, 2)]:
        energies = []
        for sign in (1, -1):
            deform = np.eye(3)
            deform[i, j] += 0.5 * sign * step
            deform[j, i] += 0.5 * sign * step
            strained = graph.replace(positions=positions @ deform, cell=graph.cell @ deform)
            energies.append(evaluate(potential, strained)["energy"][0])
        numeric = (energies[0] - energies[1]) / (2 * step) / np.linalg.det(cell)
        close(stress[i, j], numeric, 1e-6, "stress against finite differences")


def smooth_through_the_cutoff(potential: Potential) -> None:
    """Energy and forces of a pair, each atom the other's only neighbour, are continuous through the cutoff."""
    cutoff, species = potential.model.traits.cutoff, elements_of(potential)[:1].repeat(2)
    assert cutoff is not None, "the traits claim a smooth cutoff, but there is none"
    fields = node_fields(potential, 2)

    def at(distance: float, *, listed: bool = True) -> dict[str, np.ndarray]:
        # The edge stays in the list beyond the cutoff: the model itself must drop it.
        positions = np.array([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])
        edges = ([0, 1], [1, 0]) if listed else ([], [])
        return evaluate(potential, make_graph(positions, species, *edges, node_fields=fields))

    outside = at(cutoff + 1e-3)
    without = at(cutoff + 1e-3, listed=False)
    close(outside["energy"], without["energy"], 1e-12, "energy with an edge beyond the cutoff, or without it")
    for gap, tolerance in ((1e-6, 1e-10), (1e-4, 1e-7)):
        inside = at(cutoff - gap)
        close(inside["energy"], outside["energy"], tolerance, f"energy {gap} Å inside the cutoff")
        close(inside["forces"], outside["forces"], 1e3 * tolerance, f"forces {gap} Å inside the cutoff")
    close(outside["forces"], 0.0, 1e-14, "forces beyond the cutoff")
    near = at(0.6 * cutoff)
    assert np.abs(near["forces"]).max() > 1e-8, "the pair does not interact even well inside the cutoff"


def isolated_atom_has_its_reference_energy(potential: Potential) -> None:
    """The interaction energy of a lone atom is exactly zero in an anchored potential; always finite, with zero force."""
    for element in elements_of(potential)[:3]:
        result = evaluate(potential, graph_of(potential, np.zeros((1, 3)), np.array([element])))
        assert np.isfinite(result["energy"]).all(), f"energy of an isolated atom is {result['energy']}"
        close(result["forces"], 0.0, 0.0, "force on an isolated atom")
        if potential.anchored:
            close(result["energy"], potential.shift, 1e-12, "energy of an isolated atom")


def invariant_at_symmetric_geometries(potential: Potential) -> None:
    """CH4, CO2 and benzene in exact symmetry: energy spread over rotations ≤ 1e-10 (float64) and ≤ 1e-5 (float32)."""
    elements = elements_of(potential)
    light, heavy = elements[0], elements[min(1, len(elements) - 1)]
    for positions, pattern in _symmetric_molecules():
        species = np.where(pattern == 0, light, heavy)
        for candidate, tolerance in ((potential, 1e-10), (single(potential), 1e-5)):
            energies, forces = [], []
            for seed in range(5):
                rotation = random_rotation(seed) if seed else np.eye(3)
                result = evaluate(candidate, graph_of(candidate, positions @ rotation.T, species))
                energies.append(result["energy"][0])
                forces.append(result["forces"] @ rotation)
            close(np.ptp(energies), 0.0, tolerance, "energy spread of a symmetric molecule over rotations")
            close(np.ptp(forces, axis=0), 0.0, 10 * tolerance, "force spread of a symmetric molecule over rotations")


def degenerate_edges_are_finite(potential: Potential) -> None:
    """Overlapping atoms, edges along the axes and collinear atoms give finite energies and forces."""
    element = elements_of(potential)[0]
    for positions in (
        np.zeros((2, 3)),
        np.array([[0.0, 0, 0], [0, 1.1, 0], [0, -1.1, 0]]),
        np.array([[0.0, 0, 0], [0, 0, 0], [0, 0, 1.2]]),
    ):
        count = len(positions)
        senders, receivers = np.nonzero(~np.eye(count, dtype=bool))
        fields = node_fields(potential, count)
        result = evaluate(potential, make_graph(positions, np.full(count, element), senders, receivers, node_fields=fields))
        for name in ("energy", "forces"):
            assert np.isfinite(result[name]).all(), f"{name} of a degenerate geometry is not finite: {positions.tolist()}"


def _symmetric_molecules() -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions and a pattern (0 light, 1 heavy) of CH4, CO2 and C6H6, in exact symmetry."""
    corner = 1.09 / np.sqrt(3)
    methane = corner * np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
    dioxide = np.array([[0, 0, 0], [0, 0, 1.16], [0, 0, -1.16]])
    angles = np.arange(6) * np.pi / 3
    ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    benzene = np.concatenate([1.39 * ring, 2.48 * ring])
    return [
        (methane, np.array([1, 0, 0, 0, 0])),
        (dioxide, np.array([0, 1, 1])),
        (benzene, np.repeat([1, 0], 6)),
    ]


def _needs_nothing(task: Task) -> bool:
    # Random vectors as inputs would break the exact symmetry.
    return is_potential(task) and not [field for field in task.model.traits.needs if field.name != "tags"]


CHECKS = (
    Check(forces_are_the_gradient, is_potential),
    Check(stress_is_the_strain_gradient, is_potential),
    Check(smooth_through_the_cutoff, lambda task: is_potential(task) and task.model.traits.smooth),
    Check(isolated_atom_has_its_reference_energy, is_potential),
    Check(invariant_at_symmetric_geometries, lambda task: task.model.traits.stable and _needs_nothing(task)),
    Check(degenerate_edges_are_finite, is_potential),
)
