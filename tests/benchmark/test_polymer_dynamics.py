"""What the dynamics of polymers are judged by: broken bonds, distances, trans dihedrals, drift."""

import numpy as np
from ase import Atoms
from ase.calculators.lj import LennardJones

from benchmarks.polymer_dynamics import broken, distances, drift, trans_fraction


def _chain(dihedral: float) -> Atoms:
    atoms = Atoms("CCCC", positions=[(-0.5, 1.4, 0), (0, 0, 0), (1.54, 0, 0), (2.04, 1.4, 0)])
    atoms.set_dihedral(0, 1, 2, 3, dihedral, indices=[3])
    return atoms


def test_trans_is_beyond_120_degrees_in_both_directions():
    assert trans_fraction([_chain(180), _chain(130), _chain(-130), _chain(65), _chain(-65), _chain(0)]) == 0.5


def test_a_bond_is_broken_when_it_leaves_half_an_angstrom():
    start = _chain(180)
    for shift, expected in ((0.45, False), (0.55, True)):
        moved = start.copy()
        moved.positions[2:] += (shift, 0, 0)
        assert broken(start, moved) == expected
    turned = start.copy()
    turned.set_dihedral(0, 1, 2, 3, 60, indices=[3])
    assert not broken(start, turned)


def test_h_of_r_is_a_density_of_all_pairs():
    h = distances([_chain(180), _chain(60)])
    assert h.shape == (100,) and np.isclose(h.sum() * 0.1, 1)
    assert h[15] > h[5] == 0


def test_the_energy_drifts_where_forces_are_no_derivatives_and_only_there():
    class Wrong(LennardJones):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = self.results["forces"] + 0.02 * np.cross((0, 0, 1), self.atoms.positions)

    start = Atoms("Ar4", positions=[(0, 0, 0), (3.8, 0, 0), (0, 3.8, 0), (0, 0, 3.8)])
    settings = {"sigma": 3.4, "epsilon": 0.01, "rc": 30.0, "smooth": False}
    right, wrong = (abs(drift(kind(**settings), start, 0.3)) for kind in (LennardJones, Wrong))
    assert right < 0.05 < wrong
