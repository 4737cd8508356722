"""Surface meshes of arteries with the stress of the flowing blood on their walls, as published: one HDF5 group a mesh.

| dataset | shape | meaning |
|---|---|---|
| `pos` | vertices, 3 | positions, in the unit of the file |
| `face` | triangles, 3 | vertices of each triangle |
| `wss` | vertices, 3 | wall shear stress, dyn/cm²; read as Pa (× 0.1) |
| `inlet_idcs` | – | vertices at the inlet |

Source: the data of Suk et al., STACOM 2021 (single coronary arteries), in the form that their code and that of Brehmer et al.,
NeurIPS 2023, read. The files cannot be had here: the reader is tested on files that it wrote itself.
"""

from collections.abc import Mapping
from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equiform.errors import UserError
from equiform.runtime.files import explained

DYN_PER_CM2 = 0.1
"""Pa."""
_NAMES = ("pos", "face", "wss", "inlet_idcs")


class SurfaceMesh(NamedTuple):
    """A triangulated vessel wall.

    Attributes:
        positions: Vertices.
        faces: Vertices of each triangle, counterclockwise from outside.
        stress: Wall shear stress, Pa.
        inlet: Vertices at the inlet.
    """

    positions: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    stress: Float[np.ndarray, "vertices 3"]
    inlet: Int[np.ndarray, " inlet"]


def read_meshes(path: Path) -> dict[str, SurfaceMesh]:
    """The meshes of a file by name, sorted.

    Raises:
        UserError: h5py is not installed, it is not such a file, or a mesh is damaged.
    """
    h5py = _h5py(path)
    with explained(f"cannot read {path}", "is it an HDF5 file with one group a mesh?"), h5py.File(path, "r") as archive:
        groups = {
            str(name): {key: np.asarray(group[key][()]) for key in _NAMES if key in group} for name, group in archive.items()
        }
    if not groups:
        raise UserError(f"{path} has no meshes: a group a mesh, with {', '.join(_NAMES)}, is expected")
    return {name: _checked(groups[name], f"{path}, {name}") for name in sorted(groups)}


def write_meshes(path: Path, meshes: Mapping[str, SurfaceMesh]) -> None:
    """Write a file in the published form."""
    h5py = _h5py(path)
    with explained(f"cannot write {path}", "free some space or choose another folder"), h5py.File(path, "w") as archive:
        for name, mesh in meshes.items():
            values = (mesh.positions, mesh.faces, mesh.stress / DYN_PER_CM2, mesh.inlet)
            for key, value in zip(_NAMES, values):
                archive.create_dataset(f"{name}/{key}", data=value)


def vertex_normals(mesh: SurfaceMesh) -> Float[np.ndarray, "vertices 3"]:
    """Unit normals outwards: those of the adjacent triangles, weighted by their area."""
    a, b, c = (mesh.positions[mesh.faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    normals = np.zeros_like(mesh.positions)
    for corner in range(3):
        np.add.at(normals, mesh.faces[:, corner], across)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.where(length > 0, length, 1)


def mesh_edges(mesh: SurfaceMesh) -> Int[np.ndarray, "edges 2"]:
    """Pairs of vertices that share a side of a triangle, both ways, once each."""
    sides = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    return np.unique(np.concatenate([sides, sides[:, ::-1]]), axis=0)


def inlet_distances(mesh: SurfaceMesh) -> Float[np.ndarray, "vertices"]:
    """Length of the shortest way from the inlet along sides of triangles (Dijkstra); the geodesic is shorter."""
    edges = mesh_edges(mesh)
    starts = np.searchsorted(edges[:, 0], np.arange(len(mesh.positions) + 1))
    lengths = np.linalg.norm(mesh.positions[edges[:, 0]] - mesh.positions[edges[:, 1]], axis=1)
    distance = np.full(len(mesh.positions), np.inf)
    distance[mesh.inlet] = 0
    front = [(0.0, int(vertex)) for vertex in mesh.inlet]
    while front:
        far, vertex = heappop(front)
        if far > distance[vertex]:
            continue
        for edge in range(starts[vertex], starts[vertex + 1]):
            other = int(edges[edge, 1])
            if far + lengths[edge] < distance[other]:
                distance[other] = far + lengths[edge]
                heappush(front, (float(distance[other]), other))
    return distance


def _checked(values: Mapping[str, np.ndarray], place: str) -> SurfaceMesh:
    missing = [name for name in _NAMES if name not in values]
    if missing:
        raise UserError(f"{place} lacks {', '.join(missing)}")
    positions, faces, stress, inlet = (values[name] for name in _NAMES)
    if (
        positions.ndim != 2
        or positions.shape[1] != 3
        or stress.shape != positions.shape
        or faces.ndim != 2
        or faces.shape[1] != 3
    ):
        shapes = ", ".join(str(values[name].shape) for name in _NAMES[:3])
        raise UserError(
            f"{place}: pos, face and wss have shapes {shapes}; expected (vertices, 3), (triangles, 3), (vertices, 3)"
        )
    inlet = inlet.reshape(-1).astype(np.int64)
    if not len(inlet) or min(faces.min(initial=0), inlet.min()) < 0 or max(faces.max(initial=0), inlet.max()) >= len(positions):
        raise UserError(
            f"{place}: face or inlet_idcs name vertices that the mesh's {len(positions)} do not include, or no inlet"
        )
    bad = ~(np.isfinite(positions) & np.isfinite(stress)).all(axis=1)
    if bad.any():
        raise UserError(
            f"{place}: {bad.sum()} vertices have positions or stresses that are not finite, the first is {bad.argmax()}"
        )
    return SurfaceMesh(positions.astype(float), faces.astype(np.int64), DYN_PER_CM2 * stress.astype(float), inlet)


def _h5py(path: Path):
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path} is HDF5, which h5py reads: pip install 'equiform[formats]'") from None
    return h5py
