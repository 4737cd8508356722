"""The benchmark cases: name → rows of the table."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from equiform.benchmark.inputs import Inputs, molecules_of, silicon, slabs
from equiform.benchmark.programs import Settings, inference, new_potential, training
from equiform.benchmark.rows import Row
from equiform.benchmark.streams import dynamics, epoch
from equiform.errors import UserError, suggest
from equiform.graph import batch


class Case(NamedTuple):
    """A benchmark.

    Attributes:
        about: One-line description.
        run: Yields its rows one by one.
        quick: Whether it runs by default.
    """

    about: str
    run: Callable[[Settings], Iterator[Row]]
    quick: bool


def _qm9(settings: Settings) -> Iterator[Row]:
    molecules, source = molecules_of("qm9", settings.inputs)
    inputs = Inputs(batch(molecules), source)
    potential = new_potential("qm9-l2-nonlinear", (1, 6, 7, 8, 9))
    yield inference("qm9", potential, inputs, settings)
    yield training("qm9", potential, inputs, settings, forces=False)


def _md17(name: str) -> Callable[[Settings], Iterator[Row]]:
    def run(settings: Settings) -> Iterator[Row]:
        molecules, source = molecules_of("aspirin", settings.inputs)
        inputs, potential = Inputs(batch(molecules), source), new_potential(name, (1, 6, 7, 8))
        yield inference(name, potential, inputs, settings, forces=True)
        yield training(name, potential, inputs, settings, forces=True)

    return run


def _crystal(num_atoms: int) -> Callable[[Settings], Iterator[Row]]:
    def run(settings: Settings) -> Iterator[Row]:
        potential = new_potential("small", (14,))
        yield inference(f"crystal-{num_atoms}", potential, silicon(num_atoms), settings, forces=True, stress=True)

    return run


def _slab(settings: Settings) -> Iterator[Row]:
    potential = new_potential("oc20-nonlinear", (6, 8, 13, 47, 78, 79, 82))
    yield inference("oc20", potential, slabs(4), settings)


def _md(settings: Settings) -> Iterator[Row]:
    molecules, source = molecules_of("aspirin", settings.inputs)
    for name in ("tiny", "md17-l2"):
        yield dynamics(name, Inputs(molecules[0], f"first of {source}"), settings)


def _epoch(settings: Settings) -> Iterator[Row]:
    yield epoch(settings)


CASES: dict[str, Case] = {
    "qm9": Case("32 molecules of QM9 in the published model: energy, training step on energies", _qm9, True),
    "md17-l2": Case("8 aspirins in the published model, L = 2: energy + forces, training step on both", _md17("md17-l2"), True),
    "md17-l3": Case("the same for L = 3", _md17("md17-l3"), False),
    "md": Case("molecular dynamics of one molecule of 21 atoms, presets tiny and md17-l2", _md, True),
    "crystal-1000": Case("1,000 atoms of silicon, preset small: energy, forces, stress", _crystal(1000), True),
    "crystal-10000": Case("the same with 10,000 atoms", _crystal(10_000), False),
    "qm9-epoch": Case("training on QM9 with real packing and loading: molecules per second, padding", _epoch, True),
    "oc20": Case("4 slabs of 77 atoms in the published model of OC20: energy", _slab, False),
}


def choose(names: list[str]) -> list[str]:
    """Names of cases: those given, the quick ones if none are given, all for `all`.

    Raises:
        UserError: There is no such case.
    """
    if not names:
        return [name for name, case in CASES.items() if case.quick]
    if names == ["all"]:
        return list(CASES)
    for name in names:
        if name not in CASES:
            raise UserError(f"there is no case {name!r}{suggest(name, CASES)}; there are: {', '.join(CASES)}, all")
    return list(dict.fromkeys(names))
