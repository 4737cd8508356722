"""Vessel walls ready for training: the published arteries from their file, and synthetic tubes made from a seed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from equiform.data.formats.labels import LabelKeys
from equiform.data.formats.surface_mesh import read_meshes
from equiform.data.pipeline.dataset import Dataset
from equiform.data.pipeline.inspect import DataReport
from equiform.data.pipeline.prepared import PreparedData
from equiform.data.sets.config import SetConfig
from equiform.data.sets.tubes import DISTANCE, NORMAL, STRESS, graph_of_mesh, tube
from equiform.errors import UserError
from equiform.fields import Field
from equiform.graph import Graph

FIELDS = (Field(NORMAL, "atoms", "polar"), Field(DISTANCE, "atoms", "invariant"), Field(STRESS, "atoms", "polar", "Pa"))
_FILE = "single.hdf5"
_PUBLISHED = (1600, 199, 200)
_TUBES = (64, 16, 16)


def prepare_arteries(config: SetConfig, cutoff: float | None) -> PreparedData:
    """The meshes of a set, divided in the order of the file or of the seed.

    Args:
        config: Which set, and how many meshes of each part.
        cutoff: Noted in the data sets; all vertices of a mesh attend to one another.

    Raises:
        UserError: The file is not here, is damaged, or has fewer meshes than requested.
    """
    if config.split != "published":
        raise UserError(f"{config.set} has no split {config.split!r}; there is: published")
    given = (config.train_size, config.validation_size, config.test_size)
    whole = _TUBES if config.set == "tubes" else _PUBLISHED
    sizes = tuple(most if size is None else size for size, most in zip(given, whole))
    if config.set == "tubes":
        rng = np.random.default_rng(config.seed)
        graphs, about = [graph_of_mesh(tube(rng)) for _ in range(sum(sizes))], "synthetic tubes, analytic stress"
    else:
        graphs, about = _published(config, sizes)
    parts, start = [], 0
    for size in sizes:
        parts.append(Dataset(graphs[start : start + size], cutoff, fields=FIELDS, quantity=STRESS))
        start += size
    facts = [
        ("data", f"{config.set}: {about}"),
        ("meshes", f"{sizes[0]:,} train, {sizes[1]:,} validation, {sizes[2]:,} test"),
        ("stress", f"root mean square length {_size(parts[0]):.4g} Pa; published training meshes: 53.836 Pa"),
    ]
    return PreparedData(
        train=parts[0],
        validation=parts[1],
        tests={"test": parts[2]},
        elements=(0,),
        reference_energies={},
        report=DataReport(tuple(facts)),
        keys=LabelKeys(),
    )


def _published(config: SetConfig, sizes: Sequence[int]) -> tuple[list[Graph], str]:
    if config.folder is None or not (path := Path(config.folder) / _FILE).is_file():
        raise UserError(f"the published meshes are not here: name the folder with {_FILE} by data.folder")
    meshes = list(read_meshes(path).values())
    if len(meshes) < sum(sizes):
        sizes_asked = " + ".join(map(str, sizes))
        raise UserError(f"{path} has {len(meshes)} meshes, {sizes_asked} are requested; set data.train_size and the others")
    return [graph_of_mesh(mesh) for mesh in meshes[: sum(sizes)]], str(path)


def _size(part: Dataset) -> float:
    """Root of the mean squared length of the label vectors."""
    return float(np.sqrt(np.concatenate([(graph.node_fields[STRESS] ** 2).sum(1) for graph in part]).mean()))
