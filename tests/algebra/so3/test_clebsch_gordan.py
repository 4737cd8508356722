"""Wigner 3j symbols against stored e3nn tables, integrals of harmonics, and their own invariance."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiform.algebra.so3.clebsch_gordan import wigner_3j
from equiform.algebra.so3.rotations import spherical_harmonics, wigner_d


def test_tables_equal_e3nn(parity_folder):
    tables = np.load(parity_folder / "w3j.npz")
    names = [name for name in tables.files if name[0].isdigit()]
    assert len(names) > 50
    for name in names:
        np.testing.assert_allclose(wigner_3j(*map(int, name.split("_"))), tables[name], atol=1e-14)


@pytest.mark.parametrize("degrees", [(1, 1, 1), (1, 2, 2), (2, 3, 4), (3, 2, 2), (5, 4, 3), (8, 6, 10)])
def test_tables_are_invariant(degrees):
    rotation = jnp.asarray(Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix())
    d = wigner_d(max(degrees), rotation)
    table = wigner_3j(*degrees)
    rotated = np.einsum("abc,ia,jb,kc->ijk", table, *(np.asarray(d[l]) for l in degrees))
    np.testing.assert_allclose(rotated, table, atol=1e-13)
    np.testing.assert_allclose((table**2).sum(), 1, atol=1e-14)


def test_even_tables_are_the_integrals_of_three_harmonics():
    """∫ Y_l1 Y_l2 Y_l3 is proportional to the 3j symbol, with a positive factor in e3nn's convention."""
    x, weights = np.polynomial.legendre.leggauss(12)
    phi = np.arange(24) * 2 * np.pi / 24
    cos, angle = (a.ravel() for a in np.meshgrid(x, phi, indexing="ij"))
    sin = np.sqrt(1 - cos**2)
    points = jnp.asarray(np.stack([sin * np.sin(angle), cos, sin * np.cos(angle)], axis=1))
    measure = np.repeat(weights, 24) / 48
    y = [np.asarray(h) for h in spherical_harmonics(4, points)]
    for degrees in [(1, 1, 2), (2, 2, 2), (1, 2, 3), (2, 3, 3), (4, 2, 2)]:
        integral = np.einsum("n,na,nb,nc->abc", measure, *(y[l] for l in degrees))
        np.testing.assert_allclose(integral / np.sqrt((integral**2).sum()), wigner_3j(*degrees), atol=1e-13)


def test_known_elements():
    np.testing.assert_allclose(wigner_3j(1, 1, 0)[:, :, 0], np.eye(3) / np.sqrt(3), atol=1e-15)
    assert wigner_3j(1, 1, 1)[0, 1, 2] == pytest.approx(1 / np.sqrt(6))


def test_triangle_violations_are_refused():
    with pytest.raises(ValueError, match="triangle"):
        wigner_3j(1, 1, 3)
