"""A model behind a socket, by i-PI's protocol: the force provider of i-PI, and of ASE's `SocketIOCalculator`.

The other program moves the atoms, in as many replicas and at whatever pressure it likes, and asks for energy, forces and
virial; the structure given here says which elements the atoms are.
"""

import time
import warnings
from typing import TYPE_CHECKING

from equiform.deploy.ase import EquiformCalculator
from equiform.deploy.predictor import Predictor
from equiform.deploy.structures import check_structure, has_stress
from equiform.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.socketio import SocketClient

PORT = 31415
"""i-PI's default port."""


def drive(
    predictor: Predictor,
    atoms: "Atoms",
    *,
    unix: str | None = None,
    host: str = "localhost",
    port: int = PORT,
    patience: float = 60.0,
) -> int:
    """Answer a server until it closes the connection.

    Args:
        predictor: The model.
        atoms: The structure, with its atoms in the order of the server's.
        unix: Name of a UNIX socket (`/tmp/ipi_NAME`); None: a socket of the network.
        host: The server's machine.
        port: The server's port.
        patience: Seconds to wait for the server to come up.

    Returns:
        Number of evaluations.

    Raises:
        UserError: There is no server, or it sends a structure that the model cannot take.
    """
    check_structure(atoms, predictor.task)
    moved = atoms.copy()
    moved.calc = EquiformCalculator(predictor)
    client = _connected(unix, host, port, patience)
    calls = 0
    try:
        for _ in client.irun(moved, use_stress=has_stress(atoms)):
            calls += 1
    finally:
        client.close()
    return calls


def _connected(unix: str | None, host: str, port: int, patience: float) -> "SocketClient":
    """A client of the server, as soon as there is one."""
    from ase.calculators.socketio import SocketClient

    end = time.monotonic() + patience
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # ASE leaves the socket open that was refused
            try:
                return SocketClient(host=host, port=port, unixsocket=unix)
            except OSError as error:
                reason = error.strerror or str(error)
        if time.monotonic() > end:
            place = f"UNIX socket /tmp/ipi_{unix}" if unix else f"{host}:{port}"
            raise UserError(f"no server answers at {place} ({reason}); start i-PI first, or give --unix or --port")
        time.sleep(0.1)
