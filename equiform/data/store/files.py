"""A store: a data set on disk in columns, written once, memory-mapped afterwards, however large it is.

A folder holds one raw file per column (one row per structure or one per atom), and `store.json`, which says what they are
and how long each file must be. Everything is written to a temporary folder and moved into place when complete, so an
interrupted store does not exist. Edges are columns too, one folder per convention; their numbers are what batches are
packed by, without a structure being opened.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from equiform.data.store.neighborhood import Edges, Neighborhood, find_edges
from equiform.errors import UserError
from equiform.graph import Graph
from equiform.runtime.files import explained, to_json, write_atomically

FORMAT, FORMAT_VERSION = "equiform-store", 1
INDEX = "store.json"
_CHUNK = 2048  # structures per write
_MOST_ATOMS = 65_535  # ends of edges are stored in 16 bits
_ADVICE = "free some space or fix the permissions"


class Field(NamedTuple):
    """What a column holds.

    Attributes:
        per: Whether a row belongs to a structure ("graph") or to an atom.
        dtype: Of its numbers, as NumPy names it.
        shape: Of one row.
        unit: Of its numbers; empty if there is none.
        about: Human-readable description.
    """

    per: Literal["graph", "atom"]
    dtype: str
    shape: tuple[int, ...] = ()
    unit: str = ""
    about: str = ""


CORE = {
    "num_atoms": Field("graph", "int32", about="atoms of each structure"),
    "positions": Field("atom", "float64", (3,), "Å"),
    "species": Field("atom", "uint8", about="atomic number"),
}
CELL = Field("graph", "float64", (3, 3), "Å", "cell vectors as rows")


class StoreWriter:
    """Writes a store structure by structure; use it in a `with` statement.

    Args:
        folder: Where; an existing one is replaced when the store is complete.
        fields: Columns besides `CORE`; `CELL` among them, as "cell", for periodic structures.
        pbc: Along which cell vectors the structures repeat.
        about: Plain values: source, licence, checks.
    """

    def __init__(
        self,
        folder: Path,
        fields: Mapping[str, Field],
        *,
        pbc: tuple[bool, bool, bool] = (False, False, False),
        about: Mapping[str, Any] | None = None,
    ):
        self.folder, self.pbc, self.about = folder, pbc, dict(about or {})
        self.fields = {**CORE, **fields}
        self.structures = self.atoms = 0
        self._temporary = folder.with_name(f".{folder.name}.part-{os.getpid()}")
        self._rows: dict[str, list[np.ndarray]] = {name: [] for name in self.fields}
        self._files: dict[str, IO[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "StoreWriter":
        with explained(f"cannot write {self.folder}", _ADVICE):
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary.mkdir(parents=True)
            for name in self.fields:
                self._files[name] = self._stack.enter_context(open(self._temporary / name, "wb"))
        return self

    def add(self, **columns: Any) -> None:
        """Append one structure; every column but `num_atoms` must be given.

        Raises:
            ValueError: A column is missing, unknown or of another shape.
        """
        count = len(columns["positions"])
        if count > _MOST_ATOMS:
            raise UserError(f"structure {self.structures} has {count} atoms; a store takes at most {_MOST_ATOMS}")
        columns["num_atoms"] = count
        if columns.keys() != self.fields.keys():
            raise ValueError(f"columns {sorted(columns)} do not fit {sorted(self.fields)}")
        for name, field in self.fields.items():
            rows = np.asarray(columns[name], field.dtype)
            rows = rows if field.per == "atom" else rows[None]
            if rows.shape != ((count if field.per == "atom" else 1), *field.shape):
                raise ValueError(f"{name} has the shape {rows.shape}, its rows are {field.shape} per {field.per}")
            self._rows[name].append(rows)
        self.structures, self.atoms = self.structures + 1, self.atoms + count
        if self.structures % _CHUNK == 0:
            self._flush()

    def _flush(self) -> None:
        with explained(f"cannot write {self.folder}", _ADVICE):
            for name, rows in self._rows.items():
                if rows:
                    self._files[name].write(np.concatenate(rows).tobytes())
                    rows.clear()

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._finish()
        finally:
            self._stack.close()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _finish(self) -> None:
        with explained(f"cannot write {self.folder}", _ADVICE):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
            self._stack.close()
            content = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "structures": self.structures,
                "atoms": self.atoms,
                "pbc": list(self.pbc),
                "fields": {name: field._asdict() for name, field in self.fields.items()},
                "about": self.about,
            }
            write_atomically(self._temporary / INDEX, to_json(content))
            move_into_place(self._temporary, self.folder)


class Store:
    """An existing store. Opening it maps the files; data are read on access.

    Attributes:
        path: Its folder.
        fields: What the columns are.
        pbc: Along which cell vectors the structures repeat.
        about: What the writer said about it.
    """

    def __init__(self, path: Path):
        content = _read_index(path / INDEX)
        self.path, self.about = path, dict(content["about"])
        self.pbc: tuple[bool, bool, bool] = tuple(content["pbc"])
        self.fields = {name: _field(entry) for name, entry in content["fields"].items()}
        rows = {"graph": content["structures"], "atom": content["atoms"]}
        self._columns = {
            name: _map(path / name, rows[field.per], field.dtype, field.shape) for name, field in self.fields.items()
        }
        self._offsets = np.concatenate([[0], np.cumsum(self._columns["num_atoms"], dtype=np.int64)])
        if self._offsets[-1] != content["atoms"]:
            raise UserError(f"{path} is damaged: its structures have {self._offsets[-1]} atoms, not {content['atoms']}")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, name: str) -> np.ndarray:
        """A whole column, memory-mapped."""
        return self._columns[name]

    def rows(self, name: str, index: int) -> Any:
        """What a column says about one structure: a row, or one row per atom."""
        if self.fields[name].per == "graph":
            return self._columns[name][index]
        return self._columns[name][self._offsets[index] : self._offsets[index + 1]]

    def cell(self, index: int) -> np.ndarray | None:
        """Cell vectors, Å; None for a store of molecules."""
        return np.asarray(self.rows("cell", index), np.float64) if "cell" in self.fields else None

    def elements(self, indices: Sequence[int] | np.ndarray | None = None) -> tuple[int, ...]:
        """Atomic numbers that occur in some structures, or in all."""
        if indices is None:
            return tuple(int(z) for z in np.flatnonzero(np.bincount(self["species"])))
        requested = np.zeros(len(self), bool)
        requested[np.asarray(indices, np.int64)] = True
        chosen = self["species"][np.repeat(requested, self["num_atoms"])]
        return tuple(int(z) for z in np.flatnonzero(np.bincount(chosen)))

    def edges(
        self, neighborhood: Neighborhood, *, keep: bool = True, progress: Callable[[int, int], None] | None = None
    ) -> "EdgeIndex":
        """The edges of all structures by a convention; found once, then opened.

        Args:
            neighborhood: The convention.
            keep: Whether to store the edges and not only their numbers.
            progress: Progress callback `(done, total)`, in structures done while they are computed.
        """
        for kept in (True, False) if not keep else (True,):
            folder = self.path / f"edges-{neighborhood.key}{'' if kept else '-counts'}"
            if (folder / INDEX).is_file():
                return EdgeIndex(folder, self, neighborhood)
        _write_edges(folder, self, neighborhood, keep, progress)
        return EdgeIndex(folder, self, neighborhood)


class EdgeIndex:
    """The edges of each structure and their number.

    Attributes:
        num_edges: By structure.
    """

    def __init__(self, folder: Path, store: Store, neighborhood: Neighborhood):
        content = _read_index(folder / INDEX)
        self._store, self._neighborhood = store, neighborhood
        self.num_edges = _map(folder / "num_edges", len(store), "int32", ())
        total = int(self.num_edges.sum(dtype=np.int64))
        if total != content["edges"]:
            raise UserError(f"{folder} is damaged: {total} edges instead of {content['edges']}; remove it")
        self._columns = None
        if content["kept"]:
            self._offsets = np.concatenate([[0], np.cumsum(self.num_edges, dtype=np.int64)])
            shapes = {"senders": ("uint16", ()), "receivers": ("uint16", ())}
            shapes |= {"shifts": ("int8", (3,))} if content["shifts"] else {}
            self._columns = {name: _map(folder / name, total, *shape) for name, shape in shapes.items()}

    def of(self, index: int) -> Edges:
        """The edges of one structure."""
        store = self._store
        if self._columns is None:
            return find_edges(store.rows("positions", index), store.cell(index), store.pbc, self._neighborhood)
        rows = slice(self._offsets[index], self._offsets[index + 1])
        found = {name: column[rows].astype(np.int32) for name, column in self._columns.items()}
        return Edges(found["senders"], found["receivers"], found.get("shifts"))


def make_stored_graph(
    store: Store,
    index: int,
    edges: Edges,
    *,
    positions: np.ndarray | None = None,
    node_fields: Mapping[str, np.ndarray] | None = None,
    graph_fields: Mapping[str, np.ndarray] | None = None,
) -> Graph:
    """One structure of a store as a host graph. Graph fields have their leading axis of one already."""
    count = int(store["num_atoms"][index])
    cell = store.cell(index) if any(store.pbc) else None
    shifts = np.zeros((len(edges.senders), 3), np.int32) if edges.shifts is None else edges.shifts
    return Graph(
        positions=np.asarray(store.rows("positions", index) if positions is None else positions, np.float64),
        species=store.rows("species", index).astype(np.int32),
        senders=edges.senders,
        receivers=edges.receivers,
        shifts=shifts,
        cell=np.zeros((1, 3, 3)) if cell is None else cell[None],
        graph_index=np.zeros(count, np.int32),
        atom_mask=np.ones(count, bool),
        edge_mask=np.ones(len(edges.senders), bool),
        graph_mask=np.ones(1, bool),
        node_fields=dict(node_fields or {}),
        graph_fields=dict(graph_fields or {}),
    )


def move_into_place(temporary: Path, folder: Path) -> None:
    """Replace a folder by a finished one; a reader finds the old one, the new one, or none."""
    if folder.exists():
        aside = folder.with_name(f".{folder.name}.old-{os.getpid()}")
        os.replace(folder, aside)
        os.replace(temporary, folder)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(temporary, folder)


def _write_edges(
    folder: Path, store: Store, neighborhood: Neighborhood, keep: bool, progress: Callable[[int, int], None] | None
) -> None:
    temporary = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    counts = np.zeros(len(store), np.int32)
    periodic = any(store.pbc)
    kept = ("senders", "receivers", *(("shifts",) if periodic else ())) if keep else ()
    pending: dict[str, list[bytes]] = {name: [] for name in kept}
    with explained(f"cannot write {folder}", _ADVICE), ExitStack() as stack:
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        files = {name: stack.enter_context(open(temporary / name, "wb")) for name in kept}
        for index in range(len(store)):
            edges = find_edges(store.rows("positions", index), store.cell(index), store.pbc, neighborhood)
            counts[index] = len(edges.senders)
            for name in kept:
                dtype = np.int8 if name == "shifts" else np.uint16
                pending[name].append(np.asarray(getattr(edges, name), dtype).tobytes())
            if (index + 1) % _CHUNK == 0 or index + 1 == len(store):
                for name, parts in pending.items():
                    files[name].write(b"".join(parts))
                    parts.clear()
                if progress is not None:
                    progress(index + 1, len(store))
        for file in files.values():
            file.close()
        (temporary / "num_edges").write_bytes(counts.tobytes())
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "edges": int(counts.sum(dtype=np.int64)),
            "kept": keep,
            "shifts": periodic,
        }
        write_atomically(temporary / INDEX, to_json(content))
        move_into_place(temporary, folder)


def _read_index(path: Path) -> dict[str, Any]:
    advice = "remove the folder to have it made again"
    with explained(f"cannot read {path}", "is this a prepared data set?"):
        text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {advice}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not the index of a data store; {advice}")
    if content.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{path} was written by another version of Equiform; {advice}")
    return content


def _field(entry: Mapping[str, Any]) -> Field:
    return Field(entry["per"], entry["dtype"], tuple(entry["shape"]), entry["unit"], entry["about"])


def _map(path: Path, rows: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    size = rows * np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
    have = path.stat().st_size if path.is_file() else None
    if have != size:
        found = "is missing" if have is None else f"has {have} bytes instead of {size}"
        raise UserError(f"{path} {found}: the store is damaged; remove its folder to have it made again")
    if size == 0:
        return np.zeros((rows, *shape), dtype)
    # A plain array over the map: slices of a memmap cost twice as much to make.
    return np.asarray(np.memmap(path, dtype, "r", shape=(rows, *shape)))
