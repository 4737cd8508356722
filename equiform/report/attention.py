"""Attention of a trained model: by the elements of a pair, by distance, and by whether the pair is bonded.

Attention weights of all heads are averaged over the edges of many structures, per block. As the weights of a receiver sum to
one, they are smaller where it has more neighbours; *relative* attention is weight · number of senders, 1 for uniform weights.

Source: Thölke & De Fabritiis, "TorchMD-NET", ICLR 2022, section on attention weights. Differs: relative to uniform attention,
and by block.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from equiform.errors import UserError
from equiform.graph import Capacity, Graph, batch, to_device
from equiform.models.api import AttendingModel
from equiform.runtime.files import explained, to_json, write_atomically

if TYPE_CHECKING:
    from ase import Atoms

    from equiform.deploy.predictor import Predictor

BOND = 1.25
"""Two atoms are bonded if their distance is less than this multiple of the sum of their covalent radii."""

NUM_BINS = 40
_TOGETHER = 16  # structures per batch
MOST_WRITTEN = 10
"""Elements up to which the maps show their numbers."""
KINDS = ("all", "bonded", "non-bonded")


class AttentionStatistics(NamedTuple):
    """Sums over edges; divide by the counts.

    Attributes:
        elements: Atomic numbers, ascending: rows (receivers) and columns (senders) of the maps.
        pair_relative: Sum of relative attention by kind of edge, block, receiver's and sender's element.
        pair_weight: Sum of attention weights, likewise.
        pair_count: Number of edges by kind and elements.
        receivers: Number of receivers with neighbours, by element.
        distance_relative: Sum of relative attention by kind, block and distance bin.
        distance_count: Number of edges by kind and distance bin.
        edges_of_bins: Bin edges, Å.
        structures: Number of structures.
    """

    elements: tuple[int, ...]
    pair_relative: Float[np.ndarray, "kinds blocks elements elements"]
    pair_weight: Float[np.ndarray, "kinds blocks elements elements"]
    pair_count: Float[np.ndarray, "kinds elements elements"]
    receivers: Float[np.ndarray, "elements"]
    distance_relative: Float[np.ndarray, "kinds blocks bins"]
    distance_count: Float[np.ndarray, "kinds bins"]
    edges_of_bins: Float[np.ndarray, "bins_and_one"]
    structures: int

    def relative(self, kind: str = "all") -> Float[np.ndarray, "blocks elements elements"]:
        """Mean relative attention by block and element pair; NaN where there is no such edge."""
        index = KINDS.index(kind)
        return _ratio(self.pair_relative[index], self.pair_count[index][None])

    def share(self) -> Float[np.ndarray, "blocks elements elements"]:
        """Fraction of a receiver's attention that goes to senders of each element: rows sum to one."""
        return _ratio(self.pair_weight[0], self.receivers[None, :, None])

    def by_distance(self, kind: str = "all") -> Float[np.ndarray, "blocks bins"]:
        """Mean relative attention by block and distance; NaN where there is no edge."""
        index = KINDS.index(kind)
        return _ratio(self.distance_relative[index], self.distance_count[index][None])


def collect_attention(
    predictor: "Predictor", structures: "Sequence[Atoms]", progress: Callable[[int, int], None] | None = None
) -> AttentionStatistics:
    """Run a model over structures and accumulate its attention statistics.

    Args:
        predictor: The model.
        structures: The structures.
        progress: Progress callback `(done, total)`, in structures.

    Raises:
        UserError: The model has no attention, or no atom has neighbours.
    """
    elements = tuple(sorted({int(z) for atoms in structures for z in atoms.numbers}))
    if not elements:
        raise UserError("there are no structures to analyse")
    bins = np.linspace(0, predictor.cutoff, NUM_BINS + 1)
    sums: dict[str, Any] = {}
    for done, (graph, weights) in enumerate(_attention(predictor, structures), 1):
        _add(sums, graph, weights, np.array(elements), bins)
        if progress is not None:
            progress(done, len(structures))
    if not sums or not sums["pair_count"].any():
        raise UserError("no atom of these structures has a neighbour: there is no attention to analyse")
    return AttentionStatistics(elements, **sums, edges_of_bins=bins, structures=len(structures))


def bonded(numbers: np.ndarray, senders: np.ndarray, receivers: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Whether the two atoms of each edge are bonded, by covalent radii."""
    from ase.data import covalent_radii

    radii = covalent_radii[numbers]
    return distance < BOND * (radii[senders] + radii[receivers])


def write_analysis(statistics: AttentionStatistics, folder: Path, title: str) -> list[Path]:
    """Write `attention.json`, `attention_elements.png` and `attention_distance.png`.

    Returns:
        The files.
    """
    with explained(f"cannot write into {folder}", "free some space or fix the permissions"):
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in ("attention.json", "attention_elements.png", "attention_distance.png")]
        write_atomically(paths[0], to_json(as_dict(statistics)))
        _plot_elements(statistics, paths[1], title)
        _plot_distance(statistics, paths[2], title)
    return paths


def as_dict(statistics: AttentionStatistics) -> dict[str, Any]:
    """All means as plain values; null where there was no edge."""
    content: dict[str, Any] = {
        "elements": _symbols(statistics),
        "structures": statistics.structures,
        "share": _plain(statistics.share()),
        "distance": statistics.edges_of_bins.tolist(),
    }
    for kind in KINDS:
        content[kind] = {
            "edges": statistics.pair_count[KINDS.index(kind)].tolist(),
            "relative": _plain(statistics.relative(kind)),
            "by_distance": _plain(statistics.by_distance(kind)),
        }
    return content


def overall(statistics: AttentionStatistics, kind: str) -> float:
    """Mean relative attention of a kind of edge over all blocks."""
    index = KINDS.index(kind)
    count = statistics.pair_count[index].sum()
    return float(statistics.pair_relative[index].mean(axis=0).sum() / count) if count else float("nan")


def _attention(predictor: "Predictor", structures: "Sequence[Atoms]") -> Iterator[tuple[Graph, np.ndarray]]:
    """The graph of each structure and its attention (blocks, edges), the mean over heads; one compiled program for all."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    model = predictor.task.model
    if not isinstance(model, AttendingModel):
        raise UserError(f"{type(model).__name__} models do not expose attention weights")
    graphs = [predictor.graph(atoms, index) for index, atoms in enumerate(structures)]
    groups = [graphs[start : start + _TOGETHER] for start in range(0, len(graphs), _TOGETHER)]
    sizes = [Capacity(*map(sum, zip(*(graph.capacity for graph in group)))) for group in groups]
    capacity = Capacity(*(max(column) for column in zip(*sizes)))
    attention = eqx.filter_jit(type(model).attention)
    for group in groups:
        with predictor.precision():
            device = to_device(batch(group, capacity), jnp.dtype(predictor.dtype))
            blocks = jax.tree.map(np.asarray, attention(model, device))
        weights = np.stack([np.abs(block).mean(axis=-1) for block in blocks])
        start = 0
        for graph in group:
            yield graph, weights[:, start : start + graph.capacity.edges]
            start += graph.capacity.edges


def _add(sums: dict[str, Any], graph: Graph, weights: np.ndarray, elements: np.ndarray, bins: np.ndarray) -> None:
    senders, receivers, numbers = (np.asarray(values) for values in (graph.senders, graph.receivers, graph.species))
    distance = np.linalg.norm(graph.edge_vectors(), axis=1)
    degree = np.bincount(receivers, minlength=len(numbers))
    relative = weights * degree[receivers][None]
    types = np.searchsorted(elements, numbers)
    count, blocks = len(elements), len(weights)
    if not sums:
        sums["pair_relative"] = np.zeros((len(KINDS), blocks, count, count))
        sums["pair_weight"] = np.zeros((len(KINDS), blocks, count, count))
        sums["pair_count"] = np.zeros((len(KINDS), count, count))
        sums["receivers"] = np.zeros(count)
        sums["distance_relative"] = np.zeros((len(KINDS), blocks, len(bins) - 1))
        sums["distance_count"] = np.zeros((len(KINDS), len(bins) - 1))
    near = bonded(numbers, senders, receivers, distance)
    place = np.clip(np.searchsorted(bins, distance, side="right") - 1, 0, len(bins) - 2)
    for kind, chosen in enumerate((np.ones(len(near), bool), near, ~near)):
        pair = (types[receivers[chosen]], types[senders[chosen]])
        np.add.at(sums["pair_count"][kind], pair, 1)
        np.add.at(sums["distance_count"][kind], place[chosen], 1)
        for block in range(blocks):
            np.add.at(sums["pair_relative"][kind, block], pair, relative[block, chosen])
            np.add.at(sums["pair_weight"][kind, block], pair, weights[block, chosen])
            np.add.at(sums["distance_relative"][kind, block], place[chosen], relative[block, chosen])
    np.add.at(sums["receivers"], types[degree > 0], 1)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)


def _plain(values: np.ndarray) -> Any:
    """Nested lists, null for NaN."""
    plain = values.astype(object)
    plain[np.isnan(values)] = None
    return plain.tolist()


def _symbols(statistics: AttentionStatistics) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in statistics.elements]


def _figure(columns: int, rows: int, size: tuple[float, float], title: str) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(columns * rows)]


def _plot_elements(statistics: AttentionStatistics, path: Path, title: str) -> None:
    names, side = _symbols(statistics), 0.5 * len(statistics.elements) + 2.4
    maps = [(f"{kind} pairs", "1: uniform attention", _mean(statistics.relative(kind))) for kind in KINDS]
    maps.append(("fraction of the receiver's attention", "each row sums to 1", _mean(statistics.share())))
    figure, places = _figure(len(maps), 1, (side, side), title)
    for axes, (name, meaning, values) in zip(places, maps):
        picture = axes.imshow(np.ma.masked_invalid(values), cmap="viridis", vmin=0)
        axes.set_facecolor("0.9")  # no such pair
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("sender: attended to")
        axes.set_ylabel("receiver: attends")
        axes.set_title(f"{name}\n({meaning})", fontsize="medium")
        if len(names) <= MOST_WRITTEN:
            _write_values(axes, picture, values)
        figure.colorbar(picture, ax=axes, shrink=0.8)
    figure.savefig(path, dpi=120)


def _write_values(axes: Any, picture: Any, values: np.ndarray) -> None:
    """The numbers of a map: black on its light colours, white on its dark ones; a dash where there is no such pair."""
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = picture.cmap(picture.norm(value)) if np.isfinite(value) else (1.0, 1.0, 1.0, 1.0)
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        text = f"{value:.2f}" if np.isfinite(value) else "–"
        axes.text(column, row, text, ha="center", va="center", color="black" if light else "white", fontsize="small")


def _plot_distance(statistics: AttentionStatistics, path: Path, title: str) -> None:
    figure, places = _figure(2, 1, (5.5, 4.0), title)
    middle = 0.5 * (statistics.edges_of_bins[1:] + statistics.edges_of_bins[:-1])
    for kind in KINDS:
        places[0].plot(middle, _mean(statistics.by_distance(kind)), marker=".", label=kind)
    for block, values in enumerate(statistics.by_distance()):
        places[1].plot(middle, values, marker=".", label=f"block {block + 1}")
    for axes, name in zip(places, ("all blocks", "all pairs")):
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.set_xlabel("distance (Å)")
        axes.set_ylabel("attention relative to uniform")
        axes.set_title(name, fontsize="medium")
        axes.legend()
    figure.savefig(path, dpi=120)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over blocks; NaN where there is no edge (all blocks have the same edges)."""
    return values.mean(axis=0)
