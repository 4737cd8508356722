"""Fields transform as they are declared: representations against their definitions, and undeclared fields are refused."""

import numpy as np
import pytest

from equiform.algebra.so3.rotations import random_rotation
from equiform.errors import UserError
from equiform.fields import DECLARED, Field, declarations, find_field, multivector_matrices, transformed

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 5, 3))
ELEMENTS = [random_rotation(0), -random_rotation(1), np.diag([1.0, 1.0, -1.0])]


def moved(representation, values, matrix):
    return transformed(Field("x", "atoms", representation), values, np.broadcast_to(matrix, (len(values), 3, 3)))


@pytest.mark.parametrize("matrix", ELEMENTS)
def test_products_of_polar_vectors_transform_as_they_are_declared(matrix):
    a, b = moved("polar", A, matrix), moved("polar", B, matrix)
    np.testing.assert_allclose(a, A @ matrix.T, atol=1e-14)
    np.testing.assert_allclose(np.cross(a, b), moved("axial", np.cross(A, B), matrix), atol=1e-13)
    np.testing.assert_allclose((a * b).sum(axis=1), moved("invariant", (A * B).sum(axis=1), matrix), atol=1e-13)
    outer = A[:, :, None] * B[:, None, :]
    np.testing.assert_allclose(a[:, :, None] * b[:, None, :], moved("tensor", outer, matrix), atol=1e-13)
    triple = (np.cross(A, B) * (A + B[::-1])).sum(axis=1)
    expected = (np.cross(a, b) * (a + b[::-1])).sum(axis=1)
    np.testing.assert_allclose(expected, moved("pseudoscalar", triple, matrix), atol=1e-12)
    np.testing.assert_array_equal(moved("spin", A, matrix), A)


@pytest.mark.parametrize("matrix", ELEMENTS)
@pytest.mark.parametrize("ideal", [0, 1])
def test_multivectors_transform_as_products_of_their_vectors(matrix, ideal):
    """Grade 1 holds the vectors; grade 2 their wedge products, component by component."""
    size = 3 + ideal
    full = np.eye(size)
    full[ideal:, ideal:] = matrix
    vectors = RNG.normal(size=(2, size))
    wedge = [vectors[0, i] * vectors[1, j] - vectors[0, j] * vectors[1, i] for i in range(size) for j in range(i + 1, size)]
    after = vectors @ full.T
    wedge_after = [after[0, i] * after[1, j] - after[0, j] * after[1, i] for i in range(size) for j in range(i + 1, size)]
    multivector = np.zeros(2**size)
    multivector[1 : 1 + size], multivector[1 + size : 1 + size + len(wedge)] = vectors[0], wedge
    found = moved("multivector", np.stack([multivector, 2 * multivector]), matrix)
    np.testing.assert_allclose(found[0, 1 : 1 + size], after[0], atol=1e-13)
    np.testing.assert_allclose(found[0, 1 + size : 1 + size + len(wedge)], wedge_after, atol=1e-13)
    np.testing.assert_allclose(found[1], 2 * found[0], atol=1e-14)
    assert multivector_matrices(matrix[None], ideal)[0, -1, -1] == pytest.approx(np.linalg.det(matrix))


def test_representations_compose():
    first, second = random_rotation(2), -random_rotation(3)
    for representation, values in (("polar", A), ("axial", A), ("tensor", RNG.normal(size=(5, 3, 3)))):
        twice = moved(representation, moved(representation, values, first), second)
        np.testing.assert_allclose(twice, moved(representation, values, second @ first), atol=1e-13)


def test_channels_before_the_components_rotate_one_by_one():
    values = RNG.normal(size=(5, 2, 3))
    np.testing.assert_allclose(moved("polar", values, ELEMENTS[0])[:, 1], values[:, 1] @ ELEMENTS[0].T, atol=1e-14)


def test_three_columns_are_no_vector_until_somebody_says_so():
    with pytest.raises(UserError, match="the field 'columns' \\(atoms\\) is not declared"):
        find_field("columns", "atoms")
    own = declarations(Field("columns", "atoms", "invariant"))
    assert find_field("columns", "atoms", own).representation == "invariant"
    np.testing.assert_array_equal(transformed(own["atoms", "columns"], A, np.broadcast_to(ELEMENTS[0], (5, 3, 3))), A)


def test_a_declaration_that_does_not_fit_is_told():
    with pytest.raises(ValueError, match="declared as polar, but has the shape"):
        moved("polar", np.zeros((5, 4)), ELEMENTS[0])
    with pytest.raises(ValueError, match="8 components"):
        moved("multivector", np.zeros((5, 4)), ELEMENTS[0])


def test_common_fields_have_their_units():
    units = {name: field.unit for (_, name), field in DECLARED.items()}
    assert units["energy"] == "eV" and units["forces"] == "eV/Å" and units["stress"] == "eV/Å³" and units["displacement"] == "Å"
