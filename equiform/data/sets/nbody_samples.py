"""The published N-body data sets by name, generated in seconds, and their files.

A file is an `.npz` with `positions` and `velocities` (simulations, frames, bodies, 3), `charges` (simulations, bodies) and
`metadata`, a JSON text: which set and split, how it was generated, and the task: from frame `start` ("random": any frame that
leaves room, another one in every epoch) predict the state `horizon` frames later. Nothing in it is ever executed.

As a graph, a sample has the positions and `node_fields` velocity and charge of the input frame, edges between all pairs, and
as labels the vectors `displacement` and `velocity_change` from the input to the target frame. An error of the displacement is
the error of the target position.
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from jaxtyping import Float, Int

from equiform.data.pipeline.source import GraphSource
from equiform.data.sets import nbody, nbody_gatr
from equiform.errors import UserError, suggest
from equiform.fields import Field
from equiform.graph import Graph, fully_connected_edges, make_graph
from equiform.runtime.files import explained, write_atomically
from equiform.tasks.motion import VECTORS

FORMAT, FORMAT_VERSION = "equiform-nbody", 1
SPLITS = ("train", "validation", "test")
LABELS = VECTORS
FIELDS = (*(Field(name, "atoms", "polar") for name in ("velocity", *LABELS)), Field("charge", "atoms", "invariant"))
"""Simulated particles have no units."""

Start = int | Literal["random", "spread"]


class NBodySet(NamedTuple):
    """How a published data set is generated, and its task.

    Attributes:
        about: Human-readable description.
        counts: Simulations of each split.
        drawn: Simulations that the published program draws per split, in the order of the stream.
        seed: Of the stream.
        kind: Charges in free space, charges between walls, or a star with planets; "gatr": the last one as published.
        num_bodies: Particles of a simulation.
        further: Further test splits, and the particles of a simulation in each.
        num_frames: Frames the published run records.
        steps_per_frame: Steps between them.
        start: Input frame for training; "random": any that leaves room.
        held_start: The same for validation and test; "spread": frame ⌊(frames − horizon) k / simulations⌋ of simulation k.
        horizon: Frames from input to target.
        spread: Standard deviation of initial positions.
    """

    about: str
    counts: Mapping[str, int]
    drawn: Mapping[str, int]
    seed: int
    kind: Literal["charged", "walls", "gravity", "gatr"]
    num_bodies: int = 5
    num_frames: int = 49
    steps_per_frame: int = 100
    start: Start = 30
    held_start: Start = 30
    horizon: int = 10
    spread: float = 1.0
    further: Mapping[str, int] = MappingProxyType({})

    @property
    def bound(self) -> bool:
        """Whether gravity acts, in place of charges."""
        return self.kind in ("gravity", "gatr")

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of all splits."""
        return (*SPLITS, *self.further)


def _counts(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


SETS: dict[str, NBodySet] = {
    "nbody-egnn": NBodySet(
        "five charges in free space, 1,000 steps ahead (EGNN's main table)",
        _counts(3000, 2000, 2000),
        _counts(10000, 2000, 2000),
        seed=43,
        kind="charged",
    ),
    "nbody-egnn-sweep": NBodySet(
        "the same problem with up to 50,000 simulations (EGNN's sweep over the amount of data)",
        _counts(50000, 2000, 2000),
        _counts(50000, 2000, 2000),
        seed=42,
        kind="charged",
        num_frames=9,
        steps_per_frame=500,
        start=6,
        held_start=6,
        horizon=2,
    ),
    "nbody-se3": NBodySet(
        "five charges between reflecting walls, positions and velocities 1,000 steps ahead (SE(3)-Transformer)",
        _counts(50000, 5000, 10000),
        # The published program draws no validation set; ours follows its test set in the stream.
        {"train": 50000, "test": 10000, "validation": 5000},
        seed=42,
        kind="walls",
        start="random",
        held_start="spread",
    ),
    "nbody-demetar": NBodySet(
        "five charges in free space, 200 steps ahead (DEMETAr; the published run was not seeded)",
        _counts(3000, 2000, 2000),
        _counts(10000, 2000, 2000),
        seed=43,
        kind="charged",
        num_frames=9,
        start=6,
        held_start=6,
        horizon=2,
    ),
    "nbody-gravity": NBodySet(
        "a star and three planets anywhere in space, 100 steps ahead (GATr; the counts are ours)",
        _counts(100000, 5000, 5000),
        _counts(100000, 5000, 5000),
        seed=42,
        kind="gravity",
        num_bodies=4,
        num_frames=11,
        steps_per_frame=10,
        start=0,
        held_start=0,
        horizon=10,
    ),
    "nbody-gatr": NBodySet(
        "a star and planets anywhere in space, 100 steps ahead (GATr; test: its eval set, e3: far away, object: 5 planets)",
        _counts(100000, 5000, 5000) | {"e3": 5000, "object": 5000},
        _counts(100000, 5000, 5000) | {"e3": 5000, "object": 5000},
        seed=42,
        kind="gatr",
        num_bodies=4,
        num_frames=6,
        steps_per_frame=20,
        start=0,
        held_start=0,
        horizon=5,
        further=MappingProxyType({"e3": 4, "object": 6}),
    ),
}

_FARTHEST = 2.0
"""A gravity sample in which a body moves farther than this is left out, as published."""


def make_set(
    name: str,
    folder: Path,
    *,
    counts: Mapping[str, int] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Path]:
    """Generate a data set and write `train.npz`, `validation.npz` and `test.npz`; the same arguments give the same numbers.

    Args:
        name: One of `SETS`.
        folder: Where the files go.
        counts: Simulations per split, where fewer than published will do; they are the first ones of the published split.
        progress: Called with (split, simulations done, simulations in all).

    Returns:
        The files by split.

    Raises:
        UserError: There is no such set, more simulations are requested than it has, or the file cannot be written.
    """
    settings = find_set(name)
    requested = {**settings.counts, **(counts or {})}
    for split, count in requested.items():
        most = settings.drawn.get(split, 0)
        if not 1 <= count <= most:
            raise UserError(f"{name} has 1 to {most} simulations for {split or 'that split'}, not {count}")
    files = {}
    for split, (initial, coupling) in _initial_states(settings, requested).items():
        tell = progress and (lambda done, split=split, total=requested[split]: progress(split, min(done, total), total))
        trajectories, start = _simulated(settings, split, initial, coupling, requested[split], tell)
        metadata = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "set": name,
            "about": settings.about,
            "split": split,
            "start": start,
            "horizon": settings.horizon,
            "time_step": nbody.TIME_STEP,
            "steps_per_frame": settings.steps_per_frame,
            "kind": settings.kind,
            "seed": settings.seed,
        }
        files[split] = folder / f"{split}.npz"
        write_nbody(files[split], trajectories, metadata)
    return {split: files[split] for split in settings.splits}


def find_set(name: str) -> NBodySet:
    """A set by its name.

    Raises:
        UserError: There is no such set.
    """
    if name not in SETS:
        raise UserError(f"there is no N-body set {name!r}{suggest(name, SETS)} (there are: {', '.join(SETS)})")
    return SETS[name]


def write_nbody(path: Path, trajectories: nbody.Trajectories, metadata: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all; coordinates in single precision, as the published programs read them."""
    arrays = {
        "positions": trajectories.positions.astype(np.float32),
        "velocities": trajectories.velocities.astype(np.float32),
        "charges": trajectories.charges.astype(np.float32),
        "metadata": np.array(json.dumps(dict(metadata), ensure_ascii=False)),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with explained(f"cannot write {path}", "free some space or choose another folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())


class NBodySamples(GraphSource):
    """The simulations of a file as graphs, built on access.

    Attributes:
        trajectories: Recorded frames.
        metadata: How they were generated, and the task.
        horizon: Frames from input to target.
        random_start: Whether training starts at another frame in every epoch.
    """

    def __init__(self, trajectories: nbody.Trajectories, metadata: Mapping[str, Any]):
        self.trajectories, self.metadata = trajectories, dict(metadata)
        self.horizon, self.random_start = int(metadata["horizon"]), metadata["start"] == "random"
        # The first graph says how edges are sorted; all samples share them.
        senders, receivers = fully_connected_edges(self.num_bodies)
        self._template = make_graph(np.zeros((self.num_bodies, 3)), None, senders, receivers)

    @classmethod
    def read(cls, path: str | Path) -> "NBodySamples":
        """Read a file.

        Raises:
            UserError: It is not such a file, or a damaged one.
        """
        advice = "is it a file of `equiform data make nbody-…`?"
        try:
            with explained(f"cannot read {path}", advice):
                content = io.BytesIO(Path(path).read_bytes())
            with np.load(content, allow_pickle=False) as archive:
                metadata = json.loads(str(archive["metadata"]))
                arrays = [archive[name] for name in ("positions", "velocities", "charges")]
            version = metadata["format_version"] if metadata["format"] == FORMAT else "?"
            start, horizon = metadata["start"], int(metadata["horizon"])
            first = 0 if start == "random" else int(start)
        except (ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise UserError(f"{path} is no N-body file, or damaged ({type(error).__name__}: {error}); {advice}") from error
        if version != FORMAT_VERSION:
            raise UserError(f"{path}: this version of Equiform reads format version {FORMAT_VERSION}, not {version}")
        positions, velocities, charges = arrays
        fits = positions.ndim == 4 and positions.shape[3] == 3 and velocities.shape == positions.shape
        if not fits or charges.shape != (positions.shape[0], positions.shape[2]):
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise UserError(f"{path}: positions, velocities and charges have shapes {shapes}, which do not fit together")
        if not all(np.isfinite(array).all() for array in arrays):
            raise UserError(f"{path} has numbers that are not finite")
        if horizon < 1 or first < 0 or first + horizon >= positions.shape[1]:
            raise UserError(f"{path}: it has {positions.shape[1]} frames, too few for start {start} and horizon {horizon}")
        return cls(nbody.Trajectories(*arrays), metadata)

    @property
    def noised(self) -> bool:
        """Whether training starts at another frame in every epoch."""
        return self.random_start

    @property
    def labels(self) -> Mapping[str, np.ndarray]:
        """There are no labels per simulation."""
        return {}

    @property
    def node_labels(self) -> tuple[str, ...]:
        """Names of the node fields."""
        return ("velocity", "charge", *LABELS)

    @property
    def num_bodies(self) -> int:
        """Particles of every sample."""
        return self.trajectories.charges.shape[1]

    @property
    def num_atoms(self) -> Int[np.ndarray, "samples"]:
        """Particles of each sample."""
        return np.full(len(self), self.num_bodies, np.int64)

    @property
    def num_edges(self) -> Int[np.ndarray, "samples"]:
        """Edges of each sample."""
        return np.full(len(self), len(self._template.senders), np.int64)

    @property
    def elements(self) -> tuple[int, ...]:
        """Node types that occur: particles have none."""
        return (0,)

    def __len__(self) -> int:
        return len(self.trajectories.charges)

    @overload
    def __getitem__(self, index: int) -> Graph: ...
    @overload
    def __getitem__(self, index: slice) -> "NBodySamples": ...
    def __getitem__(self, index: int | slice) -> "Graph | NBodySamples":
        if isinstance(index, slice):
            return NBodySamples(nbody.Trajectories(*(array[index] for array in self.trajectories)), self.metadata)
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.gathered([index])[0]

    def drawn(self, index: int, seed: int, epoch: int) -> Graph:
        """The graph to train on in an epoch: a pure function of the seed, the epoch and the simulation."""
        return self.gathered([index], (seed, epoch))[0]

    def gathered(self, indices: Sequence[int], draw: tuple[int, int] | None = None) -> list[Graph]:
        """A batch as one graph of many: all samples have the same edges, so nothing is done simulation by simulation."""
        rows, drawn = np.asarray(indices, np.int64), self.random_start and draw is not None
        starts = np.array([self._drawn_start(int(k), *draw) if drawn and draw else self.start(int(k)) for k in rows], np.int64)
        positions, velocities, charges = self.trajectories
        x, v = (array[rows, starts].astype(np.float64).reshape(-1, 3) for array in (positions, velocities))
        ends = (array[rows, starts + self.horizon].astype(np.float64).reshape(-1, 3) for array in (positions, velocities))
        labels = dict(zip(LABELS, (end - begin for end, begin in zip(ends, (x, v)))))
        fields = {"velocity": v, "charge": charges[rows].astype(np.float64).reshape(-1)}
        one, count, bodies = self._template, len(rows), self.num_bodies
        offsets = np.repeat(bodies * np.arange(count, dtype=np.int32), len(one.senders))
        edges = count * len(one.senders)
        graph = Graph(
            positions=x,
            species=np.zeros(count * bodies, np.int32),
            senders=np.tile(one.senders, count) + offsets,
            receivers=np.tile(one.receivers, count) + offsets,
            shifts=np.zeros((edges, 3), np.int32),
            cell=np.zeros((count, 3, 3)),
            graph_index=np.repeat(np.arange(count, dtype=np.int32), bodies),
            atom_mask=np.ones(count * bodies, bool),
            edge_mask=np.ones(edges, bool),
            graph_mask=np.ones(count, bool),
            node_fields=fields | labels,
        )
        return [graph]

    def start(self, index: int) -> int:
        """The input frame of a simulation, outside of training."""
        return self._room * (index % len(self)) // len(self) if self.random_start else int(self.metadata["start"])

    def path(self, index: int) -> Float[np.ndarray, "frames bodies 3"]:
        """True positions from the input to the target frame."""
        start = self.start(index)
        return self.trajectories.positions[index, start : start + self.horizon + 1]

    @property
    def _room(self) -> int:
        return self.trajectories.positions.shape[1] - self.horizon

    def _drawn_start(self, index: int, seed: int, epoch: int) -> int:
        return int(np.random.default_rng([seed, epoch, index, 6]).integers(self._room))


class Rules(NamedTuple):
    """Mean squared errors of the baselines, for one label.

    Attributes:
        still: Of no change.
        linear: Of factor · v, the given velocity times one number.
        factor: That number, the best one for training.
    """

    still: float
    linear: float
    factor: float


def simple_rules(train: NBodySamples, test: NBodySamples) -> dict[str, Rules]:
    """No change, and a multiple of the velocity that is fitted on `train`, for every label of `test`."""
    given, requested = _motion(train)
    factors = {name: nbody.fit_linear(given, requested[name]) for name in LABELS}
    v, found = _motion(test)
    return {
        name: Rules(float((y**2).mean()), float(((factors[name] * v - y) ** 2).mean()), factors[name])
        for name, y in found.items()
    }


def linear_baseline(train: NBodySamples, test: NBodySamples) -> dict[str, float]:
    """Mean squared position errors on `test`: of x + t · v with the best t for `train`, and of standing still.

    Returns:
        `time` (the fitted t), `linear` and `still`.
    """
    rules = simple_rules(train, test)[LABELS[0]]
    return {"time": rules.factor, "linear": rules.linear, "still": rules.still}


def _motion(samples: NBodySamples) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Velocities of all particles, and how positions and velocities change."""
    rows = np.arange(len(samples))
    starts = np.array([samples.start(int(k)) for k in rows])
    begin = [array[rows, starts].astype(float) for array in samples.trajectories[:2]]
    ends = [array[rows, starts + samples.horizon] for array in samples.trajectories[:2]]
    return begin[1], {name: last - first for name, first, last in zip(LABELS, begin, ends)}


def _initial_states(
    settings: NBodySet, requested: Mapping[str, int]
) -> dict[str, tuple[nbody.State, Float[np.ndarray, "simulations bodies bodies"]]]:
    """Initial states of each split; for gravity a tenth more than requested, as some are left out later."""
    states = {}
    if settings.kind == "gatr":
        planets = {split: settings.further.get(split, settings.num_bodies) - 1 for split in settings.splits}
        for split, state in nbody_gatr.gatr_states(settings.seed, settings.drawn, planets, far="e3").items():
            some = nbody.State(*(array[: round(1.1 * requested[split]) + 10] for array in state))
            states[split] = some, nbody.gravity_coupling(some.charges)
        return states
    if settings.kind == "gravity":
        for number, split in enumerate(SPLITS):
            rng = np.random.default_rng([settings.seed, number])
            state = nbody.planetary_states(round(1.1 * requested[split]) + 10, num_planets=settings.num_bodies - 1, rng=rng)
            states[split] = state, nbody.gravity_coupling(state.charges)
        return states
    stream = nbody.ChargedStream(
        settings.seed, num_bodies=settings.num_bodies, spread=settings.spread, num_frames=settings.num_frames
    )
    for split, drawn in settings.drawn.items():
        state = nbody.State(*(array[: requested[split]] for array in stream.draw(drawn)))
        states[split] = state, nbody.charge_coupling(state.charges)
    return states


def _simulated(
    settings: NBodySet,
    split: str,
    initial: nbody.State,
    coupling: Float[np.ndarray, "simulations bodies bodies"],
    count: int,
    progress: Callable[[int], None] | None,
) -> tuple[nbody.Trajectories, int | str]:
    """The frames that the task needs, and the input frame among them."""
    start = settings.start if split == "train" else settings.held_start
    horizon = settings.horizon
    # The published programs record their frame k after (k + 1) · steps_per_frame steps; gravity starts at step 0.
    offset = 0 if settings.bound else 1
    first, last = (0, settings.num_frames - 1) if isinstance(start, str) else (start, start + horizon)
    chunks: Iterator[nbody.Trajectories] = nbody.simulate(
        initial,
        coupling,
        frames=range(first + offset, last + offset + 1),
        steps_per_frame=settings.steps_per_frame,
        max_force=None if settings.bound else nbody.MAX_FORCE,
        box=nbody.BOX if settings.kind == "walls" else None,
        progress=progress,
    )
    parts, done = [], 0
    for chunk in chunks:
        if settings.bound:
            moved = np.linalg.norm(chunk.positions[:, -1] - chunk.positions[:, 0], axis=-1).max(axis=1)
            chunk = nbody.Trajectories(*(array[moved <= _FARTHEST] for array in chunk))
        if start == "spread":
            starts = (settings.num_frames - horizon) * (done + np.arange(len(chunk.charges))) // len(initial.charges)
            rows = starts[:, None] + np.arange(horizon + 1)
            across = np.arange(len(starts))[:, None]
            chunk = nbody.Trajectories(chunk.positions[across, rows], chunk.velocities[across, rows], chunk.charges)
        done += len(chunk.charges)
        parts.append([array.astype(np.float32) for array in chunk])
    arrays = [np.concatenate(column)[:count] for column in zip(*parts)]
    if len(arrays[0]) < count:
        raise UserError(f"only {len(arrays[0])} of {count} gravity samples were usable; ask for fewer")
    return nbody.Trajectories(*arrays), "random" if start == "random" else 0
