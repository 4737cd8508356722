"""Procedural scenes of rays: the stored scene, exact distances, cameras, protocols, and a hull that contains the object."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiform.data.sets.rays_scenes import (
    SPLITS,
    draw_cameras,
    draw_points,
    draw_scene,
    make_sample,
    pixel_directions,
)
from equiform.data.sets.sphere_tracing import BOX, Scene, distances, normals, signed_distance, trace, visual_hull
from equiform.errors import UserError


@pytest.fixture(scope="module")
def stored(parity_folder):
    return np.load(parity_folder / "rays" / "rays_scene.npz")


def stored_scene(stored):
    return Scene(*(stored[f"scene.{name}"] for name in ("kind", "c", "R", "par", "rgb", "light")))


def stored_intrinsics():
    focal = 8 / np.tan(np.radians(20))
    return np.array([[focal, 0, 8], [0, focal, 8], [0, 0, 1]])


def test_rendered_views_equal_the_stored_ones(stored):
    directions = pixel_directions(stored["cam.R_c2w"], stored_intrinsics(), 16)
    np.testing.assert_allclose(directions.reshape(4, -1, 3), stored["view.d"], rtol=0, atol=1e-14)
    origins = np.repeat(stored["cam.o"][:, None], 256, axis=1)
    np.testing.assert_array_equal(origins, stored["view.o"])
    moment = np.cross(origins, directions.reshape(4, -1, 3))
    np.testing.assert_allclose(moment, stored["plucker"][..., 3:], rtol=0, atol=1e-14)
    seen = trace(stored_scene(stored), origins.reshape(-1, 3), directions.reshape(-1, 3))
    np.testing.assert_array_equal(seen.hit, stored["view.hit"].ravel())
    np.testing.assert_allclose(seen.depth, stored["view.depth"].ravel(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(seen.rgb, stored["view.rgb"].reshape(-1, 3), rtol=0, atol=1e-10)
    points = origins.reshape(-1, 3) + seen.depth[:, None] * directions.reshape(-1, 3)
    facing = -(normals(stored_scene(stored), points) * directions.reshape(-1, 3)).sum(-1)
    np.testing.assert_allclose(np.where(seen.hit, np.maximum(facing, 0), 0), stored["view.head"].ravel(), rtol=0, atol=1e-10)


def test_distances_and_hull_equal_the_stored_ones(stored):
    np.testing.assert_allclose(
        signed_distance(stored_scene(stored), stored["query.p"]), stored["query.sdf"], rtol=0, atol=1e-14
    )
    silhouettes, k = stored["view.hit"].reshape(4, 16, 16), np.repeat(stored_intrinsics()[None], 4, axis=0)
    inside = visual_hull(stored["query.p"], stored["cam.R_c2w"], stored["cam.o"], k, silhouettes)
    np.testing.assert_array_equal(inside, stored["hull.inside"])


def test_distances_outside_are_those_to_the_nearest_surface_point():
    """The torus and the box against dense points of their surfaces."""
    rng = np.random.default_rng(0)
    light, one = np.array([0, 0, 1.0]), np.ones((1, 3))
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 200), np.linspace(0, 2 * np.pi, 100))
    torus = np.stack([(0.4 + 0.1 * np.cos(v)) * np.cos(u), (0.4 + 0.1 * np.cos(v)) * np.sin(u), 0.1 * np.sin(v)], -1).reshape(
        -1, 3
    )
    a, b = (part.ravel() for part in np.meshgrid(np.linspace(-1, 1, 80), np.linspace(-1, 1, 80)))
    faces = [np.insert(np.stack([a, b], -1), axis, side, axis=1) for axis in range(3) for side in (-1, 1)]
    size = np.array([[0.2, 0.3, 0.15]])
    for kind, parameters, surface in ((2, np.array([[0.4, 0.1, 0]]), torus), (BOX, size, np.concatenate(faces) * size)):
        scene = Scene(np.array([kind]), np.zeros((1, 3)), np.eye(3)[None], parameters, one, light)
        points = rng.uniform(-1, 1, (6, 3))
        found = signed_distance(scene, points)
        nearest = np.linalg.norm(points[:, None] - surface[None], axis=-1).min(1)
        np.testing.assert_allclose(np.abs(found), nearest, rtol=0, atol=1e-2)


def test_drawn_scenes_have_the_sizes_of_the_specification():
    rng, counts = np.random.default_rng(0), []
    for _ in range(200):
        scene = draw_scene(rng)
        counts.append(len(scene.kind))
        assert np.abs(scene.centre).max() <= 0.4 and (scene.rotation[:, 2, 2] == 1).all()
        for kind, size in zip(scene.kind, scene.size):
            low, high = {0: ([0.2, 0, 0], [0.45, 0, 0]), 1: ([0.15] * 3, [0.4] * 3), 2: ([0.25, 0.07, 0], [0.4, 0.15, 0])}[kind]
            assert (size >= low).all() and (size <= high).all()
        assert scene.albedo.min() >= 0.2 and scene.albedo.max() <= 1
    assert set(counts) == {1, 2, 3}


def test_cameras_are_rotations_that_look_at_the_origin_from_above():
    rotation, centre = draw_cameras(np.random.default_rng(0), 50)
    np.testing.assert_allclose(
        np.swapaxes(rotation, 1, 2) @ rotation, np.broadcast_to(np.eye(3), (50, 3, 3)), rtol=0, atol=1e-14
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1, rtol=0, atol=1e-14)
    np.testing.assert_allclose(rotation[:, :, 2], -centre / 3, rtol=0, atol=1e-14)
    elevation = np.degrees(np.arcsin(centre[:, 2] / 3))
    assert elevation.min() >= 10 and elevation.max() <= 60
    assert (rotation[:, 2, 1] < 0).all() and np.abs(rotation[:, 2, 0]).max() < 1e-15  # y is down, x level


def test_samples_are_repeatable_and_differ():
    first, again, other = make_sample("test", 3, pixels=8), make_sample("test", 3, pixels=8), make_sample("test", 4, pixels=8)
    for mine, same in zip(first, again):
        np.testing.assert_array_equal(mine, same)
    assert np.abs(first.points - other.points).max() > 0.1
    assert first.images.shape == (4, 8, 8, 3) and first.target_image.shape == (8, 8, 3)


def test_half_of_the_points_are_near_the_surface():
    rng = np.random.default_rng(1)
    scene = draw_scene(rng)
    points = draw_points(rng, scene, 2000)
    distance = np.abs(signed_distance(scene, points[1000:]))
    assert np.median(distance) < 0.06 < np.median(np.abs(signed_distance(scene, points[:1000])))
    assert np.abs(points[:1000]).max() <= 1


def test_moved_sample_is_what_the_moved_scene_shows():
    """Nothing is rendered again for protocol SO(3), because this holds."""
    rng = np.random.default_rng(2)
    scene, (rotation, centre) = draw_scene(rng), draw_cameras(rng, 2)
    k = np.array([[11.0, 0, 4], [0, 11, 4], [0, 0, 1]])
    turn, shift = Rotation.random(random_state=1).as_matrix(), np.array([0.3, -2, 1])

    def images(scene, rotation, centre):
        directions = pixel_directions(rotation, k, 8).reshape(-1, 3)
        return trace(scene, np.repeat(centre, 64, axis=0), directions)

    before, after = images(scene, rotation, centre), images(scene.moved(turn, shift), turn @ rotation, centre @ turn.T + shift)
    np.testing.assert_array_equal(after.hit, before.hit)
    np.testing.assert_allclose(after.rgb, before.rgb, rtol=0, atol=1e-6)  # normals are differences of 1e-5
    upright, moved = make_sample("test", 0, pixels=8), make_sample("test", 0, protocol="SO(3)", pixels=8)
    np.testing.assert_array_equal(moved.images, upright.images)
    np.testing.assert_array_equal(moved.signed_distance, upright.signed_distance)
    local = [np.einsum("vji,vpj->vpi", s.rotation, s.points[None] - s.centre[:, None]) for s in (upright, moved)]
    np.testing.assert_allclose(local[1], local[0], rtol=0, atol=1e-13)
    assert np.abs(moved.points - upright.points).max() > 0.1


def test_hull_contains_the_object_up_to_a_pixel():
    """A point well inside is inside of the hull; the hull is not everything."""
    sample = make_sample("test", 1)
    k = np.repeat(sample.intrinsics[None], 4, axis=0)
    inside = visual_hull(sample.points, sample.rotation, sample.centre, k, sample.silhouettes)
    assert inside[sample.signed_distance < -0.08].all()
    assert not inside.all() and (inside & (sample.signed_distance > 0)).any()


def test_unknown_samples_and_too_few_views_are_named():
    with pytest.raises(UserError, match="no sample 200 of 'test'; there are train 0 … 1999"):
        make_sample("test", SPLITS["test"][1])
    with pytest.raises(UserError, match="at least two views; received 1"):
        make_sample("test", 0, views=1)


def test_distances_to_each_solid_follow_its_motion():
    rng, turn, shift = np.random.default_rng(5), Rotation.random(random_state=3).as_matrix(), np.array([1.0, 2, -3])
    scene, points = draw_scene(rng), rng.uniform(-1, 1, (30, 3))
    after = distances(scene.moved(turn, shift), points @ turn.T + shift)
    np.testing.assert_allclose(after, distances(scene, points), rtol=0, atol=1e-13)
