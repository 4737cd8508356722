"""Surfaces and pictures of models of scenes: geometry of meshes, files, and what cannot be predicted."""

import numpy as np
import pytest

from equiform.algebra.cameras import Cameras, Frame
from equiform.data.formats.cameras import Views
from equiform.errors import UserError
from equiform.jobs.scenes import Mesh, find_scene_model, on_white, psnr, surface, write_ply


def ball(resolution=24, radius=0.6):
    """Signed distance to a ball in the cube [−1, 1]³."""
    edge = np.linspace(-1, 1, resolution)
    return np.sqrt(sum(axis**2 for axis in np.meshgrid(edge, edge, edge, indexing="ij"))) - radius


def volume(mesh):
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    return np.einsum("fi,fi->f", a, np.cross(b, c)).sum() / 6


@pytest.mark.parametrize("occupancy", [False, True])
def test_the_surface_of_a_ball_is_where_it_is_and_faces_outwards(occupancy):
    pytest.importorskip("skimage", reason="scikit-image (extra `rays`) is not installed")
    values = 1 / (1 + np.exp(20 * ball())) if occupancy else ball()
    frame = Frame(np.array([5.0, 0, -1]), 2.0)
    mesh = surface(values, 0.5 if occupancy else 0.0, 1.0, frame, inside_above=occupancy)
    radius = np.linalg.norm(mesh.vertices - frame.origin, axis=1)
    assert np.abs(radius - 1.2).max() < 0.02
    assert volume(mesh._replace(vertices=mesh.vertices - frame.origin)) == pytest.approx(4 / 3 * np.pi * 1.2**3, rel=0.02)


def test_without_a_surface_says_so():
    pytest.importorskip("skimage", reason="scikit-image (extra `rays`) is not installed")
    for values, what in ((np.zeros((4, 4, 4)), "nothing"), (np.ones((4, 4, 4)), "everything")):
        with pytest.raises(UserError, match=f"takes {what} in the cube to be inside"):
            surface(values, 0.5, 1.0, Frame(np.zeros(3), 1.0), inside_above=True)


def test_written_mesh_is_a_binary_ply(tmp_path):
    vertices, faces = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.5]]), np.array([[0, 2, 1], [0, 1, 3]], np.int32)
    write_ply(tmp_path / "m.ply", Mesh(vertices.astype(float), faces))
    header, _, body = (tmp_path / "m.ply").read_bytes().partition(b"end_header\n")
    assert b"element vertex 4" in header and b"element face 2" in header
    np.testing.assert_array_equal(np.frombuffer(body[:48], "<f4").reshape(4, 3), vertices)
    found = np.frombuffer(body[48:], np.dtype([("n", "u1"), ("i", "<i4", 3)]))
    np.testing.assert_array_equal(found["i"], faces)
    assert (found["n"] == 3).all()


def test_black_backgrounds_become_white_and_white_ones_stay():
    images = np.zeros((2, 6, 6, 3))
    images[:, 2:4, 2:4] = 0.5
    cameras = Cameras(np.stack([np.eye(3)] * 2), np.zeros((2, 3)), np.stack([np.eye(3)] * 2), 6, 6)
    found = on_white(Views(images, cameras, ["a", "b"])).images
    assert (found[:, 0] == 1).all() and (found[:, 2:4, 2:4] == 0.5).all()
    white = Views(found, cameras, ["a", "b"])
    assert on_white(white) is white


def test_psnr_is_its_formula():
    assert psnr(np.full((2, 2, 3), 0.6), np.full((2, 2, 3), 0.5)) == pytest.approx(20, abs=1e-9)


def test_folders_without_or_with_several_models(tmp_path):
    assert find_scene_model(tmp_path) is None and find_scene_model(tmp_path / "nothing") is None
    for name in ("view-mlp", "world-transformer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"format": "equiform-scene-model"}')
    with pytest.raises(UserError, match="several models"):
        find_scene_model(tmp_path)
    (tmp_path / "ray-transformer").mkdir()
    (tmp_path / "ray-transformer" / "config.json").write_text('{"format": "equiform-scene-model"}')
    assert find_scene_model(tmp_path) == tmp_path / "ray-transformer"
