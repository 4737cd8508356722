"""The fast forms of the depth-wise product equal the definition, for all path sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiform.algebra.so3.edge_frame import (
    depthwise_product_aligned,
    from_edge_frame,
    radial_product_linear,
    shared_product_linear,
    to_edge_frame,
)
from equiform.algebra.so3.edge_weights import radial_linear, shared_linear
from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import Chunk, Irreps
from equiform.algebra.so3.products import Paths, depthwise_product
from equiform.algebra.so3.rotations import Directions, wigner_d

SETS = {
    "all even, l <= 4": ("3x0e+2x1e+3x2e+1x3e+2x4e", False, 4),
    "true parity, l <= 4": ("3x0e+1x0o+2x1e+3x1o+1x2e+2x2o+1x3e+1x3o+2x4e+1x4o", True, 4),
    "no even vectors": ("3x0e+2x1o+2x2e", True, 2),
    "degrees out of order": ("2x2e+3x0e+2x1e", False, 2),
    "only scalars": ("4x0e", True, 1),
    "a lone pseudoscalar": ("2x0e+3x0o+2x1o", True, 1),
}


def _case(name, num_edges=12):
    text, parity, l_max = SETS[name]
    irreps = Irreps.parse(text)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(num_edges, 3))
    vectors[:4] = [[0, 1, 0], [0, -1, 0], [1, 0, 0], [0, 0, -2]]
    paths = Paths(irreps, Irreps.spherical(l_max, parity=parity), irreps)
    x = Features.from_mul_ir(jnp.asarray(rng.normal(size=(num_edges, irreps.dim))), irreps)
    weights = jnp.asarray(rng.normal(size=(num_edges, paths.num_weights)))
    matrices = {str(ir): jnp.asarray(rng.normal(size=(mul, 3))) for mul, ir in paths.irreps_out}
    return x, jnp.asarray(vectors), weights, paths, matrices


def _after_linear(product, matrices):
    blocks = [block @ matrices[str(ir)] for block, (_, ir) in zip(product.blocks, product.irreps)]
    return Features(blocks, Irreps(tuple(Chunk(3, ir) for _, ir in product.irreps)))


@pytest.mark.parametrize("name", SETS)
def test_aligned_form_equals_the_definition(name):
    x, vectors, weights, paths, _ = _case(name)
    vectors = vectors.at[5].set(0.0)

    @jax.jit
    def both(x, vectors, weights):
        directions = Directions(vectors, paths.irreps_in.l_max)
        return [f(x, directions, weights, paths).to_mul_ir() for f in (depthwise_product, depthwise_product_aligned)]

    plain, aligned = both(x, vectors, weights)
    np.testing.assert_allclose(aligned, plain, atol=1e-12)


@pytest.mark.parametrize("name", SETS)
def test_fused_linear_maps_equal_product_then_linear(name):
    x, vectors, weights, paths, matrices = _case(name)

    @jax.jit
    def all_four(x, vectors, weights):
        directions = Directions(vectors, paths.irreps_in.l_max)
        inside = to_edge_frame(x, directions)
        pairs = []
        per_source = jnp.split(weights, np.cumsum(paths.sizes)[:-1], axis=1)
        fused = (
            (weights, radial_product_linear(inside, per_source, paths, radial_linear(paths, matrices))),
            (weights[0], shared_product_linear(inside, paths, shared_linear(weights[0], paths, matrices))),
        )
        for w, got in fused:
            expected = _after_linear(depthwise_product(x, directions, w, paths), matrices)
            pairs.append((expected.to_mul_ir(), from_edge_frame(got, directions).to_mul_ir()))
        return pairs

    for expected, got in all_four(x, vectors, weights):
        np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["all even, l <= 4", "true parity, l <= 4"])
def test_product_is_equivariant(name):
    x, vectors, weights, paths, _ = _case(name, num_edges=5)
    r = jnp.asarray(Rotation.random(random_state=7).as_matrix())
    d = wigner_d(4, r)

    def turn(f):
        return Features([jnp.einsum("ij,ejc->eic", d[ir.l], b) for b, (_, ir) in zip(f.blocks, f.irreps)], f.irreps)

    product = jax.jit(lambda x, v: depthwise_product_aligned(x, Directions(v, 4), weights, paths))
    np.testing.assert_allclose(product(turn(x), vectors @ r.T).to_mul_ir(), turn(product(x, vectors)).to_mul_ir(), atol=1e-12)


def test_true_parities_are_kept_under_inversion():
    x, vectors, weights, paths, _ = _case("true parity, l <= 4", num_edges=5)

    def invert(f):
        return Features([ir.p * b for b, (_, ir) in zip(f.blocks, f.irreps)], f.irreps)

    product = jax.jit(lambda x, v: depthwise_product(x, Directions(v, 4), weights, paths))
    np.testing.assert_allclose(product(invert(x), -vectors).to_mul_ir(), invert(product(x, vectors)).to_mul_ir(), atol=1e-12)


def test_path_counts_are_those_of_the_reference():
    """15 paths with 960 weights and 224x0e+384x1e+352x2e for L = 2; 34 with 2112 for L = 3 (spec, section 2)."""
    node = Irreps.parse("128x0e+64x1e+32x2e")
    paths = Paths(node, Irreps.spherical(2, parity=False), node)
    assert (len(paths.created), paths.num_weights, str(paths.irreps_out)) == (15, 960, "224x0e+384x1e+352x2e")
    node = Irreps.parse("128x0e+64x1e+64x2e+32x3e")
    paths = Paths(node, Irreps.spherical(3, parity=False), node)
    assert (len(paths.created), paths.num_weights) == (34, 2112)
    assert str(paths.irreps_out) == "288x0e+576x1e+672x2e+576x3e"


def test_odd_paths_take_opposite_signs_at_plus_and_minus_m():
    node = Irreps.parse("1x0e+1x1e+1x2e+1x3e")
    for path in Paths(node, Irreps.spherical(3, parity=False), node).created:
        for m in range(path.irrep.l + 1):
            assert path.coefficient(-m) == pytest.approx((-1 if path.odd else 1) * path.coefficient(m))
