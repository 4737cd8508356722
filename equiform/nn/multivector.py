"""Layers on tokens that carry multivector channels and invariant scalar channels.

Linear maps are equivariant under E(3) (O(3) in the Euclidean algebra); norm, gate and dropout under all versors.

Source: Brehmer et al., NeurIPS 2023 (arXiv:2305.18415), sections 3.2–3.3, and the authors' code; de Haan, Cohen & Brehmer
(arXiv:2311.04744) for the norm of indefinite algebras.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.algebra.clifford.algebra import Algebra
from equiform.algebra.clifford.geometry import Geometry
from equiform.algebra.clifford.products import grade_inner_products
from equiform.algebra.precision import EXACT
from equiform.nn import init
from equiform.nn.multivector_init import GAINS, Role, Scheme, map_weights

Multivectors = Float[Array, "*batch channels components"]
Scalars = Float[Array, "*batch scalars"]
Activation = Literal["gelu", "relu", "sigmoid"]


class MultivectorLinear(eqx.Module):
    """y_o = Σ_ib W[o, i, b] B_b x_i, coupled with scalars through component 0. Equivariant.

        y_o,0 += (s V + b)_o          with scalar inputs; without, a bias alone
        s'    = x_·,0 U + c + s T     with scalar outputs

    Each map is B_b = ⊕_g (block ⊗ 1) over spatial grades g = 0 … 3, so that the sum over channels and components is four matrix
    products with an eighth of the dense one's arithmetic; scalars go with the first.

    Attributes:
        weight: W, official order of axes.
        bias: b where there are no scalar inputs.
        from_scalars: V and b.
        to_scalars: U and c.
        scalars: T.
    """

    weight: Float[Array, "out in maps"]
    bias: Float[Array, " out"] | None
    from_scalars: "Affine | None"
    to_scalars: "Affine | None"
    scalars: Float[Array, "in_scalars out_scalars"] | None
    geometry: Geometry = eqx.field(static=True)

    def __init__(
        self,
        geometry: Geometry,
        channels: tuple[int, int],
        scalars: tuple[int, int] = (0, 0),
        *,
        scheme: Scheme = "balanced",
        role: Role = "default",
        key: PRNGKeyArray,
    ):
        """A layer.

        Args:
            geometry: The model of space.
            channels: Multivector channels in and out.
            scalars: Scalar channels in and out.
            scheme: How the maps' weights are drawn.
            role: Scale of the initial weights.
            key: Random key.
        """
        (into, out), (s_in, s_out), gains = channels, scalars, GAINS[role]
        keys = jax.random.split(key, 4)
        self.geometry = geometry
        self.weight = map_weights(geometry, out, into, scheme, role, key=keys[0])
        self.bias = None if s_in else init.zeros(out)
        self.from_scalars = self.to_scalars = self.scalars = None
        if s_in:
            # The mean of the bias scales with no gain, as in the published code.
            bound = gains.maps / sqrt(2 * s_in)
            self.from_scalars = Affine(s_in, out, bound, 1 / sqrt(s_in + into), gains.mean_bias, key=keys[1])
        if s_out:
            sources = 2 if s_in else 1
            bound = gains.scalars / sqrt(sources * into)
            self.to_scalars = Affine(into, s_out, bound, gains.scalars / sqrt(into + s_in), key=keys[2])
        if s_in and s_out:
            bound = gains.scalars / sqrt(2 * s_in)
            self.scalars = init.uniform((s_in, s_out), -bound, bound, key=keys[3])

    def __call__(
        self, x: Float[Array, "*batch in components"], s: Float[Array, "*batch in_scalars"]
    ) -> tuple[Float[Array, "*batch out components"], Float[Array, "*batch out_scalars"]]:
        """Both outputs; scalars of no channels are arrays whose last axis is empty."""
        pieces, scalars = {}, s[..., :0]
        for g, (group, blocks) in enumerate(zip(self.geometry.slices, self.geometry.blocks)):
            matrix = jnp.einsum("oib,bsr->iros", self.weight, jnp.asarray(blocks, x.dtype), precision=EXACT)
            values = _gathered(x, group)  # *batch in r spatial
            if g == 0:
                flat, scalars = self._with_scalars(values[..., 0], s, matrix)
                values = flat[..., None]
            else:
                values = jnp.einsum("...irn,iros->...osn", values, matrix, precision=EXACT)
            pieces.update(_scattered(values, group))
        return jnp.concatenate([pieces[start] for start in sorted(pieces)], axis=-1), scalars

    @property
    def out_scalars(self) -> int:
        """Number of scalar outputs."""
        return 0 if self.to_scalars is None else self.to_scalars.weight.shape[1]

    def _with_scalars(self, values: Array, s: Array, matrix: Array) -> tuple[Array, Array]:
        """Spatial grade 0, of shape (*batch, in, r), and the scalars, in one matrix product."""
        into, rest, out, _ = matrix.shape
        rows = [matrix.reshape(into * rest, out * rest)]
        first = self.bias if self.from_scalars is None else self.from_scalars.bias
        bias = jnp.zeros((out, rest), matrix.dtype).at[:, 0].set(first).reshape(-1)
        inputs = values.reshape(*values.shape[:-2], into * rest)
        if self.from_scalars is not None:
            rows.append(_first_of(self.from_scalars.weight, rest, axis=1))
            inputs = jnp.concatenate([inputs, s], axis=-1)
        full = jnp.concatenate(rows)
        if self.to_scalars is not None:
            columns = [_first_of(self.to_scalars.weight, rest, axis=0)] + ([] if self.scalars is None else [self.scalars])
            full = jnp.concatenate([full, jnp.concatenate(columns)], axis=1)
            bias = jnp.concatenate([bias, self.to_scalars.bias])
        result = jnp.matmul(inputs, full, precision=EXACT) + bias.reshape((1,) * (inputs.ndim - 1) + (-1,))
        components = result[..., : out * rest].reshape(*result.shape[:-1], out, rest)
        return components, result[..., out * rest :]


class Affine(eqx.Module):
    """Weight (in, out) and bias of a linear map of invariants."""

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]

    def __init__(self, into: int, out: int, bound: float, bias_bound: float, mean_bias: float = 0.0, *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.weight = init.uniform((into, out), -bound, bound, key=keys[0])
        self.bias = init.uniform((out,), mean_bias - bias_bound, mean_bias + bias_bound, key=keys[1])


def together(
    layers: Sequence[MultivectorLinear], x: Multivectors, s: Scalars
) -> list[tuple[Float[Array, "*batch _ components"], Float[Array, "*batch _"]]]:
    """Several layers on the same input as one: what each of them gives, for one pass over the input.

    Args:
        layers: Layers with the same inputs, all with scalar outputs or all without.
        x: Multivector channels.
        s: Scalar channels.
    """
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=0 if leaves[0].ndim == 3 else -1), *layers)
    y, t = joined(x, s)
    out, channel, scalar = [], 0, 0
    for layer in layers:
        ends = channel + layer.weight.shape[0], scalar + layer.out_scalars
        out.append((y[..., channel : ends[0], :], t[..., scalar : ends[1]]))
        channel, scalar = ends
    return out


def multivector_norm(algebra: Algebra, x: Multivectors, *, smallest: float = 0.01) -> Multivectors:
    """x / √max(mean over channels of Σ_k |⟨x̃ x⟩ of grade k|, smallest). Equivariant.

    Grades are taken by their absolute values because the conformal form is indefinite; in the others this changes nothing.
    """
    squares = jnp.abs(grade_inner_products(algebra, x, x)).sum(-1).mean(-1)
    return x / jnp.sqrt(jnp.maximum(squares, smallest))[..., None, None]


def scalar_norm(s: Scalars, *, epsilon: float = 1e-5) -> Scalars:
    """(s − mean) / √(variance + ε) over channels, without parameters. Invariant."""
    centred = s - s.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + epsilon)


def gate(x: Multivectors, activation: Activation) -> Multivectors:
    """x σ(x_0), channel by channel; "gelu" is the approximation by tanh here, as published. Equivariant."""
    first = x[..., :1]
    return x * (jax.nn.gelu(first, approximate=True) if activation == "gelu" else _activate(first, activation))


def scalar_gate(s: Scalars, activation: Activation) -> Scalars:
    """σ(s); "gelu" is the exact one here."""
    return jax.nn.gelu(s, approximate=False) if activation == "gelu" else _activate(s, activation)


def grade_dropout(algebra: Algebra, x: Multivectors, rate: float, *, key: PRNGKeyArray | None) -> Multivectors:
    """Drop whole grades of single channels, and scale what is kept by 1/(1 − rate). Equivariant; a None key switches it off."""
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, (*x.shape[:-1], algebra.num_grades))
    return jnp.where(jnp.take(kept, algebra.grade, axis=-1), x / (1 - rate), 0)


def _activate(x: Array, activation: Activation) -> Array:
    return jax.nn.relu(x) if activation == "relu" else jax.nn.sigmoid(x)


def _neighbours(group: tuple[slice, ...]) -> bool:
    """Whether the slices follow one another without a gap."""
    return all(left.stop == right.start for left, right in pairwise(group))


def _gathered(x: Array, group: tuple[slice, ...]) -> Float[Array, "*batch channels rest spatial"]:
    """The components of one spatial grade."""
    if _neighbours(group):
        return x[..., group[0].start : group[-1].stop].reshape(*x.shape[:-1], len(group), -1)
    return jnp.stack([x[..., part] for part in group], axis=-2)


def _scattered(values: Float[Array, "*batch channels rest spatial"], group: tuple[slice, ...]) -> dict[int, Array]:
    """The same components as pieces of the last axis, by where each begins."""
    if _neighbours(group):
        return {group[0].start: values.reshape(*values.shape[:-2], -1)}
    return {part.start: values[..., i, :] for i, part in enumerate(group)}


def _first_of(weight: Array, rest: int, axis: int) -> Array:
    """Weights to or from component 0 among the `rest` components of spatial grade 0, zeros for the others."""
    widened = jnp.expand_dims(weight, axis + 1)
    widened = jnp.pad(widened, [(0, rest - 1 if i == axis + 1 else 0) for i in range(3)])
    return widened.reshape(-1, weight.shape[1]) if axis == 0 else widened.reshape(weight.shape[0], -1)
