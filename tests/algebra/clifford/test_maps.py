"""Equivariant linear maps: dimensions of the computed null spaces, and closed forms that span them."""

import numpy as np
import pytest

from equiform.algebra.clifford.algebra import clifford
from equiform.algebra.clifford.maps import action_matrix
from tests.algebra.clifford.cases import GEOMETRIES, random_motion

DIMENSIONS = {"E": (4, 8), "P": (9, 16), "C": (20, 40)}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_computed_maps_have_the_known_dimensions_and_are_spanned_by_the_closed_forms(name):
    geometry, (with_mirrors, without) = GEOMETRIES[name], DIMENSIONS[name]
    computed = geometry.computed_maps()
    assert len(computed) == with_mirrors
    basis = computed.reshape(with_mirrors, -1)
    closed = geometry.maps.reshape(with_mirrors, -1)
    np.testing.assert_allclose(closed @ basis.T @ basis, closed, atol=1e-12)
    assert np.linalg.matrix_rank(closed) == with_mirrors
    if name != "C":
        assert len(geometry.computed_maps(mirrors=False)) == without


@pytest.mark.slow
def test_conformal_maps_without_mirrors():
    assert len(GEOMETRIES["C"].computed_maps(mirrors=False)) == DIMENSIONS["C"][1]


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_closed_forms_commute_with_motors_and_mirrors(name, odd):
    action = random_motion(name, odd=odd).action
    for matrix in GEOMETRIES[name].maps:
        np.testing.assert_allclose(matrix @ action, action @ matrix, atol=1e-12)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_blocks_over_spatial_grades_are_the_maps(name):
    geometry = GEOMETRIES[name]
    again = np.zeros_like(geometry.maps)
    for group, blocks in zip(geometry.slices, geometry.blocks):
        for i, out in enumerate(group):
            for j, into in enumerate(group):
                again[:, out, into] = blocks[:, i, j, None, None] * np.eye(out.stop - out.start)
    np.testing.assert_array_equal(again, geometry.maps)


def test_maps_of_the_published_network(parity_folder):
    stored = np.load(parity_folder / "gatr" / "primitives" / "tables.npz")["linear_basis"]
    np.testing.assert_allclose(GEOMETRIES["P"].maps, stored, atol=1e-15)


def test_maps_of_the_stored_families(parity_folder):
    folder = parity_folder / "gatr" / "algebras"
    np.testing.assert_allclose(GEOMETRIES["E"].maps, np.load(folder / "E.npz")["linear_family"], atol=1e-15)
    algebra = GEOMETRIES["C"].algebra
    ours = algebra.outermorphism @ GEOMETRIES["C"].maps @ algebra.to_frame
    np.testing.assert_allclose(ours, np.load(folder / "C.npz")["linear_family"], atol=1e-15)


def test_a_null_vector_is_no_versor():
    with pytest.raises(ValueError, match="no inverse"):
        action_matrix(clifford(3, 0, 1), np.eye(16)[1], odd=True)
