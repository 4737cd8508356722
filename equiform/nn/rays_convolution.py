"""Convolutions on the space of rays: from rays to rays, and from rays to features of SO(3) at points.

    f_o(x) = Σ_i Σ_y μ_xy K_oi(x, y) W_oi f_i(y)               μ: weights of the neighbours, such as 1 / |N(x)|
    F_l(p) = Re Σ_i Σ_y μ_py K_li(p, y) W_li f_i(y)

The kernels are the general solutions of the constraint K(gx, gy) ρ_i(h(g, y)) = ρ_o(h(g, x)) K(x, y):

    two lines that are not parallel    K = e^{i(k_o φ_xy + ω_o z_xy)} R(cos θ, c) e^{−i(k_i φ_yx + ω_i z_yx)}
    parallel ones, s = ±1              K = e^{i k_o φ'_xy} R_s(ρ) e^{−i k_i φ'_yx} e^{i ω_o ζ},    only ω_o = s ω_i
    the same line                      K = e^{i(k_o δ + ω_o ζ)} · const_s,               only k_o = s k_i, ω_o = s ω_i
    a point and a ray                  K = D^l(E) c(r) e^{−i(k arg a + ω z)}

with φ the azimuth of one line's direction in the frame of the other, z the foot of the common perpendicular, φ' the azimuth of
the offset, ζ the shift along, δ the angle between the frames. The kernels are equivariant under SE(3), not under mirrors.

Two kinds of pair kernels: "general" is the above, with a function of its own for parallel lines, so it jumps where lines become
parallel. "smooth" has a^k in the place of e^{ikφ}: it vanishes like sin^k θ, has no other case, and needs ω = 0.

Source: Xu, Lei and Daniilidis, NeurIPS 2023 (arXiv:2212.14871), for the constraint. Opposite parallel lines and the same line
in both directions are derived here.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from equiform.algebra.pluecker import PointPairs, RayPairs, Rays, RayType, power, unit, unit_phase
from equiform.algebra.so3.rotations import wigner_d
from equiform.nn import init
from equiform.nn.rays import Radial, RayField, RayLinear, as_complex, as_type

KernelKind = Literal["smooth", "general"]


def pair_factor(pairs: RayPairs, kind_out: RayType, kind_in: RayType, kernel: KernelKind) -> Complex[Array, "x y"]:
    """The frame-dependent factor of the kernel of lines that are not parallel; the kernel is this times any R(cos θ, c).

    Raises:
        ValueError: A smooth kernel is requested for a type with ω ≠ 0.
    """
    if kernel == "smooth":
        if kind_out.omega or kind_in.omega:
            raise ValueError(
                f'a smooth kernel exists for ω = 0 only; received {kind_out} and {kind_in}: use ω = 0 or kernel="general"'
            )
        return power(pairs.a, kind_out.k) * jnp.conj(power(pairs.a_back, kind_in.k))
    shift = kind_out.omega * pairs.foot - kind_in.omega * pairs.foot_back
    turn = power(unit(pairs.a), kind_out.k) * jnp.conj(power(unit(pairs.a_back), kind_in.k))
    return jnp.where(pairs.parallel, 0, turn * unit_phase(shift))


def parallel_factor(pairs: RayPairs, kind_out: RayType, kind_in: RayType, sign: int) -> Complex[Array, "x y"]:
    """The same for different lines that are parallel (`sign` 1) or opposite (−1); zero elsewhere."""
    if kind_out.omega != sign * kind_in.omega:
        return jnp.zeros_like(pairs.a)
    turn = power(unit(pairs.offset), kind_out.k) * jnp.conj(power(unit(pairs.offset_back), kind_in.k))
    here = pairs.parallel & ~pairs.coincident & (pairs.cosine * sign > 0)
    return jnp.where(here, turn * unit_phase(kind_out.omega * pairs.along), 0)


def coincident_factor(pairs: RayPairs, kind_out: RayType, kind_in: RayType, sign: int) -> Complex[Array, "x y"]:
    """The same for one line in the same direction (`sign` 1) or in both (−1); zero elsewhere."""
    if kind_out != RayType(sign * kind_in.k, sign * kind_in.omega):
        return jnp.zeros_like(pairs.a)
    turn = power(unit(pairs.twist), kind_out.k) * unit_phase(kind_out.omega * pairs.along)
    return jnp.where(pairs.coincident & (pairs.cosine * sign > 0), turn, 0)


def point_kernel(
    pairs: PointPairs, degree: int, kind: RayType, components: Complex[Array, "points rays m"]
) -> Complex[Array, "points rays m"]:
    """D^l(E) c e^{−i(k arg a + ω z)}, from a ray's value of type (k, ω) to degree l at the point.

    Args:
        pairs: Points and rays.
        degree: l.
        kind: (k, ω).
        components: c(r), in the order m = −l … l about the ray.
    """
    matrix = as_complex(wigner_d(degree, pairs.frame)[degree])
    away = jnp.conj(power(pairs.azimuth, kind.k)) * unit_phase(-kind.omega * pairs.along)
    return (matrix @ components[..., None])[..., 0] * away[..., None]


class RayConvolution(eqx.Module):
    """f_o(x) = Σ_i Σ_y μ_xy K_oi(x, y) W_oi f_i(y). Equivariant under SE(3); independent of the section."""

    mix: tuple[RayLinear, ...]
    radial: Radial
    parallel: tuple[Radial, Radial] | None
    coincident: Float[Array, "2 kernels 2 channels"] | None
    types_in: tuple[RayType, ...] = eqx.field(static=True)
    types_out: tuple[RayType, ...] = eqx.field(static=True)
    kernel: KernelKind = eqx.field(static=True)

    def __init__(
        self,
        types_in: Sequence[RayType],
        types_out: Sequence[RayType],
        channels_in: int,
        channels_out: int,
        *,
        inputs: int = 2,
        hidden: int = 8,
        kernel: KernelKind = "smooth",
        key: PRNGKeyArray,
    ):
        """Make the layer.

        Args:
            types_in: Types of the field it takes.
            types_out: Types of the field it gives.
            channels_in: Their channels.
            channels_out: Their channels.
            inputs: Invariants of a pair.
            hidden: Hidden channels of each radial function.
            kernel: "smooth" or "general".
            key: For the initial parameters.
        """
        self.types_in, self.types_out, self.kernel = tuple(types_in), tuple(types_out), kernel
        kernels = len(self.types_in) * len(self.types_out)
        keys = jax.random.split(key, 5)
        self.mix = tuple(
            RayLinear(self.types_in, channels_in, channels_out, key=k) for k in jax.random.split(keys[0], len(self.types_out))
        )
        self.radial = Radial(kernels, inputs, hidden, channels_out, key=keys[1])
        self.parallel = self.coincident = None
        if kernel == "general":
            first, second = (Radial(kernels, 1, hidden, channels_out, key=k) for k in keys[2:4])
            self.parallel = (first, second)
            self.coincident = init.normal((2, kernels, 2, channels_out), sqrt(0.5), key=keys[4])

    def __call__(
        self, field: RayField, pairs: RayPairs, invariants: Float[Array, "x y inputs"], weights: Float[Array, "x y"]
    ) -> RayField:
        """The field on the rays x.

        Args:
            field: Values on the rays y.
            pairs: Each x with each y.
            invariants: Inputs of the radial functions, for each pair; (cos θ, c) at least, see `pair_invariants`.
            weights: μ_xy, zero for rays that are no neighbours.
        """
        terms = [(self.radial.basis(invariants), self.radial.coefficients)]
        if self.parallel is not None:
            distance = jnp.abs(pairs.b)[..., None]
            terms += [(radial.basis(distance), radial.coefficients) for radial in self.parallel]
        values = []
        for o, kind_out in enumerate(self.types_out):
            mixed, total = self.mix[o](field), 0.0
            for i, kind_in in enumerate(self.types_in):
                n = o * len(self.types_in) + i
                value = as_complex(mixed.values[i])
                factors = [pair_factor(pairs, kind_out, kind_in, self.kernel)]
                if self.parallel is not None:
                    factors += [parallel_factor(pairs, kind_out, kind_in, sign) for sign in (1, -1)]
                for factor, (basis, coefficients) in zip(factors, terms, strict=True):
                    total = total + _summed(factor, weights, basis[..., n, :], coefficients[n], value)
                if self.coincident is not None:
                    for constant, sign in zip(self.coincident, (1, -1)):
                        factor = coincident_factor(pairs, kind_out, kind_in, sign) * as_complex(weights)
                        total = total + factor @ value * lax.complex(constant[n, 0], constant[n, 1])[None]
            values.append(as_type(jnp.asarray(total), kind_out))
        return RayField(tuple(values), self.types_out)


class PointConvolution(eqx.Module):
    """F_l(p) = Re Σ_i Σ_y μ_py K_li(p, y) W_i f_i(y) for l = 0 … l_max. Equivariant under SE(3); independent of the section.

    The component that turns by e^{imφ} about a ray of type k vanishes like r^{|m − k|} as the ray approaches the point, so the
    features are smooth where rays pass through points. There f of k = 0 gives Y_l of the viewing directions.
    """

    mix: RayLinear
    radial: Radial
    types: tuple[RayType, ...] = eqx.field(static=True)
    l_max: int = eqx.field(static=True)

    def __init__(
        self, types: Sequence[RayType], l_max: int, channels_in: int, channels_out: int, *, hidden: int = 8, key: PRNGKeyArray
    ):
        """Make the layer.

        Args:
            types: Types of the field it takes.
            l_max: Highest degree at the points.
            channels_in: Channels of the field.
            channels_out: Channels of each degree.
            hidden: Hidden channels of each radial function.
            key: For the initial parameters.
        """
        self.types, self.l_max = tuple(types), l_max
        keys = jax.random.split(key)
        self.mix = RayLinear(self.types, channels_in, channels_out, key=keys[0])
        self.radial = Radial(len(self.types) * (l_max + 1) ** 2, 1, hidden, channels_out, key=keys[1])

    def __call__(
        self, field: RayField, pairs: PointPairs, weights: Float[Array, "points rays"]
    ) -> list[Float[Array, "points _ channels"]]:
        """Features (points, 2l + 1, channels) of each degree, components in the order of `spherical_harmonics`."""
        near = pairs.distance / jnp.sqrt(1 + pairs.distance**2)
        # Functions of r² are smooth at the ray, functions of r are not.
        basis, coefficients = self.radial.basis((near**2)[..., None]), self.radial.coefficients
        mixed, out = self.mix(field), []
        for l in range(self.l_max + 1):
            total = 0.0
            for i, kind in enumerate(self.types):
                value = as_complex(mixed.values[i])
                for m in range(-l, l + 1):
                    n = i * (self.l_max + 1) ** 2 + l * l + l + m
                    shape = jnp.asarray(_turning_component(l, m), value.dtype)
                    components = as_complex(near ** abs(m - kind.k))[..., None] * shape[None, None]
                    factor = point_kernel(pairs, l, kind, components)
                    summed = jnp.einsum("pym,pyj,yc->pmjc", factor, _weighted(basis[..., n, :], weights), value)
                    total = total + jnp.einsum("pmjc,jc->pmc", summed, coefficients[n])
            out.append(jnp.asarray(total).real)
        return out


def pair_invariants(pairs: RayPairs) -> Float[Array, "x y 2"]:
    """cos θ and c, the invariants of two lines."""
    return jnp.stack([pairs.cosine, pairs.reciprocal], axis=-1)


def posed_invariants(
    pairs: RayPairs, x: Rays, x_centres: Float[Array, "x 3"], y: Rays, y_centres: Float[Array, "y 3"]
) -> Float[Array, "x y 5"]:
    """The same and d_x · Δ, d_y · Δ, |Δ| with Δ = C_y − C_x, where a centre of projection C is given on each ray.

    Rays with a centre are points of SE(3) / SO(2): no longer the space of rays, but with more information.
    """
    between = y_centres[None] - x_centres[:, None]
    along = (x.direction[:, None] * between).sum(-1), (y.direction[None] * between).sum(-1)
    square = (between**2).sum(-1)
    distance = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return jnp.stack([pairs.cosine, pairs.reciprocal, *along, distance], axis=-1)


def _turning_component(l: int, m: int) -> list[complex]:
    """The combination of real components ±|m| that D^l(E) turns by e^{im arg a}."""
    components = [0j] * (2 * l + 1)
    components[l + abs(m)] = 1 + 0j
    if m:
        components[l - abs(m)] = -1j if m > 0 else 1j
    return components


def _weighted(basis: Array, weights: Array) -> Array:
    return as_complex(basis * weights[..., None])


def _summed(factor: Array, weights: Array, basis: Array, coefficients: Array, value: Array) -> Array:
    """Σ_y μ K B_j f_c, then Σ_j C_jc."""
    kernel = factor[..., None] * _weighted(basis, weights)
    return jnp.einsum("xjc,jc->xc", jnp.einsum("xyj,yc->xjc", kernel, value), coefficients)
