"""A trained model in ASE: relaxation, vibrations and the energies of atoms.

python examples/ase_script.py RUN
"""

import sys
import tempfile

import ase.io
from ase.optimize import LBFGS
from ase.vibrations import Vibrations

import equiform
from equiform.data.formats.shipped import shipped_data


def main(run: str) -> None:
    predictor = equiform.load(run, dtype="float64")  # tight minima need float64
    ethanol = ase.io.read(shipped_data("ethanol_500K.extxyz"), 0)
    ethanol.calc = equiform.calculator(predictor)
    LBFGS(ethanol, logfile=None).run(fmax=0.01, steps=200)
    print(f"minimum: {ethanol.get_potential_energy():.4f} eV")
    print("energies of the atoms:", ethanol.get_potential_energies().round(3), "eV")
    with tempfile.TemporaryDirectory() as folder:
        vibrations = Vibrations(ethanol, name=f"{folder}/vibrations")
        vibrations.run()
        print("highest wavenumber:", f"{vibrations.get_frequencies().real.max():.0f} cm⁻¹ (O–H stretch)")


if __name__ == "__main__":
    main(sys.argv[1])
