"""Outputs that dpdata reads and ASE does not, through the optional extra `formats`."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from equiform.data.formats.convergence import converged_steps
from equiform.data.formats.frames import Frame, How, reason
from equiform.data.formats.species import numbers_of
from equiform.errors import UserError

_EVENTS = {"cp2k/output": "cp2k", "siesta/output": "siesta", "psi4/out": "psi4", "orca/spout": "orca-output"}
_EVENTS |= {"fhi_aims/md": "aims-output", "fhi_aims/output": "aims-output", "fhi_aims/scf": "aims-output"}


def read_dpdata(file: Path, form: str, how: How) -> list[Frame]:
    """All structures of a file in one of dpdata's formats, in eV and Å.

    Raises:
        UserError: dpdata is not installed, has no such format, or cannot read the file.
    """
    try:
        import dpdata
    except ImportError:
        raise UserError(
            f"{file} is read as {form} by dpdata, which is not installed: pip install 'equiform[formats]', "
            "or convert the file to extended XYZ"
        ) from None
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            data: dict[str, Any] = dpdata.LabeledSystem(str(file), fmt=form).data
        except NotImplementedError as error:
            raise UserError(f"data.format={form}: dpdata has no such format ({reason(error)[:120]})") from None
        except Exception as labelled:  # dpdata's parsers raise any type of exception
            try:
                data = dpdata.System(str(file), fmt=form).data
            except Exception:
                raise UserError(
                    f"{file} cannot be read as {form} by dpdata ({reason(labelled)}); if it is another format, name it with "
                    "data.format=…, or convert it to extended XYZ"
                ) from None
    return _frames(data, file, form, how)


def _frames(data: dict[str, Any], file: Path, form: str, how: How) -> list[Frame]:
    from ase import Atoms

    names = [str(name) for name in data["atom_names"]]
    coords = np.asarray(data["coords"], float)
    if not len(coords):
        raise UserError(
            f"{file}, read as {form}: no structure of a finished calculation; if it ended early or did not converge, repeat it"
        )
    try:
        numbers = numbers_of(names)[np.asarray(data["atom_types"], int)]
    except ValueError:
        if how.types is None or len(how.types) < len(names):
            raise UserError(
                f"{file}, read as {form}: {', '.join(names)} are not elements; name them with data.types=…"
            ) from None
        numbers = numbers_of(how.types)[np.asarray(data["atom_types"], int)]
    periodic = not data.get("nopbc", False)
    energies = np.asarray(data.get("energies", np.full(len(coords), np.nan)), float).reshape(-1)
    good = converged_steps(file, _EVENTS.get(form, ""), len(coords), how)
    empty = int((energies == 0).sum())
    if empty:
        how.warn(f"{file}, read as {form}: {empty} energies are exactly zero, as where none was found; they are left out")
    frames = []
    for k, positions in enumerate(coords):
        cell = np.asarray(data["cells"][k], float)
        atoms = Atoms(numbers, positions=positions, cell=cell if periodic else None, pbc=periodic)
        if np.isfinite(energies[k]) and energies[k] != 0:
            atoms.info["energy"] = float(energies[k])
        if "forces" in data:
            atoms.arrays["forces"] = np.asarray(data["forces"][k], float)
        if "virials" in data and periodic:
            atoms.info["virial"] = np.asarray(data["virials"][k], float)
        frames.append(Frame(atoms, k, file, True, good[k]))
    return frames
