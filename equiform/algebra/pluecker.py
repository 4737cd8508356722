"""Oriented rays in Plücker coordinates, the action of SE(3) on them, and its invariants.

A ray is x = (d, m): unit direction d and moment m = p × d for any of its points p, so d · m = 0. The space of rays is the
homogeneous space SE(3) / (SO(2) × ℝ): the stabiliser of the z axis rotates about it by φ and shifts along it by s. A field on
rays therefore has a type (k, ω) and its values transform by the phase ρ(φ, s) = e^{i(kφ + ωs)}.

| symbol | here | meaning |
|---|---|---|
| g = (R, t) | `rotation`, `translation` | a rigid motion, p → R p + t |
| s(x) = (F, o) | `Section` | a frame with third axis d, and a point of the ray |
| h(g, x) | `cocycle` | the angle and shift by which s(gx) and g s(x) differ |
| a, b | `RayPairs` | direction and moment of y in the frame of x, first two axes as a complex number |

Source: Xu, Lei and Daniilidis, NeurIPS 2023 (arXiv:2212.14871), for the space of rays and its types; the formulas of the
sections, the cocycle and the pairs were derived here and are tested against stored float64 references.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Complex, Float

from equiform.errors import UserError


class RayType(NamedTuple):
    """A one-dimensional unitary representation of SO(2) × ℝ, ρ(φ, s) = e^{i(kφ + ωs)}.

    Attributes:
        k: How often the phase turns while the frame turns once about the ray.
        omega: Change of the phase per unit of length along the ray.
    """

    k: int
    omega: float = 0.0

    @property
    def trivial(self) -> bool:
        """Whether values are invariant; they are then real."""
        return self.k == 0 and self.omega == 0


class Rays(eqx.Module):
    """Oriented rays.

    Attributes:
        direction: Unit vector d.
        moment: m = p × d, perpendicular to d.
    """

    direction: Float[Array, "*rays 3"]
    moment: Float[Array, "*rays 3"]

    def __getitem__(self, index: object) -> "Rays":
        return Rays(self.direction[index], self.moment[index])  # type: ignore[index]


class Section(eqx.Module):
    """A choice of frame and origin for each ray; no result with invariant input and output depends on it.

    Attributes:
        frame: Rotation matrices with columns e1, e2, d.
        origin: A point of each ray.
    """

    frame: Float[Array, "*rays 3 3"]
    origin: Float[Array, "*rays 3"]


def rays_through(points: Float[Array, "*rays 3"], directions: Float[Array, "*rays 3"]) -> Rays:
    """The rays through points along directions of any length, which must not be zero (see `check_directions`)."""
    unit = directions / jnp.sqrt((directions**2).sum(-1, keepdims=True))
    return Rays(unit, jnp.cross(points, unit))


def check_directions(directions: Float[Array, "*rays 3"]) -> None:
    """Refuse rays without a direction. Reads values: call it outside `jit`.

    Raises:
        UserError: A direction is zero or not finite.
    """
    values = np.asarray(directions)
    bad = ~(np.isfinite(values).all(-1) & (values != 0).any(-1))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise UserError(
            f"{int(bad.sum())} of {bad.size} rays have no direction: ray {where} has {values[where].tolist()}; "
            "give finite vectors that are not zero"
        )


def transformed(rays: Rays, rotation: Float[Array, "3 3"], translation: Float[Array, "3"]) -> Rays:
    """g x = (R d, R m + t × R d). `rotation` is proper: a mirror image of a ray has another sign of the moment."""
    direction = rays.direction @ rotation.T
    return Rays(direction, rays.moment @ rotation.T + jnp.cross(_like(translation, direction), direction))


def base_section(rays: Rays) -> Section:
    """The frame without branches in each hemisphere of d_z, and the foot of the coordinate origin, o = d × m.

    Source: the frame of Duff et al., J. Computer Graphics Techniques 6 (2017).
    """
    x, y, z = rays.direction[..., 0], rays.direction[..., 1], rays.direction[..., 2]
    sign = jnp.where(z >= 0, 1, -1).astype(z.dtype)
    a = -1 / (sign + z)
    b = x * y * a
    e1 = jnp.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=-1)
    e2 = jnp.stack([b, sign + y * y * a, -y], axis=-1)
    return Section(jnp.stack([e1, e2, rays.direction], axis=-1), jnp.cross(rays.direction, rays.moment))


def changed_section(section: Section, angle: Float[Array, "*rays"], shift: Float[Array, "*rays"]) -> Section:
    """The section s(x) h: e1, e2 turned by `angle` (radians) about the ray, the origin moved by `shift` along it.

    A field of type (k, ω) has the values ρ(h)⁻¹ f with respect to it.
    """
    e1, e2, d = (section.frame[..., i] for i in range(3))
    cosine, sine = jnp.cos(angle)[..., None], jnp.sin(angle)[..., None]
    frame = jnp.stack([cosine * e1 + sine * e2, cosine * e2 - sine * e1, d], axis=-1)
    return Section(frame, section.origin + shift[..., None] * d)


def cocycle(
    moved: Section, rotation: Float[Array, "3 3"], translation: Float[Array, "3"], section: Section
) -> tuple[Float[Array, "*rays"], Float[Array, "*rays"]]:
    """h(g, x) = s(gx)⁻¹ g s(x) as angle (radians) and shift along the ray.

    Args:
        moved: The section at the moved rays gx.
        rotation: R of g.
        translation: t of g.
        section: The section at the rays x.
    """
    turned = rotation @ section.frame[..., 0][..., None]
    first = (jnp.swapaxes(moved.frame, -1, -2) @ turned)[..., 0]
    origin = section.origin @ rotation.T
    between = origin + _like(translation, origin) - moved.origin
    return jnp.arctan2(first[..., 1], first[..., 0]), (moved.frame[..., 2] * between).sum(-1)


def phase(ray_type: RayType, angle: Float[Array, "*rays"], shift: Float[Array, "*rays"]) -> Complex[Array, "*rays"]:
    """ρ(φ, s) = e^{i(kφ + ωs)}: field values of the moved ray are ρ(h(g, x)) f(x)."""
    return unit_phase(ray_type.k * angle + ray_type.omega * shift)


class RayPairs(eqx.Module):
    """Each ray x with each ray y: the invariants, and the components that rotate with the frames.

    Under h = (φ, s) at x: a → e^{iφ} a and b → e^{iφ} (b + i s a); under h at y the same for a_back and b_back.

    Attributes:
        cosine: cos θ = d_x · d_y. Invariant.
        reciprocal: d_x · m_y + d_y · m_x, the distance of the lines times ± sin θ. Invariant; changes sign under mirrors.
        a: Direction of y in the frame of x, first two axes; |a| = sin θ.
        b: Moment of y in the frame of x, likewise.
        a_back: Direction of x in the frame of y.
        b_back: Moment of x in the frame of y.
        along: d_x · (o_y − o_x), which matters for parallel rays.
        twist: e1 of y in the frame of x, which matters for coincident rays.
    """

    cosine: Float[Array, "x y"]
    reciprocal: Float[Array, "x y"]
    a: Complex[Array, "x y"]
    b: Complex[Array, "x y"]
    a_back: Complex[Array, "x y"]
    b_back: Complex[Array, "x y"]
    along: Float[Array, "x y"]
    twist: Complex[Array, "x y"]

    @property
    def foot(self) -> Float[Array, "x y"]:
        """Coordinate on x, from its origin, of the foot of the common perpendicular; 0 for parallel rays."""
        return _foot(self.a, self.b)

    @property
    def foot_back(self) -> Float[Array, "x y"]:
        """The same on y."""
        return _foot(self.a_back, self.b_back)

    @property
    def parallel(self) -> Bool[Array, "x y"]:
        """Whether sin θ vanishes to half the digits of the precision."""
        return _vanishes(self.a)

    @property
    def offset(self) -> Complex[Array, "x y"]:
        """For parallel rays: y − x across x, in the frame of x."""
        return lax.complex(jnp.zeros_like(self.cosine), jnp.sign(self.cosine)) * self.b

    @property
    def offset_back(self) -> Complex[Array, "x y"]:
        """For parallel rays: y − x across y, in the frame of y."""
        return lax.complex(jnp.zeros_like(self.cosine), -jnp.sign(self.cosine)) * self.b_back

    @property
    def distance(self) -> Float[Array, "x y"]:
        """Shortest distance of the two lines. Invariant, also under mirrors."""
        sine = jnp.where(self.parallel, 1, _modulus(self.a))
        return jnp.where(self.parallel, _modulus(self.b), jnp.abs(self.reciprocal) / sine)

    @property
    def coincident(self) -> Bool[Array, "x y"]:
        """Whether both are the same line, in either direction."""
        return self.parallel & _vanishes(self.b)


def ray_pairs(x: Rays, x_section: Section, y: Rays, y_section: Section) -> RayPairs:
    """All pairs of two lists of rays."""
    direction, moment = _seen_from(x_section, y)
    back_direction, back_moment = (jnp.swapaxes(part, 0, 1) for part in _seen_from(y_section, x))
    first = jnp.einsum("xji,yj->xyi", x_section.frame, y_section.frame[..., 0])
    between = jnp.einsum("xj,yj->xy", x.direction, y_section.origin) - (x.direction * x_section.origin).sum(-1)[:, None]
    return RayPairs(
        cosine=direction[..., 2],
        reciprocal=moment[..., 2],
        a=_complex(direction),
        b=_complex(moment),
        a_back=_complex(back_direction),
        b_back=_complex(back_moment),
        along=between,
        twist=_complex(first),
    )


class PointPairs(eqx.Module):
    """Each point p with each ray y through the coordinates q = Fᵀ (p − o) of the point in the frame of the ray.

    Attributes:
        distance: r = |p × d − m|, of the point from the line. The only invariant.
        a: q1 + i q2, which rotates with the frame; |a| = r.
        along: q3, coordinate of the foot on the ray from its origin.
        direction: d of the ray.
        outward: r u, from the foot to the point.
        fallback: e1 of the ray, the outward direction for rays through the point.
    """

    distance: Float[Array, "points rays"]
    a: Complex[Array, "points rays"]
    along: Float[Array, "points rays"]
    direction: Float[Array, "points rays 3"]
    outward: Float[Array, "points rays 3"]
    fallback: Float[Array, "points rays 3"]

    @property
    def azimuth(self) -> Complex[Array, "points rays"]:
        """a / |a|, and 1 for rays through the point."""
        return unit(self.a)

    @property
    def frame(self) -> Float[Array, "points rays 3 3"]:
        """E with columns d × u, d, u: the images of x, y and z, so that the ray is the polar axis."""
        through = _vanishes(self.a)[..., None]
        unit = self.outward / jnp.where(through[..., 0], 1, self.distance)[..., None]
        unit = jnp.where(through, self.fallback, unit)
        return jnp.stack([jnp.cross(self.direction, unit), self.direction, unit], axis=-1)


def point_pairs(points: Float[Array, "points 3"], rays: Rays, section: Section) -> PointPairs:
    """All pairs of points and rays, or each point with rays of its own.

    Args:
        points: Points at which fields are evaluated.
        rays: Rays as (rays,), shared by all points, or (points, rays).
        section: Their section.
    """
    own = rays.direction.ndim == 3
    origin = section.origin if own else section.origin[None]
    frame = jnp.broadcast_to(section.frame if own else section.frame[None], (len(points), *section.frame.shape[-3:]))
    q = jnp.einsum("pyji,pyj->pyi", frame, points[:, None] - origin)
    outward = q[..., :1] * frame[..., 0] + q[..., 1:2] * frame[..., 1]
    a = _complex(q)
    return PointPairs(_modulus(a), a, q[..., 2], frame[..., 2], outward, frame[..., 0])


def pairs_through(direction: Float[Array, "points rays 3"], along: Float[Array, "points rays"]) -> PointPairs:
    """Points with rays that pass exactly through them, such as the pixels that they project to.

    Args:
        direction: Unit directions.
        along: Coordinates of the points on the rays, such as depths from the centres of projection.
    """
    none = jnp.zeros_like(along)
    nowhere = jnp.zeros_like(direction)
    across = base_section(Rays(direction, nowhere)).frame[..., 0]
    return PointPairs(none, lax.complex(none, none), along, direction, nowhere, across)


def unit_phase(angle: Float[Array, "*shape"]) -> Complex[Array, "*shape"]:
    """e^{i angle}."""
    return lax.complex(jnp.cos(angle), jnp.sin(angle))


def unit(a: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    """a / |a|, and 1 where a vanishes to half the digits; derivatives are finite."""
    none = _vanishes(a)
    length = jnp.sqrt(jnp.where(none, 1, a.real**2 + a.imag**2))
    return lax.complex(jnp.where(none, 1, a.real / length), jnp.where(none, 0, a.imag / length))


def power(a: Complex[Array, "*shape"], k: int) -> Complex[Array, "*shape"]:
    """a^k for k ≥ 0 and ā^|k| for k < 0: turns k times with a, and is a polynomial in it."""
    base, out = (a if k >= 0 else jnp.conj(a)), jnp.ones_like(a)
    for _ in range(abs(k)):
        out = out * base
    return out


def _seen_from(section: Section, rays: Rays) -> tuple[Float[Array, "x y 3"], Float[Array, "x y 3"]]:
    """Directions and moments of all rays in the frames of a section, moments about its origins."""
    moment = rays.moment[None] - jnp.cross(section.origin[:, None], rays.direction[None])
    return jnp.einsum("xji,yj->xyi", section.frame, rays.direction), jnp.einsum("xji,xyj->xyi", section.frame, moment)


def _foot(a: Array, b: Array) -> Array:
    parallel = _vanishes(a)
    square = jnp.where(parallel, 1, a.real**2 + a.imag**2)
    return jnp.where(parallel, 0, (b * jnp.conj(a)).imag / square)


def _complex(vectors: Array) -> Array:
    return lax.complex(vectors[..., 0], vectors[..., 1])


def _modulus(a: Array) -> Array:
    """|a| with derivative zero at zero."""
    square = a.real**2 + a.imag**2
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _vanishes(a: Array) -> Array:
    # Half the digits: beyond, a phase of rounding errors would be taken for a direction.
    return a.real**2 + a.imag**2 < jnp.finfo(a.real.dtype).eps


def _like(vector: Array, array: Array) -> Array:
    return jnp.broadcast_to(vector, array.shape)
