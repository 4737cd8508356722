"""Meshes of vessel walls: geometry against formulas, files in the published form, and damaged ones in one line."""

import numpy as np
import pytest

from equiform.data.formats.surface_mesh import (
    SurfaceMesh,
    inlet_distances,
    mesh_edges,
    read_meshes,
    vertex_normals,
    write_meshes,
)
from equiform.data.sets.tubes import FLOW, VISCOSITY, graph_of_mesh, tube
from equiform.errors import UserError


def straight(radius=1.5, length=10.0, rings=21, around=64):
    """A straight tube along z, written out."""
    phi, z = 2 * np.pi * np.arange(around) / around, np.linspace(0, length, rings)
    ring = np.stack([radius * np.cos(phi), radius * np.sin(phi), 0 * phi], 1)
    positions = (ring[None] + np.array([0, 0, 1.0]) * z[:, None, None]).reshape(-1, 3)
    faces = []
    for k in range(rings - 1):
        for p in range(around):
            a, b = k * around + p, k * around + (p + 1) % around
            faces += [[a, b, a + around], [b, b + around, a + around]]
    return SurfaceMesh(positions, np.array(faces), np.zeros_like(positions), np.arange(around))


def test_normals_of_a_straight_tube_point_away_from_its_axis():
    mesh = straight()
    outward = mesh.positions * np.array([1, 1, 0]) / 1.5
    inner = slice(64, -64)
    np.testing.assert_allclose(vertex_normals(mesh)[inner], outward[inner], atol=1e-2)


def test_distances_along_a_straight_tube_are_its_height():
    mesh = straight()
    np.testing.assert_allclose(inlet_distances(mesh), mesh.positions[:, 2], atol=1e-12)


def test_stress_is_tangential_and_follows_the_cube_of_the_radius():
    rng = np.random.default_rng(0)
    for _ in range(5):
        mesh = tube(rng)
        rings = mesh.positions.reshape(24, 12, 3)
        radius = np.linalg.norm(rings - rings.mean(1, keepdims=True), axis=-1)
        size = np.linalg.norm(mesh.stress, axis=1).reshape(24, 12)
        np.testing.assert_allclose(size, 4 * VISCOSITY * FLOW / (np.pi * (1e-3 * radius) ** 3), rtol=1e-10)
        normals = vertex_normals(mesh)
        along = (normals * mesh.stress).sum(1) / np.linalg.norm(mesh.stress, axis=1)
        assert np.abs(along).max() < 0.15  # the wall of a tapering tube leans to its axis
        outwards = (normals.reshape(24, 12, 3) * (rings - rings.mean(1, keepdims=True))).sum(-1)
        assert (outwards > 0).all()


def test_every_side_is_an_edge_both_ways():
    mesh = tube(np.random.default_rng(1), rings=4, around=5)
    edges = {tuple(edge) for edge in mesh_edges(mesh).tolist()}
    assert edges == {(b, a) for a, b in edges}
    vertices, faces = len(mesh.positions), len(mesh.faces)
    assert vertices - len(edges) // 2 + faces == 0  # Euler's number of an open tube
    graph = graph_of_mesh(mesh)
    assert set(graph.node_fields) == {"normal", "inlet_distance", "wall_shear_stress"}


def test_files_in_the_published_form_are_read_back_in_pascal(tmp_path):
    h5py = pytest.importorskip("h5py")
    rng, path = np.random.default_rng(2), tmp_path / "single.hdf5"
    meshes = {f"sample-{k:04d}": tube(rng, rings=4, around=5) for k in range(2)}
    write_meshes(path, meshes)
    with h5py.File(path, "r") as archive:
        np.testing.assert_allclose(archive["sample-0001/wss"][()], 10 * meshes["sample-0001"].stress)  # dyn/cm²
    for name, mesh in read_meshes(path).items():
        for found, expected in zip(mesh, meshes[name]):
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_damaged_meshes_are_refused_in_one_line(tmp_path):
    pytest.importorskip("h5py")
    mesh, path = tube(np.random.default_rng(3), rings=4, around=5), tmp_path / "bad.hdf5"
    broken = mesh.positions.copy()
    broken[3, 1] = np.nan
    for bad, message in (
        (mesh._replace(positions=broken), "1 vertices have positions or stresses that are not finite, the first is 3"),
        (mesh._replace(stress=mesh.stress[:-1]), r"expected \(vertices, 3\)"),
        (mesh._replace(inlet=np.array([99])), "the mesh's 20 do not include"),
    ):
        write_meshes(path, {"a": bad})
        with pytest.raises(UserError, match=message):
            read_meshes(path)
    path.write_text("not HDF5")
    with pytest.raises(UserError, match="cannot read"):
        read_meshes(path)
