"""Objects as multivectors: moving the object and moving its multivector are the same, and extraction undoes embedding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiform.algebra.clifford import assemble, conformal, euclidean, products, projective
from equiform.algebra.clifford.maps import action_matrix
from tests.algebra.clifford.cases import GEOMETRIES, random_motion, random_multivectors

ODD = pytest.mark.parametrize("odd", [False, True], ids=["motor", "mirror"])
RNG = np.random.default_rng(5)
POINT, SECOND, VECTOR, NORMAL = (jnp.asarray(x) for x in RNG.normal(size=(4, 3)))
DISTANCE, RADIUS, NUMBER = (jnp.asarray(x) for x in (0.7, 1.3, -0.4))


def close(left, right, tolerance=1e-13):
    np.testing.assert_allclose(left, right, rtol=0, atol=tolerance * max(1.0, float(np.abs(right).max())))


def moved_plane(motion, normal, distance):
    normal = motion.vector(normal)
    return normal, distance + normal @ motion.shift


@ODD
def test_euclidean_objects(odd):
    motion = random_motion("E", odd=odd)
    close(euclidean.direction(motion.vector(VECTOR)), motion.multivector(euclidean.direction(VECTOR)))
    close(euclidean.axial(motion.axial(VECTOR)), motion.multivector(euclidean.axial(VECTOR)))
    close(euclidean.plane(motion.vector(NORMAL), DISTANCE), motion.multivector(euclidean.plane(NORMAL, DISTANCE)))
    close(euclidean.extract_direction(euclidean.direction(VECTOR)), VECTOR)
    close(euclidean.extract_axial(euclidean.axial(VECTOR)), VECTOR)
    close(euclidean.extract_plane(euclidean.plane(NORMAL, DISTANCE))[1], DISTANCE)


@ODD
def test_projective_objects_points_and_rays_with_a_sign_under_mirrors(odd):
    motion, sign = random_motion("P", odd=odd), -1 if odd else 1
    close(sign * projective.point(motion.point(POINT)), motion.multivector(projective.point(POINT)))
    close(projective.direction(motion.vector(VECTOR)), motion.multivector(projective.direction(VECTOR)))
    plane = motion.multivector(projective.plane(NORMAL, DISTANCE))
    close(projective.plane(*moved_plane(motion, NORMAL, DISTANCE)), plane)
    moved = projective.ray(motion.vector(VECTOR), jnp.cross(motion.point(POINT), motion.vector(VECTOR)))
    close(sign * moved, motion.multivector(projective.ray(VECTOR, jnp.cross(POINT, VECTOR))))
    through = motion.multivector(projective.plane_through(NORMAL, POINT))
    close(projective.plane_through(motion.vector(NORMAL), motion.point(POINT)), through)


@ODD
def test_conformal_objects_without_a_sign(odd):
    motion = random_motion("C", odd=odd)
    close(conformal.point(motion.point(POINT)), motion.multivector(conformal.point(POINT)))
    close(conformal.sphere(motion.point(POINT), RADIUS), motion.multivector(conformal.sphere(POINT, RADIUS)))
    close(conformal.direction(motion.vector(VECTOR)), motion.multivector(conformal.direction(VECTOR)))
    plane = motion.multivector(conformal.plane(NORMAL, DISTANCE))
    close(conformal.plane(*moved_plane(motion, NORMAL, DISTANCE)), plane)
    line = conformal.line(motion.point(POINT), motion.vector(VECTOR))
    close(line, motion.multivector(conformal.line(POINT, VECTOR)))
    close(conformal.flat_point(motion.point(POINT)), motion.multivector(conformal.flat_point(POINT)))


@ODD
@pytest.mark.parametrize("name", GEOMETRIES)
def test_scalars_stay_and_pseudoscalars_change_sign_under_mirrors(name, odd):
    motion, algebra = random_motion(name, odd=odd), GEOMETRIES[name].algebra
    close(assemble.scalar(algebra, NUMBER), motion.multivector(assemble.scalar(algebra, NUMBER)))
    close(
        (-1 if odd else 1) * assemble.pseudoscalar(algebra, NUMBER), motion.multivector(assemble.pseudoscalar(algebra, NUMBER))
    )
    assert assemble.extract_scalar(algebra, assemble.scalar(algebra, NUMBER)) == NUMBER
    assert assemble.extract_pseudoscalar(algebra, assemble.pseudoscalar(algebra, NUMBER)) == NUMBER


@ODD
@pytest.mark.parametrize("name", GEOMETRIES)
def test_products_are_equivariant_and_the_join_up_to_the_determinant(name, odd):
    motion, algebra = random_motion(name, odd=odd), GEOMETRIES[name].algebra
    x, y = (jnp.asarray(random_multivectors(algebra, seed=seed)) for seed in (1, 2))
    for product in (products.geometric_product, products.outer_product, products.left_contraction):
        close(product(algebra, motion.multivector(x), motion.multivector(y)), motion.multivector(product(algebra, x, y)), 1e-12)
    joined = products.join(algebra, motion.multivector(x), motion.multivector(y))
    close((-1 if odd else 1) * joined, motion.multivector(products.join(algebra, x, y)), 1e-12)
    close(
        products.inner_product(algebra, motion.multivector(x), motion.multivector(y)),
        products.inner_product(algebra, x, y),
        1e-12,
    )


@pytest.mark.parametrize("model", [projective, conformal])
def test_motors_rotate_and_then_translate(model):
    algebra = GEOMETRIES["P" if model is projective else "C"].algebra
    motion = random_motion("P", odd=False)
    quaternion = jnp.asarray(Rotation.from_matrix(motion.matrix).as_quat())
    motor = model.motor(quaternion, jnp.asarray(motion.shift))
    moved = products.sandwich(algebra, motor, model.point(POINT), odd=False)
    close(model.extract_point(moved), motion.point(POINT))
    close(assemble.extract_rotation(algebra, motor), quaternion)
    close(model.extract_translation(model.translation(VECTOR)), VECTOR)


def test_extraction_undoes_embedding():
    close(projective.extract_point(-2.5 * projective.point(POINT)), POINT)
    close(projective.extract_direction(projective.direction(VECTOR)), VECTOR)
    for part, expected in zip(projective.extract_plane(projective.plane(NORMAL, DISTANCE)), (NORMAL, DISTANCE)):
        close(part, expected)
    for part, expected in zip(projective.extract_ray(projective.ray(VECTOR, SECOND)), (VECTOR, SECOND)):
        close(part, expected)
    close(conformal.extract_point(-2.5 * conformal.point(POINT)), POINT)
    centre, square = conformal.extract_sphere(-2.5 * conformal.sphere(POINT, RADIUS))
    close(centre, POINT)
    close(square, RADIUS**2)
    close(conformal.extract_direction(conformal.direction(VECTOR)), VECTOR)
    for part, expected in zip(conformal.extract_plane(conformal.plane(NORMAL, DISTANCE)), (NORMAL, DISTANCE)):
        close(part, expected)
    for part, expected in zip(conformal.extract_line(conformal.line(POINT, VECTOR)), (VECTOR, np.cross(POINT, VECTOR))):
        close(part, expected)
    close(conformal.extract_flat_point(3 * conformal.flat_point(POINT)), POINT)


def test_a_motor_is_taken_apart():
    quaternion = jnp.asarray(np.random.default_rng(0).normal(size=4))
    turn, shift = projective.extract_motor(projective.motor(quaternion, VECTOR))
    close(turn, quaternion)
    close(shift, VECTOR)


def test_products_measure_distances():
    distance = np.linalg.norm(POINT - SECOND)
    close(-2 * products.inner_product(GEOMETRIES["C"].algebra, conformal.point(POINT), conformal.point(SECOND)), distance**2)
    line = products.join(GEOMETRIES["P"].algebra, projective.point(POINT), projective.point(SECOND))
    close(jnp.sqrt(products.inner_product(GEOMETRIES["P"].algebra, line, line)), distance)
    plane = conformal.plane(NORMAL, DISTANCE)
    close(products.inner_product(GEOMETRIES["C"].algebra, conformal.point(POINT), plane), POINT @ NORMAL - DISTANCE)
    one = products.inner_product(GEOMETRIES["P"].algebra, projective.point(POINT), projective.point(SECOND))
    close(one, 1.0)  # the plain projective product cannot tell two points apart


@pytest.mark.parametrize(("offset", "null", "orthogonal"), [(20.0, 2e-3, 1e-2), (200.0, 0.2, 50.0)])
def test_null_basis_keeps_distances_in_single_precision(offset, null, orthogonal):
    rng = np.random.default_rng(0)
    p = (rng.normal(size=(50, 3)) + offset).astype(np.float32)
    q = (p + rng.normal(size=(50, 3)) * 0.8).astype(np.float32)
    exact = ((p.astype(float) - q) ** 2).sum(-1)
    x, y = conformal.point(jnp.asarray(p)), conformal.point(jnp.asarray(q))
    assert np.abs(-2 * np.asarray(products.inner_product(GEOMETRIES["C"].algebra, x, y)) - exact).max() < null
    far = conformal.orthogonal_conformal()
    x, y = conformal.to_orthogonal(x), conformal.to_orthogonal(y)
    assert np.abs(-2 * np.asarray(products.inner_product(far, x, y)) - exact).max() > orthogonal


def test_points_below_the_floor():
    weak = 1e-4 * projective.point(POINT)
    close(projective.extract_point(weak), POINT / 10)
    close(projective.extract_point(-weak), -POINT / 10)
    close(projective.extract_point(-weak, signed=True), POINT / 10)


def test_published_embeddings_and_extractions(parity_folder):
    stored = {
        name: jnp.asarray(x)
        for name, x in np.load(parity_folder / "gatr" / "primitives" / "pairs.npz").items()
        if x.dtype == float
    }
    p, n, t, quaternion, algebra = stored["p"], stored["n"], stored["t"], stored["quat_ijkw"], GEOMETRIES["P"].algebra
    close(projective.point(p), stored["embed_point"])
    close(projective.plane_through(n, p), stored["embed_plane"])
    close(projective.translation(t), stored["embed_translation"])
    close(assemble.rotation(algebra, quaternion), stored["embed_rotation"])
    close(projective.ray(stored["ray"][:, :3], stored["ray"][:, 3:]), stored["embed_ray"])
    close(assemble.pseudoscalar(algebra, stored["ps"][:, 0]), stored["embed_pseudoscalar"])
    close(assemble.scalar(algebra, stored["ps"][:, 0]), stored["embed_scalar"])
    close(projective.oriented_object(p, quaternion), stored["embed_object"])
    close(projective.framed_object(p, n, t), stored["embed_object2"])
    close(projective.extract_point(stored["ext_in"]), stored["extract_point"])
    close(projective.point_weight_error(stored["ext_in"]), stored["extract_point_reg"][:, 0] ** 2)
    close(projective.extract_plane(stored["ext_in"])[0], stored["extract_plane"])
    close(jnp.concatenate(projective.extract_ray(stored["ext_in"]), -1), stored["extract_ray"])
    close(assemble.extract_rotation(algebra, stored["ext_in"]), stored["extract_rotation"])
    close(projective.extract_translation(stored["ext_in"]), stored["extract_translation"])
    position, _ = projective.extract_pose(stored["embed_object"])
    close(position, stored["extract_object_pos"][:, 0])


def test_published_actions(parity_folder):
    stored, algebra = np.load(parity_folder / "gatr" / "primitives" / "pairs.npz"), GEOMETRIES["P"].algebra
    x = jnp.asarray(stored["x"])
    for versor, odd, matrix in zip(stored["grp_u"], stored["grp_odd"], stored["grp_M"]):
        close(action_matrix(algebra, versor, odd=bool(odd)), matrix)
        moved = products.sandwich(algebra, jnp.broadcast_to(jnp.asarray(versor), x.shape), x, odd=bool(odd))
        close(moved, x @ matrix.T)


def test_stored_objects_of_the_other_algebras(parity_folder):
    folder = parity_folder / "gatr" / "algebras"
    flat = {name: jnp.asarray(x) for name, x in np.load(folder / "E.npz").items() if x.dtype == float}
    close(euclidean.direction(flat["v"]), flat["vector"])
    close(assemble.rotation(GEOMETRIES["E"].algebra, flat["q"]), flat["rotation"])
    c = {name: jnp.asarray(x) for name, x in np.load(folder / "C.npz").items() if x.dtype == float}
    pairs = {
        "point": conformal.point(c["p"]),
        "plane": conformal.plane(c["n"], c["d"]),
        "sphere": conformal.sphere(c["c"], c["r"]),
        "translation": conformal.translation(c["s"]),
        "rotation": assemble.rotation(GEOMETRIES["C"].algebra, c["q"]),
        "direction": conformal.direction(c["v"]),
        "line": conformal.line(c["p"], c["v"]),
        "motor": conformal.motor(c["q"], c["t"]),
    }
    for name, ours in pairs.items():
        close(conformal.to_orthogonal(ours), c[name])
        close(conformal.from_orthogonal(c[name]), ours)


def test_embeddings_are_differentiable_where_a_weight_vanishes():
    gradient = jax.grad(lambda x: projective.extract_point(x).sum())(jnp.zeros(16))
    assert np.isfinite(gradient).all()
    gradient = jax.grad(lambda x: conformal.extract_point(x).sum())(jnp.zeros(32))
    assert np.isfinite(gradient).all()
