"""Calibrated photographs of NeRF and Middlebury, cameras and pixels, and what is refused."""

import json

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from equiform.algebra import cameras as algebra
from equiform.algebra.cameras import Cameras, check_cameras
from equiform.data.formats.cameras import nearest_rotations, read_image, read_middlebury, read_transforms, read_views, scaled
from equiform.data.sets.sphere_tracing import visual_hull
from equiform.errors import UserError

moved, pixel_rays, project = (eqx.filter_jit(f) for f in (algebra.moved, algebra.pixel_rays, algebra.project))


def write_images(folder, count, height=6, width=8, mode="RGB"):
    rng, images = np.random.default_rng(0), []
    for number in range(count):
        pixels = rng.integers(0, 256, (height, width, 3 if mode == "RGB" else 4), dtype=np.uint8)
        Image.fromarray(pixels, mode=None).save(folder / f"r_{number}.png")
        images.append(pixels / 255)
    return np.stack(images)


def write_transforms(folder, count=2, **changes):
    """Cameras at random places; returns their rotations in our convention and their centres."""
    rotation, centre = Rotation.random(count, random_state=0).as_matrix(), np.random.default_rng(1).normal(size=(count, 3))
    frames = []
    for number in range(count):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation[number] @ np.diag([1, -1, -1]), centre[number]  # y up, z backward
        frames.append({"file_path": f"./r_{number}", "transform_matrix": pose.tolist()})
    content = {"camera_angle_x": 0.8, "frames": frames} | changes
    (folder / "transforms.json").write_text(json.dumps(content))
    return rotation, centre


def test_nerf_cameras_are_turned_into_ours(tmp_path):
    images = write_images(tmp_path, 2)
    rotation, centre = write_transforms(tmp_path)
    views = read_views(tmp_path)
    np.testing.assert_allclose(views.images, images, rtol=0, atol=1e-15)
    np.testing.assert_allclose(views.cameras.rotation, rotation, rtol=0, atol=1e-14)
    np.testing.assert_allclose(views.cameras.centre, centre, rtol=0, atol=1e-15)
    focal = 4 / np.tan(0.4)
    np.testing.assert_allclose(views.cameras.intrinsics[1], [[focal, 0, 4], [0, focal, 3], [0, 0, 1]], rtol=0, atol=1e-13)
    assert views.names == ["r_0.png", "r_1.png"]


def test_pixels_of_a_nerf_camera_look_where_nerf_says(tmp_path):
    """NeRF's own rule: direction ((i − W/2) / f, −(j − H/2) / f, −1) in its camera, through the pixel's centre."""
    write_images(tmp_path, 2)
    write_transforms(tmp_path)
    poses = np.array([f["transform_matrix"] for f in json.loads((tmp_path / "transforms.json").read_text())["frames"]])
    rays = pixel_rays(read_transforms(tmp_path / "transforms.json").cameras)
    focal = 4 / np.tan(0.4)
    local = np.array([(2.5 - 4) / focal, -(4.5 - 3) / focal, -1])
    expected = poses[1, :3, :3] @ local / np.linalg.norm(local)
    np.testing.assert_allclose(rays.direction[1, 4, 2], expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(rays.moment[1, 4, 2], np.cross(poses[1, :3, 3], expected), rtol=0, atol=1e-14)


def test_frames_may_have_their_own_intrinsics_and_transparent_is_white(tmp_path):
    images = write_images(tmp_path, 2, mode="RGBA")
    write_transforms(tmp_path, fl_x=9.0, fl_y=8.0, cx=3.5, cy=2.5)
    views = read_views(tmp_path / "transforms.json")
    np.testing.assert_allclose(views.cameras.intrinsics[0], [[9, 0, 3.5], [0, 8, 2.5], [0, 0, 1]])
    alpha = images[..., 3:]
    np.testing.assert_allclose(views.images, images[..., :3] * alpha + 1 - alpha, rtol=0, atol=1e-15)


def write_middlebury(folder, count=2):
    rotation = Rotation.random(count, random_state=2).as_matrix()
    shift, k = np.random.default_rng(3).normal(size=(count, 3)), np.array([[7.0, 0, 3], [0, 7.5, 2], [0, 0, 1]])
    lines = [
        f"r_{n}.png " + " ".join(map(repr, [*k.ravel().tolist(), *rotation[n].ravel().tolist(), *shift[n].tolist()]))
        for n in range(count)
    ]
    (folder / "scene_par.txt").write_text(f"{count}\n" + "\n".join(lines) + "\n")
    return k, rotation, shift


def test_middlebury_projection_is_that_of_the_file(tmp_path):
    """P = K [R | t] gives whole numbers at pixel centres; ours are half a pixel further."""
    write_images(tmp_path, 2)
    k, rotation, shift = write_middlebury(tmp_path)
    views, point = read_views(tmp_path), np.array([0.3, 0.1, -0.2])
    for number in range(2):
        seen = k @ (rotation[number] @ point + shift[number])
        cameras = Cameras(
            *(jnp.asarray(part) for part in (views.cameras.rotation, views.cameras.centre, views.cameras.intrinsics)), 6, 8
        )
        place, depth = project(cameras, jnp.asarray(point))
        np.testing.assert_allclose(depth[number], seen[2], rtol=0, atol=1e-14)
        if seen[2] > 0:
            np.testing.assert_allclose(place[number] - 0.5, seen[:2] / seen[2], rtol=0, atol=1e-12)


def test_pixels_and_projection_are_inverse_to_each_other():
    rotation = jnp.asarray(Rotation.random(2, random_state=5).as_matrix())
    k = jnp.asarray([[[9.0, 0.2, 4], [0, 8, 3], [0, 0, 1]]] * 2)
    cameras = Cameras(rotation, jnp.asarray([[1.0, 2, 3], [0, -1, 0]]), k, 6, 8)
    turn, shift = jnp.asarray(Rotation.random(random_state=6).as_matrix()), jnp.asarray([3.0, 1, 2])
    for these in (cameras, moved(cameras, turn, shift)):
        rays = pixel_rays(these)
        point = these.centre[1] + 2.5 * rays.direction[1, 2, 5]
        place, depth = project(these, point)
        np.testing.assert_allclose(place[1], [5.5, 2.5], rtol=0, atol=1e-12)
        assert depth[1] > 0


def test_temple_hull_fills_the_documented_box(shared_data):
    """Real photographs: silhouettes carve out the published bounding box, so all conventions are right."""
    stored = np.load(shared_data / "views" / "templeSparseRing_80x60.npz")
    rotation = np.swapaxes(nearest_rotations(stored["R"]), 1, 2)
    low, high = np.array([-0.0736, 0.0217, -0.0124]), np.array([0.0289, 0.1819, 0.0627])
    axes = [np.linspace(l - 0.04, h + 0.04, 32) for l, h in zip(low, high)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    k = np.broadcast_to(stored["K"], (len(rotation), 3, 3)) if stored["K"].ndim == 2 else stored["K"]
    inside = visual_hull(points, rotation, stored["centre"], k, stored["rgb"].max(-1) > 40)
    np.testing.assert_allclose(points[inside].min(0), low, rtol=0, atol=0.02)
    np.testing.assert_allclose(points[inside].max(0), high, rtol=0, atol=0.02)
    np.testing.assert_allclose(stored["centre"], -np.einsum("vji,vj->vi", stored["R"], stored["t"]), rtol=0, atol=1e-5)


def test_scaled_images_keep_their_rays(tmp_path):
    write_images(tmp_path, 2)
    write_transforms(tmp_path)
    views = read_views(tmp_path)
    small = scaled(views, 3, 4)
    np.testing.assert_allclose(small.images.mean(axis=(1, 2)), views.images.mean(axis=(1, 2)), rtol=0, atol=1e-6)
    centre = np.asarray(pixel_rays(small.cameras).direction)[0, 1, 2]
    four = np.asarray(pixel_rays(views.cameras).direction)[0, 2:4, 4:6].reshape(4, 3)
    np.testing.assert_allclose(centre, four.mean(0) / np.linalg.norm(four.mean(0)), rtol=0, atol=1e-2)


def test_rounded_rotations_are_mended_and_others_left():
    rotation = Rotation.random(random_state=0).as_matrix()
    mended = nearest_rotations(np.stack([rotation + 1e-6, 1.1 * rotation]))
    np.testing.assert_allclose(mended[0].T @ mended[0], np.eye(3), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(mended[1], 1.1 * rotation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": []}, "4 × 4|at least two views"),
        ({"camera_angle_x": None}, "that are no numbers"),
        ({"w": 80, "h": 60}, "has 6 × 8 pixels .* its camera 60 × 80; scale"),
        ({"k1": 0.1}, "lens distortion"),
    ],
)
def test_broken_transforms_are_explained(tmp_path, changes, message):
    write_images(tmp_path, 2)
    write_transforms(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        read_views(tmp_path)


def test_one_view_and_no_rotation_and_missing_files_are_explained(tmp_path):
    write_images(tmp_path, 1)
    write_transforms(tmp_path, 1)
    with pytest.raises(UserError, match="at least two views; received 1"):
        read_views(tmp_path)
    write_images(tmp_path, 2)
    content = json.loads((tmp_path / "transforms.json").read_text())
    scaled_pose = (np.array(content["frames"][0]["transform_matrix"]) * 2).tolist()
    content["frames"] = [content["frames"][0], {"file_path": "r_1.png", "transform_matrix": scaled_pose}]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"the orientation of r_1\.png is no rotation"):
        read_views(tmp_path)
    content["frames"][1] = {"file_path": "missing.png", "transform_matrix": np.eye(4).tolist()}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"there is no image .*missing\.png"):
        read_views(tmp_path)
    del content["frames"]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="'frames' is missing"):
        read_views(tmp_path)
    with pytest.raises(UserError, match="there is no file"):
        read_views(tmp_path / "other.json")


def test_broken_parameter_files_are_explained(tmp_path):
    with pytest.raises(UserError, match=r"must hold one transforms.json, \*_par.txt or \*.npz; there is none"):
        read_views(tmp_path)
    file = tmp_path / "a_par.txt"
    file.write_text("2\nr_0.png 1 2 3\nr_1.png 1 2 3\n")
    with pytest.raises(UserError, match="line 2: a name and 21 numbers"):
        read_middlebury(file)
    file.write_text("3\nr_0.png 1 2 3\n")
    with pytest.raises(UserError, match="must begin with the number of its images"):
        read_middlebury(file)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match="cannot be read as an image"):
        read_image(tmp_path / "text.png")


def test_mirrors_and_images_of_other_sizes_are_refused():
    identity = np.broadcast_to(np.eye(3), (2, 3, 3))
    cameras = Cameras(identity.copy(), np.zeros((2, 3)), identity.copy(), 6, 8)
    check_cameras(cameras, np.zeros((2, 6, 8, 3)))
    with pytest.raises(UserError, match=r"do not fit the cameras: 2 of 8 × 6 pixels .* 2 cameras of 6 × 8"):
        check_cameras(cameras, np.zeros((2, 8, 6, 3)))
    mirrored = Cameras(identity * np.array([-1, 1, 1]), np.zeros((2, 3)), identity.copy(), 6, 8)
    with pytest.raises(UserError, match=r"view 0 is no rotation.* determinant -1"):
        check_cameras(mirrored)
    flat = Cameras(identity.copy(), np.zeros((2, 3)), np.zeros((2, 3, 3)), 6, 8)
    with pytest.raises(UserError, match="no usable focal lengths"):
        check_cameras(flat)


def test_arrays_are_read_like_the_files_they_come_from(tmp_path):
    rng = np.random.default_rng(0)
    rotation = Rotation.random(2, random_state=0).as_matrix()
    rgb, k, t = rng.integers(0, 256, (2, 4, 6, 3), np.uint8), np.stack([np.diag([9.0, 8, 1])] * 2), rng.normal(size=(2, 3))
    np.savez(tmp_path / "views.npz", rgb=rgb, K=k, R=rotation, t=t)
    found = read_views(tmp_path)
    np.testing.assert_allclose(found.images, rgb / 255, rtol=0, atol=1e-12)
    point = rng.normal(size=3)
    for view in range(2):
        seen = np.asarray(found.cameras.rotation)[view].T @ (point - np.asarray(found.cameras.centre)[view])
        np.testing.assert_allclose(seen, rotation[view] @ point + t[view], rtol=0, atol=1e-12)
    for name, wrong, message in (
        ("R", 2 * rotation, "is no rotation"),
        ("t", t[:1], "received uint8"),
        ("rgb", rgb / 255, "rgb must be bytes"),
    ):
        np.savez(tmp_path / "views.npz", **({"rgb": rgb, "K": k, "R": rotation, "t": t} | {name: wrong}))
        with pytest.raises(UserError, match=message):
            read_views(tmp_path)
    np.savez(tmp_path / "views.npz", rgb=rgb[:1], K=k[:1], R=rotation[:1], t=t[:1])
    with pytest.raises(UserError, match="at least two views; received 1"):
        read_views(tmp_path)
