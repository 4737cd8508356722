"""Labels by any ASE calculator, and Langevin dynamics with them."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT

from equiform.errors import UserError
from equiform.simulate.labels import changed_bonds, label, label_calculator, sample_langevin

EMT_NAME = "ase.calculators.emt:EMT"


def test_labels_are_those_of_the_calculator():
    structures = [molecule("H2O"), molecule("CH4")]
    for atoms, (energy, forces) in zip(structures, label(structures, EMT_NAME)):
        own = atoms.copy()
        own.calc = EMT()
        assert energy == own.get_potential_energy()
        np.testing.assert_array_equal(forces, own.get_forces())


def test_xtb_energy_of_water_is_the_published_example():
    pytest.importorskip("tblite")
    # Source: the documentation of tblite.ase, TBLite(method="GFN2-xTB") of ase.build.molecule("H2O"), eV and eV/Å.
    ((energy, forces),) = label([molecule("H2O")], "gfn2")
    assert energy == pytest.approx(-137.96777594361677, abs=1e-5)
    assert forces[0] == pytest.approx([0, 0, -0.749527168], abs=1e-3)


@pytest.mark.parametrize(
    ("method", "message"),
    [("dft", "no method 'dft'"), ("nowhere_at_all:X", "cannot be imported"), ("ase.calculators.emt:ETM", "cannot be imported")],
)
def test_unknown_methods_are_refused(method, message):
    with pytest.raises(UserError, match=message):
        label_calculator(method)


def test_a_failing_calculator_names_the_structure():
    with pytest.raises(UserError, match="the second: no label for Xe"):
        label([molecule("H2O"), Atoms("Xe")], EMT_NAME, names=["the first", "the second"])


class Springs(EMT):
    """Every atom bound to the origin: the distribution of positions is known."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    stiffness = 2.0

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        self.atoms = atoms.copy()
        self.results = {"energy": self.stiffness * (atoms.positions**2).sum() / 2, "forces": -self.stiffness * atoms.positions}


def test_langevin_samples_the_canonical_distribution():
    # ⟨x²⟩ = kT/k; 300 independent oscillators, starting at the minimum.
    atoms = Atoms("H100", np.zeros((100, 3)))
    settings = {"timestep": 1.0, "friction": 0.05, "equilibration": 200, "interval": 40, "frames": 12}
    taken = sample_langevin(atoms, Springs(), np.random.default_rng(0), temperature=300.0, **settings)
    assert len(taken) == 12
    spread = np.mean([frame.positions**2 for frame, _, _ in taken])
    kelvin = 8.617333262e-5
    assert spread == pytest.approx(300 * kelvin / Springs.stiffness, rel=0.08)  # 3600 samples: 2.4 % if independent
    frame, energy, forces = taken[-1]
    np.testing.assert_array_equal(forces, -Springs.stiffness * frame.positions)
    assert energy == pytest.approx((Springs.stiffness / 2) * (frame.positions**2).sum())


def test_a_broken_bond_is_noticed():
    water = molecule("H2O")
    broken = water.copy()
    broken.positions[1] += [0, 2, 0]
    assert changed_bonds(water, broken)
    water.rattle(0.05, seed=0)
    assert not changed_bonds(molecule("H2O"), water)
