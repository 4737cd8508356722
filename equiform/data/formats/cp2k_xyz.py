"""CP2K's trajectories: positions with the energy in Hartree in the comment line, forces and cells in separate files.

`PROJECT-pos-1.xyz` goes with `PROJECT-frc-1.xyz` (Hartree/Bohr) and `PROJECT-1.cell` (Å); steps are matched by their number.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from equiform.data.formats.frames import How
from equiform.data.units import BOHR, HARTREE
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase

_COMMENT = re.compile(r"\s*i\s*=\s*(\d+)\s*,\s*time\s*=\s*[-+\d.eE]+\s*,.*?\bE\s*=\s*([-+\d.eEdD]+)")


def cp2k_step(comment: str) -> int | None:
    """The number of the step, if the comment line is one of CP2K's."""
    match = _COMMENT.match(comment)
    return int(match[1]) if match else None


class Cp2kPartner:
    """The files that go with a file of positions, read at the first step that needs them."""

    def __init__(self, file: Path):
        self.file = file
        self._forces: dict[int, np.ndarray] | None = None
        self._cells: dict[int, np.ndarray] | None = None

    def complete(self, atoms: "ase.Atoms", comment: str, how: How) -> None:
        """Give a step its energy, forces and cell, in eV and Å.

        Raises:
            UserError: The file holds forces or velocities, not positions; or that of the forces does not go with it.
        """
        match = _COMMENT.match(comment)
        assert match is not None  # the caller has checked
        step = int(match[1])
        for part, what in (("-frc-", "forces"), ("-vel-", "velocities")):
            if part in self.file.name:
                pos = self.file.name.replace(part, "-pos-")
                raise UserError(f"{self.file} holds CP2K's {what}, not positions; read {pos}, which is completed from it")
        if self._forces is None:
            self._forces, self._cells = self._read_forces(how), self._read_cells(how)
        for name in ("i", "time", "E"):
            atoms.info.pop(name, None)
        atoms.info["step"] = step
        atoms.info["energy"] = float(match[2].replace("D", "E")) * HARTREE
        forces = self._forces.get(step)
        if forces is not None:
            if len(forces) != len(atoms):
                raise UserError(f"step {step} of {self.file} has {len(atoms)} atoms, its forces are of {len(forces)}")
            atoms.arrays["forces"] = forces * (HARTREE / BOHR)
        if self._cells and not atoms.pbc.any():
            cell = self._cells.get(step, next(iter(self._cells.values())))
            atoms.set_cell(cell)
            atoms.pbc = True

    def _read_forces(self, how: How) -> dict[int, np.ndarray]:
        path = self.file.with_name(self.file.name.replace("-pos-", "-frc-"))
        if path == self.file or not path.is_file():
            expected = path.name if path != self.file else "PROJECT-frc-1.xyz beside PROJECT-pos-1.xyz"
            how.warn(f"{self.file} is CP2K's; its forces would be in {expected}, which does not exist")
            return {}
        found: dict[int, np.ndarray] = {}
        with open(path, encoding="utf-8") as stream:
            while (line := stream.readline()).strip():
                step = cp2k_step(stream.readline())
                rows = [stream.readline().split()[1:4] for _ in range(int(line))]
                try:
                    if step is not None:
                        found[step] = np.array(rows, np.float64)
                except ValueError:
                    raise UserError(f"{path}: the forces of step {step} cannot be read; the file is cut or damaged") from None
        return found

    def _read_cells(self, how: How) -> dict[int, np.ndarray]:
        path = self.file.with_name(re.sub(r"-pos(-\d+)\.xyz$", r"\1.cell", self.file.name))
        if path == self.file or not path.is_file():
            how.warn(f"{self.file} is CP2K's, whose .xyz files have no cell: taken as not periodic (add PROJECT-1.cell there)")
            return {}
        rows = np.loadtxt(path, ndmin=2)
        return {int(row[0]): row[2:11].reshape(3, 3) for row in rows}
