"""Irreps are read, printed and merged as in the field's notation."""

import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import Irrep, Irreps


@pytest.mark.parametrize("text", ["128x0e+64x1e+32x2e", "1x0e", "3x0o+2x1e+5x3o", "0x0e+2x1o"])
def test_irreps_print_as_parsed(text):
    assert str(Irreps.parse(text)) == text


def test_missing_multiplicity_is_one():
    assert Irreps.parse("0e+1o") == Irreps.parse("1x0e+1x1o")


@pytest.mark.parametrize("text", ["3x1", "1x1f", "x1e", "2x1e++1x0e", "-1x0e"])
def test_malformed_irreps_are_named(text):
    with pytest.raises(ValueError, match="is not of the form"):
        Irreps.parse(text)


def test_dimension_counts_components():
    assert Irreps.parse("128x0e+64x1e+32x2e").dim == 128 + 3 * 64 + 5 * 32
    assert Irreps.parse("128x0e+64x1e+32x2e").num_channels == 224


def test_merging_sorts_by_degree_even_first():
    assert str(Irreps.parse("2x1o+3x0e+1x1e+4x0e+0x2e").merged()) == "7x0e+1x1e+2x1o"


def test_couplings_obey_the_triangle_and_the_product_of_parities():
    assert [str(irrep) for irrep in Irrep(2, -1).couples_to(Irrep(1, -1))] == ["1e", "2e", "3e"]


def test_features_keep_e3nn_layout_both_ways():
    irreps = Irreps.parse("2x0e+3x1e")
    flat = jnp.arange(2 * 11.0).reshape(2, 11)
    features = Features.from_mul_ir(flat, irreps)
    # Second channel of the vectors, component z: 2 scalars, one vector before it, two components.
    assert features.blocks[1][1, 2, 1] == flat[1, 2 + 3 + 2]
    np.testing.assert_array_equal(features.to_mul_ir(), flat)


def test_features_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="must end in"):
        Features([jnp.zeros((4, 3, 5))], "4x1e")
    with pytest.raises(ValueError, match="have dimension"):
        Features.from_mul_ir(jnp.zeros((4, 7)), "2x1e")
