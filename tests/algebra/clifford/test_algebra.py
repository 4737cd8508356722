"""Tables of products: axioms in any signature, the published tables, and the null basis of the conformal model."""

import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.clifford import products
from equiform.algebra.clifford.algebra import clifford
from equiform.algebra.clifford.geometry import conformal, orthogonal_conformal
from tests.algebra.clifford.cases import random_multivectors

SIGNATURES = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 2, 0), (3, 0, 0), (1, 3, 0), (3, 0, 1), (2, 1, 1), (1, 1, 2), (4, 1, 0)]
LETTERS = {(3, 0, 0): "E", (4, 1, 0): "C"}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_vectors_square_to_the_quadratic_form(signature):
    algebra = clifford(*signature)
    p, q, r = signature
    vector = np.zeros(algebra.num_components)
    vector[1 : 1 + algebra.num_generators] = np.random.default_rng(0).normal(size=algebra.num_generators)
    squares = np.array([0] * r + [1] * p + [-1] * q)
    expected = np.zeros(algebra.num_components)
    expected[0] = (squares * vector[1 : 1 + algebra.num_generators] ** 2).sum()
    got = np.einsum("olr,l,r->o", algebra.geometric, vector, vector)
    np.testing.assert_allclose(got, expected, atol=1e-14)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_geometric_product_is_associative_and_reversal_turns_it_round(signature):
    algebra = clifford(*signature)
    x, y, z = (random_multivectors(algebra, seed=seed) for seed in range(3))

    def times(a, b):
        return np.einsum("olr,l,r->o", algebra.geometric, a, b)

    np.testing.assert_allclose(times(times(x, y), z), times(x, times(y, z)), atol=1e-12)
    np.testing.assert_allclose(algebra.reversal * times(x, y), times(algebra.reversal * y, algebra.reversal * x), atol=1e-12)
    np.testing.assert_allclose(
        algebra.involution * times(x, y), times(algebra.involution * x, algebra.involution * y), atol=1e-12
    )


def test_complex_numbers_and_quaternions_are_clifford_algebras():
    x, y = np.array([1.5, -0.5]), np.array([0.25, 2.0])
    product = (x[0] + 1j * x[1]) * (y[0] + 1j * y[1])
    got = np.einsum("olr,l,r->o", clifford(0, 1).geometric, x, y)
    np.testing.assert_allclose(got, [product.real, product.imag])
    i, j, k = np.eye(4)[1:]
    table = clifford(0, 2).geometric
    np.testing.assert_array_equal(np.einsum("olr,l,r->o", table, i, j), k)
    np.testing.assert_array_equal(np.einsum("olr,l,r->o", table, k, k), -np.eye(4)[0])


@pytest.mark.parametrize("signature", [(3, 0, 0), (3, 0, 1), (2, 1, 1), (4, 1, 0)])
def test_products_of_multivectors_follow_the_tables(signature):
    algebra = clifford(*signature)
    x, y = random_multivectors(algebra, 4, 2, seed=1), random_multivectors(algebra, 4, 2, seed=2)
    for function, table in (
        (products.geometric_product, algebra.geometric),
        (products.outer_product, algebra.outer),
        (products.left_contraction, algebra.contraction),
        (products.join, algebra.join),
    ):
        expected = np.einsum("olr,...l,...r->...o", table, x, y)
        np.testing.assert_allclose(function(algebra, jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-12)
    inner = np.einsum("lr,...l,...r->...", algebra.form, x, y)
    np.testing.assert_allclose(products.inner_product(algebra, jnp.asarray(x), jnp.asarray(y)), inner, atol=1e-12)
    graded = products.grade_inner_products(algebra, jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(graded.sum(-1), inner, atol=1e-12)
    parts = products.grade_projections(algebra, jnp.asarray(x))
    np.testing.assert_allclose(parts.sum(-2), x, atol=1e-14)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_blade_and_its_dual_span_the_pseudoscalar(signature):
    algebra = clifford(*signature)
    for blade, complement in zip(np.eye(algebra.num_components), algebra.dual.T):
        np.testing.assert_array_equal(
            np.einsum("olr,l,r->o", algebra.outer, blade, complement), np.eye(algebra.num_components)[-1]
        )


def test_join_has_no_zero_where_blades_span_the_space():
    algebra = clifford(3, 0, 1)
    planes = np.eye(16)[[algebra.index("e0"), algebra.index("e123")]]
    np.testing.assert_array_equal(np.abs(np.einsum("olr,l,r->o", algebra.join, *planes)), np.eye(16)[0])


def test_tables_of_the_published_projective_algebra(parity_folder):
    stored, algebra = np.load(parity_folder / "gatr" / "primitives" / "tables.npz"), clifford(3, 0, 1)
    assert algebra.names == tuple(stored["blade_names"])
    for name, ours in (("gp", "geometric"), ("outer", "outer"), ("join", "join"), ("reversal", "reversal")):
        np.testing.assert_array_equal(stored[name], getattr(algebra, ours))
    np.testing.assert_array_equal(stored["grade_involution"], algebra.involution)
    np.testing.assert_array_equal(algebra.dual[np.arange(16), stored["dual_perm"]], stored["dual_sign"])
    np.testing.assert_array_equal(np.flatnonzero(np.diag(algebra.form)), stored["inner_idx"])


@pytest.mark.parametrize("signature", LETTERS)
def test_tables_of_the_stored_algebras(parity_folder, signature):
    stored, algebra = np.load(parity_folder / "gatr" / "algebras" / f"{LETTERS[signature]}.npz"), clifford(*signature)
    for name, ours in (("gp", "geometric"), ("outer", "outer"), ("left_contraction", "contraction"), ("grade", "grade")):
        np.testing.assert_array_equal(stored[name], getattr(algebra, ours))
    np.testing.assert_array_equal(stored["metric"], np.diag(algebra.form))
    np.testing.assert_array_equal(stored["reversal"], algebra.reversal)
    np.testing.assert_array_equal(stored["involution"], algebra.involution)


def test_null_basis_is_the_same_algebra():
    null, orthogonal = conformal().algebra, orthogonal_conformal()
    x, y = random_multivectors(null, seed=1), random_multivectors(null, seed=2)
    change = null.outermorphism
    for table in ("geometric", "outer", "contraction", "join"):
        here = np.einsum("olr,l,r->o", getattr(null, table), x, y)
        there = np.einsum("olr,l,r->o", getattr(orthogonal, table), change @ x, change @ y)
        np.testing.assert_allclose(change @ here, there, atol=1e-12)
    np.testing.assert_array_equal(null.form[1:3, 1:3], [[0, -1], [-1, 0]])
    np.testing.assert_allclose(null.to_frame @ change, np.eye(32), atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((-1,), {}), "negative count"),
        (((2,), {"labels": "11"}), "2 different labels"),
        (((2,), {"labels": "1"}), "2 different"),
    ],
)
def test_a_wrong_signature_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        clifford(*arguments[0], **arguments[1])


def test_an_unknown_blade_is_refused_with_a_list():
    with pytest.raises(ValueError, match="no basis blade 'e4'; the blades are 1, e1"):
        clifford(2).index("e4")
