"""Synthetic arteries: bent, tapering tubes with the wall shear stress of laminar flow. Not data of anybody's arteries.

The centre line is an arc of curvature κ in a random plane, the radius R(s) shrinks linearly along it. For slow flow Q of a
fluid of viscosity μ, Poiseuille's law holds at every cross-section, and the stress on the wall is

    τ(s) = 4 μ Q / (π R(s)³) along the tangent of the centre line

up to first order in κ R and in the taper. The stress is a function of the shape alone, so it tests everything of the
experiment on measured arteries except its difficulty.

Source: ours; Poiseuille's law as in Batchelor, An Introduction to Fluid Dynamics, section 4.2.
"""

import numpy as np

from equiform.algebra.so3.rotations import random_rotations
from equiform.data.formats.surface_mesh import SurfaceMesh, inlet_distances, mesh_edges, vertex_normals
from equiform.graph import Graph, make_graph

VISCOSITY = 3.5e-3
"""Pa s, of blood."""
FLOW = 1e-6
"""m³/s, at rest in a coronary artery."""
STRESS, NORMAL, DISTANCE = "wall_shear_stress", "normal", "inlet_distance"


def tube(rng: np.random.Generator, *, rings: int = 24, around: int = 12) -> SurfaceMesh:
    """A random tube; lengths in mm, radii of 1 to 2 mm, 20 to 40 mm long.

    Args:
        rng: Randomness.
        rings: Cross-sections.
        around: Vertices of each.
    """
    length, radius, taper = rng.uniform(20, 40), rng.uniform(1.2, 2.0), rng.uniform(0.0, 0.3)
    curvature = rng.uniform(0, 0.05)
    s = np.linspace(0, length, rings)
    angle = curvature * s
    # ∫ cos and ∫ sin of the angle; sinc form without a division by zero.
    x, y = s * np.sinc(angle / np.pi), s * np.sin(angle / 2) * np.sinc(angle / 2 / np.pi)
    zero = np.zeros_like(s)
    centre = np.stack([x, y, zero], axis=-1)
    tangent = np.stack([np.cos(angle), np.sin(angle), zero], axis=-1)
    normal = np.stack([-np.sin(angle), np.cos(angle), zero], axis=-1)
    binormal = np.cross(tangent, normal)
    radii = radius * (1 - taper * s / length)
    phi = 2 * np.pi * np.arange(around) / around
    outward = np.cos(phi)[None, :, None] * normal[:, None] + np.sin(phi)[None, :, None] * binormal[:, None]
    positions = (centre[:, None] + radii[:, None, None] * outward).reshape(-1, 3)
    size = 4 * VISCOSITY * FLOW / (np.pi * (1e-3 * radii) ** 3)
    stress = np.broadcast_to((size[:, None] * tangent)[:, None], (rings, around, 3)).reshape(-1, 3)
    ring, place = (grid.reshape(-1) for grid in np.meshgrid(np.arange(rings - 1), np.arange(around), indexing="ij"))
    here, beside = ring * around + place, ring * around + (place + 1) % around
    faces = np.concatenate([np.stack([here, beside, here + around], 1), np.stack([beside, beside + around, here + around], 1)])
    turn, shift = random_rotations(1, rng)[0], rng.normal(0, 10, 3)
    return SurfaceMesh(positions @ turn.T + shift, faces, stress @ turn.T, np.arange(around))


def graph_of_mesh(mesh: SurfaceMesh) -> Graph:
    """A mesh as a graph: normals and distances from the inlet as inputs, the stress as label, sides of triangles as edges."""
    edges = mesh_edges(mesh)
    fields = {NORMAL: vertex_normals(mesh), DISTANCE: inlet_distances(mesh), STRESS: mesh.stress}
    return make_graph(mesh.positions, None, edges[:, 0], edges[:, 1], node_fields=fields)
