"""The conformance suite that every model must pass, for use in anybody's tests.

Each check takes a `Potential` and raises `AssertionError` with the measured error when the claim does not hold. They run in
float64: enable it first (`jax.config.update("jax_enable_x64", True)`), and build the model afterwards.

    from equiform.testing.conformance import CHECKS, check
    for name in CHECKS:
        check(name, potential)
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from equiform.graph import Capacity, Graph, batch, make_graph, to_device
from equiform.neighbors import neighbor_list
from equiform.tasks.energy import Potential

Check = Callable[[Potential], None]
CHECKS: dict[str, Check] = {}


def check(name: str, potential: Potential) -> None:
    """Run one check by name.

    Raises:
        AssertionError: The potential does not conform.
        RuntimeError: float64 is off, so no tolerance would mean anything.
    """
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise RuntimeError('the checks need float64: jax.config.update("jax_enable_x64", True) before building the model')
    CHECKS[name](potential)


def _listed(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def molecule(potential: Potential, num_atoms: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions (Å) and species of a random compact molecule of the model's elements, no two atoms nearer than 0.9 Å."""
    rng = np.random.default_rng(seed)
    species = rng.choice(_elements(potential), num_atoms)
    positions: list[np.ndarray] = []
    while len(positions) < num_atoms:
        trial = rng.normal(size=3) * 1.6
        if all(np.linalg.norm(trial - other) > 0.9 for other in positions):
            positions.append(trial)
    return np.array(positions), species


def graph_of(
    potential: Potential,
    positions: np.ndarray,
    species: np.ndarray,
    cell: np.ndarray | None = None,
    *,
    tags: np.ndarray | None = None,
) -> Graph:
    """A host graph with the model's cutoff; periodic if a cell is given."""
    periodic = np.full(3, cell is not None)
    senders, receivers, shifts = neighbor_list(
        positions, np.zeros((3, 3)) if cell is None else cell, periodic, potential.model.config.cutoff
    )
    fields = {}
    if num_tags := getattr(potential.model.config, "num_tags", 0):
        fields["tags"] = np.arange(len(species)) % num_tags if tags is None else tags
    return make_graph(positions, species, senders, receivers, shifts=shifts, cell=cell, node_fields=fields)


def evaluate(potential: Potential, graph: Graph, *, stress: bool = False) -> dict[str, np.ndarray]:
    """Compiled energy, forces and other outputs of a host graph, in the precision of the model's parameters.

    The graph is padded to a common capacity, so that all checks share a compiled program.
    """
    dtype = next(leaf.dtype for leaf in jax.tree.leaves(potential) if eqx.is_inexact_array(leaf))
    size = graph.capacity
    capacity = Capacity(max(16, size.atoms), max(192, size.edges), max(4, size.graphs))
    results = _compiled(potential, to_device(batch([graph], capacity), dtype), stress)
    rows = {capacity.atoms: size.atoms, capacity.graphs: size.graphs}
    return {name: np.asarray(value)[: rows[value.shape[0]]] for name, value in results.items()}


@eqx.filter_jit
def _compiled(potential: Potential, graph: Graph, stress: bool) -> dict[str, jax.Array]:
    return potential(graph, stress=stress)


@_listed
def invariant_under_rotations(potential: Potential) -> None:
    """Energy is invariant, forces and other vectors rotate with the structure, to 1e-10."""
    positions, species = molecule(potential)
    before = evaluate(potential, graph_of(potential, positions, species))
    for seed in range(3):
        rotation = random_rotation(seed)
        after = evaluate(potential, graph_of(potential, positions @ rotation.T, species))
        _close(after["energy"], before["energy"], 1e-10, "energy under rotation")
        for name in _vectors(before):
            _close(after[name], before[name] @ rotation.T, 1e-10, f"{name} under rotation")


@_listed
def invariant_under_reflections(potential: Potential) -> None:
    """With true parities the energy is the same in the mirror. (SE(3) models, all even, may tell left from right.)"""
    if not getattr(potential.model.config, "true_parity", True):
        return
    positions, species = molecule(potential)
    before = evaluate(potential, graph_of(potential, positions, species))
    after = evaluate(potential, graph_of(potential, -positions, species))
    _close(after["energy"], before["energy"], 1e-10, "energy under inversion")
    for name in _vectors(before):
        _close(after[name], -before[name], 1e-10, f"{name} under inversion")


@_listed
def invariant_under_translations(potential: Potential) -> None:
    """Moving everything changes nothing."""
    positions, species = molecule(potential)
    before = evaluate(potential, graph_of(potential, positions, species))
    after = evaluate(potential, graph_of(potential, positions + np.array([3.0, -20.0, 7.0]), species))
    _close(after["energy"], before["energy"], 1e-10, "energy under translation")
    _close(after["forces"], before["forces"], 1e-10, "forces under translation")


@_listed
def equivariant_under_permutations(potential: Potential) -> None:
    """The order of the atoms does not matter."""
    positions, species = molecule(potential)
    order = np.random.default_rng(1).permutation(len(species))
    tags = np.arange(len(species)) % max(getattr(potential.model.config, "num_tags", 0), 1)
    before = evaluate(potential, graph_of(potential, positions, species, tags=tags))
    after = evaluate(potential, graph_of(potential, positions[order], species[order], tags=tags[order]))
    _close(after["energy"], before["energy"], 1e-10, "energy under permutation")
    _close(after["forces"], before["forces"][order], 1e-10, "forces under permutation")


@_listed
def forces_are_the_gradient(potential: Potential) -> None:
    """Forces equal central differences of the energy, to 1e-6."""
    positions, species = molecule(potential)
    graph = graph_of(potential, positions, species)
    forces = evaluate(potential, graph)["forces"]
    step = 1e-4
    for atom, axis in [(0, 0), (1, 2), (3, 1)]:
        energies = []
        for sign in (1, -1):
            moved = positions.copy()
            moved[atom, axis] += sign * step
            energies.append(evaluate(potential, graph.replace(positions=moved))["energy"][0])
        _close(forces[atom, axis], -(energies[0] - energies[1]) / (2 * step), 1e-6, "force against finite differences")


@_listed
def stress_is_the_strain_gradient(potential: Potential) -> None:
    """Stress equals central differences of the energy with respect to strain over volume, to 1e-6, in a skewed cell."""
    positions, species = molecule(potential, 4)
    cell = np.array([[5.1, 0.0, 0.0], [1.3, 4.7, 0.0], [-0.8, 0.9, 5.6]])
    graph = graph_of(potential, positions, species, cell)
    stress = evaluate(potential, graph, stress=True)["stress"][0]
    _close(stress, stress.T, 1e-10, "symmetry of the stress")
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
        _close(stress[i, j], numeric, 1e-6, "stress against finite differences")


@_listed
def smooth_through_the_cutoff(potential: Potential) -> None:
    """Energy and forces of a pair, each atom the other's only neighbour, go continuously through the cutoff.

    Models whose configuration says `cutoff_kind = "sharp"` are exempt: the published function jumps there.
    """
    if getattr(potential.model.config, "cutoff_kind", "smooth") == "sharp":
        return
    cutoff, species = potential.model.config.cutoff, _elements(potential)[:1].repeat(2)

    def at(distance: float, *, listed: bool = True) -> dict[str, np.ndarray]:
        # The edge stays in the list beyond the cutoff: the model itself must let it go.
        positions = np.array([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])
        fields = {"tags": np.zeros(2, int)} if getattr(potential.model.config, "num_tags", 0) else {}
        edges = ([0, 1], [1, 0]) if listed else ([], [])
        return evaluate(potential, make_graph(positions, species, *edges, node_fields=fields))

    outside = at(cutoff + 1e-3)
    without = at(cutoff + 1e-3, listed=False)
    _close(outside["energy"], without["energy"], 1e-12, "energy with an edge beyond the cutoff, or without it")
    for gap, tolerance in ((1e-6, 1e-10), (1e-4, 1e-7)):
        inside = at(cutoff - gap)
        _close(inside["energy"], outside["energy"], tolerance, f"energy {gap} Å inside the cutoff")
        _close(inside["forces"], outside["forces"], 1e3 * tolerance, f"forces {gap} Å inside the cutoff")
    _close(outside["forces"], 0.0, 1e-14, "forces beyond the cutoff")
    near = at(0.6 * cutoff)
    assert np.abs(near["forces"]).max() > 1e-8, "the pair does not interact even well inside the cutoff"


@_listed
def padding_changes_nothing(potential: Potential) -> None:
    """Padding atoms and edges, the edges pointing at real atoms, leave every result as it is."""
    positions, species = molecule(potential)
    graph = graph_of(potential, positions, species)
    before = evaluate(potential, graph)
    size = graph.capacity
    padded = batch([graph], Capacity(size.atoms + 5, size.edges + 9, 2))
    edges = size.edges
    senders, receivers = padded.senders.copy(), padded.receivers.copy()
    receivers[edges:] = len(species) - 1
    senders[edges:] = np.arange(len(senders) - edges) % (len(species) - 1)
    after = evaluate(potential, padded.replace(senders=senders, receivers=receivers))
    _close(after["energy"][0], before["energy"][0], 1e-12, "energy with padding")
    _close(after["forces"][: len(species)], before["forces"], 1e-12, "forces with padding")
    _close(after["forces"][len(species) :], 0.0, 0.0, "forces on padding atoms")


@_listed
def batches_are_independent(potential: Potential) -> None:
    """A structure has the same energy alone and in company."""
    graphs = [graph_of(potential, *molecule(potential, n, seed)) for n, seed in ((7, 0), (4, 1), (1, 2))]
    together = evaluate(potential, batch(graphs))
    for index, graph in enumerate(graphs):
        _close(together["energy"][index], evaluate(potential, graph)["energy"][0], 1e-10, "energy in a batch")


@_listed
def far_apart_is_additive(potential: Potential) -> None:
    """Two molecules far apart in one structure have the sum of their energies (up to the shift per structure).

    Models whose configuration says `additive = False` are exempt: a published readout is a network on summed atoms.
    """
    if not getattr(potential.model.config, "additive", True):
        return
    first, second = molecule(potential, 5, 0), molecule(potential, 4, 1)
    apart = np.concatenate([first[0], second[0] + 50.0]), np.concatenate([first[1], second[1]])
    energies = [
        evaluate(potential, graph_of(potential, *structure, tags=np.zeros(len(structure[1]), int)))["energy"][0]
        - potential.shift
        for structure in (first, second, apart)
    ]
    _close(energies[2], energies[0] + energies[1], 1e-10, "additivity")


@_listed
def isolated_atom_has_its_reference_energy(potential: Potential) -> None:
    """The interaction energy of a lone atom is exactly zero in an anchored potential; always finite, without force."""
    for element in _elements(potential)[:3]:
        result = evaluate(potential, graph_of(potential, np.zeros((1, 3)), np.array([element])))
        assert np.isfinite(result["energy"]).all(), f"energy of an isolated atom is {result['energy']}"
        _close(result["forces"], 0.0, 0.0, "force on an isolated atom")
        if potential.anchored:
            _close(result["energy"], potential.shift, 1e-12, "energy of an isolated atom")


@_listed
def invariant_at_symmetric_geometries(potential: Potential) -> None:
    """CH4, CO2 and benzene in exact symmetry: energy spread over rotations ≤ 1e-10 (float64) and ≤ 1e-5 (float32).

    Models with `norm = "per_degree"` are exempt: the published normalisation amplifies rounding noise there.
    """
    if getattr(potential.model.config, "norm", "joint") == "per_degree":
        return
    elements = _elements(potential)
    light, heavy = elements[0], elements[min(1, len(elements) - 1)]
    single = jax.tree.map(lambda x: x.astype(np.float32) if eqx.is_inexact_array(x) else x, potential)
    for positions, pattern in _symmetric_molecules():
        species = np.where(pattern == 0, light, heavy)
        for candidate, tolerance in ((potential, 1e-10), (single, 1e-5)):
            energies, forces = [], []
            for seed in range(5):
                rotation = random_rotation(seed) if seed else np.eye(3)
                result = evaluate(candidate, graph_of(candidate, positions @ rotation.T, species))
                energies.append(result["energy"][0])
                forces.append(result["forces"] @ rotation)
            _close(np.ptp(energies), 0.0, tolerance, "energy spread of a symmetric molecule over rotations")
            _close(np.ptp(forces, axis=0), 0.0, 10 * tolerance, "force spread of a symmetric molecule over rotations")


@_listed
def degenerate_edges_are_finite(potential: Potential) -> None:
    """Overlapping atoms, edges along the axes and collinear atoms give finite energies and forces."""
    element = _elements(potential)[0]
    for positions in (
        np.zeros((2, 3)),
        np.array([[0.0, 0, 0], [0, 1.1, 0], [0, -1.1, 0]]),
        np.array([[0.0, 0, 0], [0, 0, 0], [0, 0, 1.2]]),
    ):
        count = len(positions)
        senders, receivers = np.nonzero(~np.eye(count, dtype=bool))
        fields = {"tags": np.zeros(count, int)} if getattr(potential.model.config, "num_tags", 0) else {}
        graph = make_graph(positions, np.full(count, element), senders, receivers, node_fields=fields)
        result = evaluate(potential, graph)
        for name in ("energy", "forces"):
            assert np.isfinite(result[name]).all(), f"{name} of a degenerate geometry is not finite: {positions.tolist()}"


@_listed
def compiled_equals_eager(potential: Potential) -> None:
    """`jit` does not change the result."""
    graph = to_device(graph_of(potential, *molecule(potential, 4)), np.float64)
    eager = potential.outputs(graph)["energy"]
    _close(eqx.filter_jit(potential.outputs)(graph)["energy"], eager, 1e-11, "compiled against eager")


@_listed
def single_precision_is_close(potential: Potential) -> None:
    """float32 agrees with float64 to 2e-5 relative in energy and 1e-3 of the largest force."""
    graph = graph_of(potential, *molecule(potential))
    double = evaluate(potential, graph)
    single = evaluate(jax.tree.map(lambda x: x.astype(np.float32) if eqx.is_inexact_array(x) else x, potential), graph)
    scale = np.abs(double["energy"]).max() + potential.scale
    _close(single["energy"], double["energy"], 2e-5 * scale, "float32 energy")
    _close(single["forces"], double["forces"], 1e-3 * np.abs(double["forces"]).max() + 1e-6, "float32 forces")


@_listed
def saving_and_loading_is_exact(potential: Potential) -> None:
    """A model file gives back the same numbers, bit for bit."""
    import tempfile
    from pathlib import Path

    from equiform.persist.modelfile import load_model, save_model

    graph = graph_of(potential, *molecule(potential, 4))
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", potential, {})
        again = load_model(Path(folder) / "model").potential
    _close(evaluate(again, graph)["energy"], evaluate(potential, graph)["energy"], 0.0, "energy after loading")


@_listed
def loss_falls(potential: Potential) -> None:
    """A dozen steps of gradient descent with Adam on one structure reduce the energy error by half."""
    graph = to_device(graph_of(potential, *molecule(potential, 4)), np.float64)
    arrays, static = eqx.partition(potential, eqx.is_inexact_array)
    target = eqx.filter_jit(potential.outputs)(graph)["energy"].sum() + 0.5 * potential.scale

    def loss(arrays: Any) -> jax.Array:
        return ((eqx.combine(arrays, static).outputs(graph)["energy"].sum() - target) / potential.scale) ** 2

    values = losses_of_adam(loss, arrays, rate=3e-3, steps=12)
    assert min(values) < 0.5 * values[0], f"the loss went from {values[0]:.3g} to {min(values):.3g} only"


def losses_of_adam(loss: Callable[[Any], jax.Array], arrays: Any, *, rate: float, steps: int) -> list[float]:
    """The loss before each step of gradient descent with Adam, from given parameters."""
    import optax

    optimizer = optax.adam(rate)

    @jax.jit
    def step(arrays: Any, state: Any) -> tuple[Any, Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(arrays)
        with jax.numpy_dtype_promotion("standard"):  # Optax relies on implicit promotion of its integer count.
            updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(arrays, updates), state, value

    state, values = optimizer.init(arrays), []
    for _ in range(steps):
        arrays, state, value = step(arrays, state)
        values.append(float(value))
    return values


def _elements(potential: Potential) -> np.ndarray:
    """Some elements that the model knows, hydrogen to oxygen where it can."""
    known = [z for z in potential.model.config.elements if z > 0]
    return np.array([z for z in (1, 6, 8, 7) if z in known] or known[:4])


def _vectors(result: dict[str, np.ndarray]) -> list[str]:
    return [name for name, value in result.items() if value.ndim == 2 and value.shape[1] == 3]


def random_rotation(seed: int) -> np.ndarray:
    """A proper rotation matrix, uniform over rotations."""
    matrix, upper = np.linalg.qr(np.random.default_rng(100 + seed).normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(upper))
    return matrix * np.linalg.det(matrix)


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


def _close(got: Any, expected: Any, tolerance: float, what: str) -> None:
    error = np.abs(np.asarray(got) - np.asarray(expected)).max()
    assert error <= tolerance, f"{what}: differs by {error:.2e}, allowed {tolerance:.0e}"
