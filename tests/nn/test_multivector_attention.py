"""Attention: kernels are the formula, in pieces too; features are inner products and distances; rotary encoding is relative."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.clifford import conformal, projective
from equiform.nn.dense_attention import Execution, attention, plain_attention
from equiform.nn.multivector_attention import key_features, multivector_attention, query_features, rotary
from tests.algebra.clifford.cases import GEOMETRIES

RNG = np.random.default_rng(0)


def tensors(dtype=float, key_heads=1, tokens=7):
    shapes = ((2, tokens, 4, 5), (2, tokens, key_heads, 5), (2, tokens, key_heads, 3))
    return [jnp.asarray(RNG.normal(size=shape), dtype) for shape in shapes]


MASKS = {
    "none": None,
    "tokens": jnp.asarray(RNG.random((1, 1, 7, 7)) > 0.4),
    "added": jnp.asarray(RNG.normal(size=(2, 4, 7, 7))),
    "empty row": jnp.ones((1, 1, 7, 7), bool).at[0, 0, 2].set(False),
    "added empty row": jnp.zeros((1, 4, 7, 7)).at[0, 1, 2].set(-jnp.inf),
}


def by_hand(q, k, v, scale, mask):
    q, k, v = (np.asarray(x, float) for x in (q, k, v))
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            head = h if k.shape[2] > 1 else 0
            logits = scale * q[b, :, h] @ k[b, :, head].T
            if mask is not None:
                part = np.broadcast_to(mask, (2, 4, 7, 7))[b, h]
                logits = np.where(part, logits, -np.inf) if part.dtype == bool else logits + part
            for i, row in enumerate(logits):
                if np.isfinite(row).any():
                    weights = np.exp(row - row.max())
                    out[b, i, h] = weights / weights.sum() @ v[b, :, head]
    return out


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("key_heads", [1, 4])
def test_kernels_are_the_formula(mask, key_heads):
    q, k, v = tensors(key_heads=key_heads)
    expected = by_hand(q, k, v, 0.6, MASKS[mask])
    np.testing.assert_allclose(plain_attention(q, k, v, 0.6, MASKS[mask]), expected, atol=1e-13)
    single = [x.astype(jnp.float32) for x in (q, k, v)]
    part = MASKS[mask] if mask == "none" or MASKS[mask].dtype == bool else MASKS[mask].astype(jnp.float32)
    np.testing.assert_allclose(attention(*single, 0.6, part), expected, atol=2e-6)


@pytest.mark.parametrize("mask", ["added", "empty row"])
def test_pieces_change_neither_values_nor_gradients(mask):
    q, k, v = tensors()

    def total(arrays, execution):
        return (attention(*arrays, 0.6, MASKS[mask], execution=execution) ** 2).sum()

    whole, pieces = Execution(), Execution(max_logits=2 * 4 * 7 * 3)
    value, gradient = jax.jit(jax.value_and_grad(total), static_argnums=1)((q, k, v), whole)
    again, of_pieces = jax.jit(jax.value_and_grad(total), static_argnums=1)((q, k, v), pieces)
    np.testing.assert_allclose(again, value, rtol=1e-13)
    for a, b in zip(of_pieces, gradient):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("mask", ["none", "tokens", "added"])
def test_segments_are_a_block_mask(mask):
    q, k, v = tensors()
    segments = jnp.asarray([[0, 0, 0, 1, 1, 1, 1], [2, 0, 2, 0, 2, 0, 5]])
    together = (segments[:, :, None] == segments[:, None])[:, None]
    given = MASKS[mask]
    if given is None:
        dense = together
    elif given.dtype == bool:
        dense = given & together
    else:
        dense = jnp.where(together, given, -jnp.inf)
    for limit in (2**22, 2 * 4 * 7 * 2):
        out = attention(q, k, v, 0.6, given, segments=segments, execution=Execution(max_logits=limit))
        np.testing.assert_allclose(out, by_hand(q, k, v, 0.6, np.asarray(dense)), atol=1e-13)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_features_are_inner_products(name):
    geometry = GEOMETRIES[name]
    size = geometry.algebra.num_components
    q, k = jnp.asarray(RNG.normal(size=(5, 2, 3, size))), jnp.asarray(RNG.normal(size=(5, 1, 3, size)))
    features = query_features(geometry, q, jnp.zeros((5, 2, 0)), None)
    keys = key_features(geometry, k, jnp.zeros((5, 1, 0)), distances=False)
    expected = np.einsum("qhci,ij,kcj->hqk", q, geometry.algebra.form, k[:, 0])
    np.testing.assert_allclose(np.einsum("qhf,kf->hqk", features, keys[:, 0]), expected, atol=1e-12)
    assert features.shape[-1] == 3 * {"E": 8, "P": 8, "C": 32}[name]


def test_distances_enter_the_logits_with_their_weights():
    p, weights = RNG.normal(size=(6, 3)), np.array([[0.3], [-0.2]])
    points = jnp.broadcast_to(projective.point(jnp.asarray(p))[:, None, None], (6, 2, 1, 16))
    scalars, values = jnp.zeros((6, 2, 4)), jnp.asarray(RNG.normal(size=(6, 1, 1, 16)))
    y, _ = jax.jit(partial(multivector_attention, GEOMETRIES["P"]))(
        (points, scalars),
        (points[:, :1], scalars[:, :1]),
        (values, scalars[:, :1]),
        log_weights=jnp.asarray(weights),
    )
    squares = ((p[:, None] - p[None]) ** 2).sum(-1) / 1.001**4
    for h in range(2):
        logits = -np.exp(weights[h, 0]) * squares / np.sqrt(12 + 4)
        expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) @ np.asarray(values[:, 0, 0])
        np.testing.assert_allclose(y[:, h, 0], expected, atol=1e-12)


def test_conformal_points_attend_by_distance():
    p, q = RNG.normal(size=(2, 4, 3))
    features = [conformal.point(jnp.asarray(x))[:, None, None] for x in (p, q)]
    none = jnp.zeros((4, 1, 0))
    left = query_features(GEOMETRIES["C"], features[0], none, None)
    right = key_features(GEOMETRIES["C"], features[1], none, distances=False)
    expected = -((p[:, None] - q[None]) ** 2).sum(-1) / 2
    np.testing.assert_allclose(np.asarray(left[:, 0] @ right[:, 0].T), expected, atol=1e-13)


def test_rotary_products_depend_on_the_difference_of_places():
    q, k = (np.tile(RNG.normal(size=(1, 1, 8)), (9, 1, 1)) for _ in range(2))
    turned_q, turned_k = rotary(jnp.asarray(q)), rotary(jnp.asarray(k))
    products = np.einsum("nhs,mhs->nm", turned_q, turned_k)
    for shift in range(-3, 4):
        np.testing.assert_allclose(np.diag(products, shift), np.diag(products, shift)[0], atol=1e-12)
    assert np.ptp(products[0]) > 1e-3


def test_a_mask_with_a_missing_axis_is_refused():
    x, s = jnp.zeros((2, 5, 1, 1, 16)), jnp.zeros((2, 5, 1, 4))
    with pytest.raises(ValueError, match=r"mask has shape \(2, 5, 5\); give tokens by tokens, or 1 axes for the batch"):
        multivector_attention(GEOMETRIES["P"], (x, s), (x, s), (x, s), mask=jnp.ones((2, 5, 5), bool))


def test_published_attention(parity_folder):
    stored = {
        name: jnp.asarray(x)
        for name, x in np.load(parity_folder / "gatr" / "primitives" / "pairs.npz").items()
        if name.startswith("att_")
    }
    swap = lambda name: jnp.swapaxes(stored[f"att_{name}"], 1, 2)  # noqa: E731
    for out, values, mask in (
        ("out", ("v", "vs"), None),
        ("masked", ("v", "vs"), stored["att_mask"]),
        ("wide", ("v_wide", "vs_wide"), None),
    ):
        run = jax.jit(partial(multivector_attention, GEOMETRIES["P"]))
        y, t = run(
            (swap("q"), swap("qs")),
            (swap("k"), swap("ks")),
            (swap(values[0]), swap(values[1])),
            log_weights=jnp.log(stored["att_w"][:, 0]),
            mask=mask,
        )
        np.testing.assert_allclose(jnp.swapaxes(y, 1, 2), stored[f"att_{out}_mv"], rtol=0, atol=1e-12, err_msg=out)
        np.testing.assert_allclose(jnp.swapaxes(t, 1, 2), stored[f"att_{out}_s"], rtol=0, atol=1e-12, err_msg=out)
