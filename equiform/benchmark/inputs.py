"""Inputs of the benchmarks: published ones where available, else generated structures of the same size."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from equiform.errors import UserError
from equiform.graph import Graph, batch, make_graph
from equiform.neighbors import graph_from_atoms, neighbor_list

PUBLISHED = {"qm9": "bench_inputs_qm9_32.npz", "aspirin": "bench_inputs_aspirin8.npz"}
"""Files with the arrays pos (Å), z and batch."""
CUTOFF = 5.0
HEAVY = (6, 6, 6, 7, 8)


class Inputs(NamedTuple):
    """A batch on the host, and its source."""

    graph: Graph
    source: str


def molecules_of(name: str, folder: Path | None) -> tuple[list[Graph], str]:
    """The molecules of a published benchmark batch, or generated ones of the same number and sizes; and their source.

    Args:
        name: One of `PUBLISHED`.
        folder: Folder with the published files; None: shared/parity in this clone or beside it.

    Raises:
        UserError: A folder is given, and the file is not in it.
    """
    path = _find(PUBLISHED[name], folder)
    if path is None:
        sizes = [18, 19, 19, 18, 20, 19, 18, 19] * 4 if name == "qm9" else [21] * 8
        sizes[-1] -= 1 if name == "qm9" else 0
        return make_molecules(sizes, stretch=1.12 if name == "qm9" else 1.38), "generated"
    with np.load(path) as arrays:
        index, positions, numbers = arrays["batch"], arrays["pos"], arrays["z"]
    where = [np.flatnonzero(index == k) for k in range(int(index.max()) + 1)]
    return [molecule_graph(positions[rows], numbers[rows]) for rows in where], path.name


def molecule_graph(positions: np.ndarray, numbers: np.ndarray) -> Graph:
    """A molecule with its edges."""
    senders, receivers, shifts = neighbor_list(np.asarray(positions, np.float64), None, False, CUTOFF)
    return make_graph(positions, numbers, senders, receivers, shifts=shifts)


def make_molecules(sizes: Sequence[int], seed: int = 0, *, stretch: float = 1.0) -> list[Graph]:
    """Random molecules about as dense as those of QM9: a tree of heavy atoms 1.45 Å apart, hydrogens 1.1 Å from them.

    They are not real molecules and need not be: only sizes and distances affect the speed.

    Args:
        sizes: Number of atoms of each.
        seed: Random seed.
        stretch: Factor on all distances.
    """
    rng = np.random.default_rng(seed)
    return [_molecule(size, rng, stretch) for size in sizes]


def silicon(num_atoms: int, cutoff: float = CUTOFF) -> Inputs:
    """A periodic box of silicon, its atoms displaced randomly by 0.05 Å.

    Args:
        num_atoms: A multiple of 8.
        cutoff: Pairs closer than this are edges, Å.
    """
    from ase.build import bulk

    cells = num_atoms // 8
    shape = min(
        ((a, b, cells // (a * b)) for a in range(1, 31) for b in range(a, 31) if cells % (a * b) == 0), key=lambda abc: sum(abc)
    )
    atoms = bulk("Si", cubic=True) * shape
    atoms.positions += 0.05 * np.random.default_rng(0).normal(size=(len(atoms), 3))
    return Inputs(graph_from_atoms(atoms, cutoff), f"Si {shape[0]}×{shape[1]}×{shape[2]} cells")


def slabs(count: int) -> Inputs:
    """Slabs of five metals with an adsorbate, 77 atoms each, with the tags of OC20."""
    from ase.build import add_adsorbate, fcc111, molecule

    graphs = []
    for k in range(count):
        slab = fcc111(("Au", "Pb", "Ag", "Pt", "Al")[k % 5], size=(5, 5, 3), vacuum=10.0, periodic=True)
        slab.set_tags(np.where(slab.get_tags() == 1, 1, 0))
        adsorbate = molecule("CO")
        adsorbate.set_tags(2)
        add_adsorbate(slab, adsorbate, 2.0, "ontop")
        slab.positions += 0.05 * np.random.default_rng(k).normal(size=(len(slab), 3))
        graphs.append(graph_from_atoms(slab, CUTOFF, tags=True))
    return Inputs(batch(graphs), f"{count} generated slabs")


def qm9_like_sizes(count: int, seed: int = 0) -> np.ndarray:
    """Numbers of atoms with the mean (18.0), spread (2.95) and range (3 to 29) of QM9."""
    drawn = np.random.default_rng(seed).normal(18.03, 2.95, count)
    return np.clip(np.rint(drawn), 3, 29).astype(int)


def _molecule(size: int, rng: np.random.Generator, stretch: float) -> Graph:
    num_heavy = max(1, size // 2)
    positions = np.zeros((1, 3))
    while len(positions) < size:
        heavy = len(positions) < num_heavy
        # Trees that grow from random atoms are compact, like molecules with rings.
        at = positions[rng.integers(min(len(positions), num_heavy))]
        direction = rng.normal(size=3)
        trial = at + (1.45 if heavy else 1.1) * direction / np.linalg.norm(direction)
        if np.linalg.norm(positions - trial, axis=1).min() > (1.3 if heavy else 0.95):
            positions = np.concatenate([positions, trial[None]])
        elif rng.random() < 0.01:  # a closed core: loosen it
            positions = 1.1 * positions
    return molecule_graph(stretch * positions, np.concatenate([rng.choice(HEAVY, num_heavy), np.ones(size - num_heavy, int)]))


def _find(name: str, folder: Path | None) -> Path | None:
    if folder is not None:
        if not (folder / name).is_file():
            raise UserError(f"{folder}, given by --inputs, has no {name}")
        return folder / name
    root = Path(__file__).resolve().parents[2]
    places = [root / "shared" / "parity", root.parent / "shared" / "parity"]
    return next((place / name for place in places if (place / name).is_file()), None)
