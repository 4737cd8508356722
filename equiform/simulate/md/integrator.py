"""The device side of molecular dynamics: many steps in one compiled loop.

A state is stored just before a force evaluation: positions of step n, velocities of step n − ½. So the loop can
check the positions first and stop before computing forces with a neighbour list that is no longer valid. One
iteration of the loop, with h = Δt/2 and a = F(x)/m:

    v ← v + h a                                          step n is complete: energies are recorded
    v ← v + h a                                          velocities of step n + ½
    x ← x + Δt v                                         NVE: velocity Verlet
    x ← x + h v;  v ← c v + √(1 − c²) √(kT/m) ξ;  x ← x + h v      NVT: BAOAB, c = exp(−γ Δt)

Positions and velocities are sums of two floats (`TwoFloat`), which costs a dozen additions per atom and removes
the rounding error of a float32 trajectory from the energy drift; forces stay in the model's dtype. The model
gets positions relative to the first atom, so that float32 loses no precision when a molecule drifts away.

Source: B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013, 34 (BAOAB).
"""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from equiform.edges import within
from equiform.graph import Graph
from equiform.runtime.compilation import jit
from equiform.tasks.energy import Potential

RUNNING, STALE, OVERFLOW, EXPLODED = range(4)


class TwoFloat(NamedTuple):
    """An unevaluated sum high + low with twice the precision of its dtype."""

    high: Array
    low: Array

    def plus(self, increment: Array) -> "TwoFloat":
        """Add, carrying the rounding error of the sum (D. E. Knuth's two-sum)."""
        increment = increment + self.low
        high = self.high + increment
        added = high - self.high
        return TwoFloat(high, (self.high - (high - added)) + (increment - added))

    def minus(self, other: "TwoFloat") -> Array:
        return (self.high - other.high) + (self.low - other.low)


class Snapshot(eqx.Module):
    """A completed step; energies in eV, velocities in Å per ASE time unit (√(amu Å²/eV))."""

    step: Int[Array, ""]
    positions: TwoFloat
    velocities: Float[Array, "atoms 3"]
    forces: Float[Array, "atoms 3"]
    potential_energy: Float[Array, ""]
    kinetic_energy: Float[Array, ""]


class State(eqx.Module):
    """Everything the rest of a trajectory depends on, besides its neighbour list.

    Attributes:
        step: The step whose forces are evaluated next.
        positions: Positions at that step, Å.
        velocities: Velocities half a step before it; at step 0 the initial ones.
        last: The last completed step that passed the checks; its step is −1 before the first.
    """

    step: Int[Array, ""]
    positions: TwoFloat
    velocities: TwoFloat
    last: Snapshot


class System(eqx.Module):
    """The constants of a run.

    Attributes:
        species: Atomic numbers.
        masses: In amu.
        inverse_masses: 1/amu; zero for a fixed atom.
        cell: Cell vectors as rows, Å; zero without a cell.
        time_step: In ASE time units.
        thermal_energy: kT of the thermostat, eV.
        friction: γ of the thermostat, per ASE time unit.
        max_force: A larger force counts as an explosion, eV/Å.
        max_kinetic_energy: A larger kinetic energy counts as an explosion, eV.
        key: Random key of the thermostat; the noise of a step depends only on it and on the step number.
        node_fields: Further per-atom inputs of the model.
    """

    species: Int[Array, "atoms"]
    masses: Float[Array, "atoms"]
    inverse_masses: Float[Array, "atoms"]
    cell: Float[Array, "1 3 3"]
    time_step: Float[Array, ""]
    thermal_energy: Float[Array, ""]
    friction: Float[Array, ""]
    max_force: Float[Array, ""]
    max_kinetic_energy: Float[Array, ""]
    key: PRNGKeyArray
    node_fields: dict[str, Array] = eqx.field(default_factory=dict)


class Candidates(eqx.Module):
    """The pairs of atoms that may come within the cutoff.

    Attributes:
        senders: Sending atom of each edge.
        receivers: Receiving atom of each edge; ascending.
        shifts: Multiples of the cell vectors by which the sender is displaced.
        mask: False for padding.
        reference: Positions for which the list was built, Å.
        max_displacement: The list is stale when an atom has moved farther than this, Å; infinite for a list
            of all pairs.
    """

    senders: Int[Array, "edges"]
    receivers: Int[Array, "edges"]
    shifts: Int[Array, "edges 3"]
    mask: Bool[Array, "edges"]
    reference: TwoFloat
    max_displacement: Float[Array, ""]


class Records(eqx.Module):
    """The output of a chunk of steps: energies of every step, and frames.

    `thermal_energy` is the kinetic energy that defines the temperature. NVT takes it half a step later than
    `kinetic_energy`: BAOAB samples that velocity without an error of order Δt² for a harmonic force.
    """

    potential_energy: Float[Array, "steps"]
    kinetic_energy: Float[Array, "steps"]
    thermal_energy: Float[Array, "steps"]
    max_force: Float[Array, "steps"]
    positions: Float[Array, "frames atoms 3"]
    velocities: Float[Array, "frames atoms 3"]
    forces: Float[Array, "frames atoms 3"]


class LoopSettings(NamedTuple):
    """The compile-time constants of a run.

    Attributes:
        ensemble: "nve" or "nvt".
        cutoff: The model's cutoff, Å.
        active_edges: Number of edges passed to the model; if smaller than the list, the edges within the
            cutoff are gathered first.
        max_steps: Maximum number of steps in one chunk.
        max_frames: Maximum number of frames in one chunk.
        frame_interval: Steps between frames.
    """

    ensemble: Literal["nve", "nvt"]
    cutoff: float
    active_edges: int
    max_steps: int
    max_frames: int
    frame_interval: int


class _Carry(NamedTuple):
    state: State
    relative: Array  # positions relative to the first atom
    inside: Array  # which candidates are within the cutoff
    status: Array
    records: Records


_traces = 0


def compilations() -> int:
    """Number of times the loop was compiled in this process."""
    return _traces


@jit
def advance(
    potential: Potential,
    system: System,
    candidates: Candidates,
    state: State,
    stop: Int[Array, ""],
    settings: LoopSettings,
) -> tuple[State, Int[Array, ""], Records]:
    """Run until step `stop` is complete, or until the neighbour list or the forces stop the loop.

    Returns:
        The new state; RUNNING (`stop` reached), STALE (the list must be rebuilt), OVERFLOW (more edges within
        the cutoff than `active_edges`) or EXPLODED (the forces of step `state.step` are invalid); and the
        records, entry i being that of step `start + i`.
    """
    global _traces
    _traces += 1
    start, dtype = state.step, system.masses.dtype

    def checked(state: State) -> tuple[Array, Array, Array]:
        """Relative positions, edges within the cutoff, and whether the list is still valid."""
        positions = state.positions
        relative = (positions.high - positions.high[:1]) + (positions.low - positions.low[:1])
        offsets = candidates.shifts.astype(dtype) @ system.cell[0]
        vectors = relative[candidates.senders] + offsets - relative[candidates.receivers]
        inside = candidates.mask & within((vectors**2).sum(-1), settings.cutoff**2)
        moved = (positions.minus(candidates.reference) ** 2).sum(-1).max()
        # Written so that a NaN counts as stale.
        status = jnp.where(moved <= candidates.max_displacement**2, RUNNING, STALE)
        if settings.active_edges < inside.shape[0]:
            overflow = (status == RUNNING) & (inside.sum() > settings.active_edges)
            status = jnp.where(overflow, OVERFLOW, status)
        return relative, inside, status.astype(jnp.int32)

    def step(carry: _Carry) -> _Carry:
        state, records = carry.state, carry.records
        graph = _graph(system, candidates, carry.relative, carry.inside, settings.active_edges)
        result = potential(graph, forces=True)
        energy, forces = result["energy"][0], result["forces"]
        kick = (0.5 * system.time_step) * forces * system.inverse_masses[:, None]
        velocities = state.velocities.plus(jnp.where(state.step > 0, 1, 0).astype(dtype) * kick)
        kinetic = _kinetic_energy(system, velocities)
        max_force = jnp.sqrt((forces**2).sum(-1).max())
        sound = jnp.isfinite(energy) & (max_force <= system.max_force) & (kinetic <= system.max_kinetic_energy)
        last = Snapshot(state.step, state.positions, velocities.high, forces, energy, kinetic)

        velocities = velocities.plus(kick)
        thermal = kinetic
        if settings.ensemble == "nve":
            positions = state.positions.plus(system.time_step * velocities.high)
            positions = positions.plus(system.time_step * velocities.low)
        else:
            thermal = _kinetic_energy(system, velocities)
            positions = state.positions.plus((0.5 * system.time_step) * velocities.high)
            velocities = _thermalised(system, velocities, state.step)
            positions = positions.plus((0.5 * system.time_step) * velocities.high)
        records = _recorded(records, last, thermal, max_force, start, settings)

        new = State(state.step + 1, positions, velocities, last)
        relative, inside, status = checked(new)
        state = jax.tree.map(lambda ahead, here: jnp.where(sound, ahead, here), new, state)
        return _Carry(state, relative, inside, jnp.where(sound, status, EXPLODED), records)

    def running(carry: _Carry) -> Array:
        return (carry.status == RUNNING) & (carry.state.step <= stop)

    carry = _Carry(state, *checked(state), _empty_records(state, settings))
    carry = jax.lax.while_loop(running, step, carry)
    return carry.state, carry.status, carry.records


def _graph(system: System, candidates: Candidates, positions: Array, inside: Array, active_edges: int) -> Graph:
    """The graph of the edges within the cutoff: masked in place, or gathered if that saves work."""
    senders, receivers, shifts, mask = candidates.senders, candidates.receivers, candidates.shifts, inside
    if active_edges < inside.shape[0]:
        chosen = jnp.nonzero(inside, size=active_edges, fill_value=0)[0]
        mask = jnp.arange(active_edges) < inside.sum()
        last_atom = jnp.asarray(positions.shape[0] - 1, senders.dtype)
        senders = jnp.where(mask, senders[chosen], last_atom)
        receivers = jnp.where(mask, receivers[chosen], last_atom)
        shifts = jnp.where(mask[:, None], shifts[chosen], 0)
    return Graph(
        positions=positions,
        species=system.species,
        senders=senders,
        receivers=receivers,
        shifts=shifts,
        cell=system.cell,
        graph_index=jnp.zeros_like(system.species),
        atom_mask=jnp.ones_like(system.species, bool),
        edge_mask=mask,
        graph_mask=jnp.ones(1, bool),
        node_fields=system.node_fields,
    )


def _kinetic_energy(system: System, velocities: TwoFloat) -> Array:
    return 0.5 * (system.masses * (velocities.high**2).sum(-1)).sum()


def _thermalised(system: System, velocities: TwoFloat, step: Array) -> TwoFloat:
    """The exact solution of dv = −γ v dt + √(2 γ kT/m) dW over one time step."""
    decay = jnp.exp(-system.friction * system.time_step)
    spread = jnp.sqrt(-jnp.expm1(-2 * system.friction * system.time_step) * system.thermal_energy)
    noise = jax.random.normal(jax.random.fold_in(system.key, step), velocities.high.shape, velocities.high.dtype)
    new = decay * velocities.high + spread * jnp.sqrt(system.inverse_masses)[:, None] * noise
    return TwoFloat(new, jnp.zeros_like(new))


def _empty_records(state: State, settings: LoopSettings) -> Records:
    dtype = state.positions.high.dtype
    steps = jnp.zeros(settings.max_steps, dtype)
    # One slot more than frames: steps that are not frames are written there, which is cheaper than a branch.
    frames = jnp.zeros((settings.max_frames + 1, *state.positions.high.shape), dtype)
    return Records(steps, steps, steps, steps, frames, frames, frames)


def _recorded(
    records: Records, last: Snapshot, thermal: Array, max_force: Array, start: Array, settings: LoopSettings
) -> Records:
    index = last.step - start
    first_frame = (start + settings.frame_interval - 1) // settings.frame_interval
    is_frame = last.step % settings.frame_interval == 0
    frame = jnp.where(is_frame, last.step // settings.frame_interval - first_frame, settings.max_frames)
    return Records(
        potential_energy=records.potential_energy.at[index].set(last.potential_energy),
        kinetic_energy=records.kinetic_energy.at[index].set(last.kinetic_energy),
        thermal_energy=records.thermal_energy.at[index].set(thermal),
        max_force=records.max_force.at[index].set(max_force),
        positions=records.positions.at[frame].set(last.positions.high),
        velocities=records.velocities.at[frame].set(last.velocities),
        forces=records.forces.at[frame].set(last.forces),
    )


def initial_state(positions: Any, velocities: Any, dtype: Any) -> State:
    """The state from which step 0 is evaluated, from float64 positions (Å) and velocities (ASE units)."""
    x, v = split(positions, dtype), split(velocities, dtype)
    zero = jnp.zeros((), dtype)
    last = Snapshot(jnp.asarray(-1, jnp.int32), x, v.high, jnp.zeros_like(v.high), zero, zero)
    return State(jnp.asarray(0, jnp.int32), x, v, last)


def split(values: Any, dtype: Any) -> TwoFloat:
    """A float64 host array as the sum of two numbers of `dtype`."""
    high = values.astype(dtype)
    return TwoFloat(*jax.device_put((high, (values - high).astype(dtype))))
