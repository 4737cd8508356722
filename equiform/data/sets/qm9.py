"""QM9: the original archive of 133,885 xyz files → a store of the 130,831 usable molecules.

Source: Ramakrishnan et al., Scientific Data 1, 140022 (2014): `dsgdb9nsd.xyz.tar.bz2`, `uncharacterized.txt` (3,054
molecules whose geometry did not keep its bonds) and `atomref.txt` (thermochemical energies of the free atoms).
"""

import bz2
import hashlib
import queue
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np

from equiform.data.store.files import Field, StoreWriter
from equiform.data.units import HARTREE
from equiform.errors import UserError, suggest
from equiform.runtime.files import explained

ARCHIVE, EXCLUDED, ATOMREF = "dsgdb9nsd.xyz.tar.bz2", "uncharacterized.txt", "atomref.txt"
FILES = (ARCHIVE, EXCLUDED, ATOMREF)
MOLECULES, UNUSABLE = 133_885, 3_054

CONTENT = "3914add3339cb579196cde9e72bedae2ddbb913fc3aa48ed083374718a0d9892"
"""Digest of everything read from the published archive; see `content_digest`."""

NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}

PROPERTIES: dict[str, Field] = {
    "A": Field("graph", "float64", (), "GHz", "rotational constant A"),
    "B": Field("graph", "float64", (), "GHz", "rotational constant B"),
    "C": Field("graph", "float64", (), "GHz", "rotational constant C"),
    "mu": Field("graph", "float64", (), "D", "dipole moment"),
    "alpha": Field("graph", "float64", (), "a0³", "isotropic polarizability"),
    "homo": Field("graph", "float64", (), "Hartree", "energy of the highest occupied orbital"),
    "lumo": Field("graph", "float64", (), "Hartree", "energy of the lowest unoccupied orbital"),
    "gap": Field("graph", "float64", (), "Hartree", "LUMO − HOMO"),
    "r2": Field("graph", "float64", (), "a0²", "electronic spatial extent"),
    "zpve": Field("graph", "float64", (), "Hartree", "zero-point vibrational energy"),
    "U0": Field("graph", "float64", (), "Hartree", "internal energy at 0 K"),
    "U": Field("graph", "float64", (), "Hartree", "internal energy at 298.15 K"),
    "H": Field("graph", "float64", (), "Hartree", "enthalpy at 298.15 K"),
    "G": Field("graph", "float64", (), "Hartree", "free energy at 298.15 K"),
    "Cv": Field("graph", "float64", (), "cal/(mol K)", "heat capacity at 298.15 K"),
}
"""The 15 properties in the order of the files, in the units of the files."""


class Target(NamedTuple):
    """A regression target of the papers' tables.

    Attributes:
        name: As in `PROPERTIES`.
        symbol: As in the tables.
        unit: Unit for training; eV for energies.
        factor: From the file's unit to that one.
        atomref: Column of `atomref.txt` whose atomic values are subtracted; None subtracts nothing.
    """

    name: str
    symbol: str
    unit: str
    factor: float = 1.0
    atomref: str | None = None


TARGETS = {
    target.name: target
    for target in (
        Target("mu", "μ", "D"),
        Target("alpha", "α", "a0³"),
        Target("homo", "ε_HOMO", "eV", HARTREE),
        Target("lumo", "ε_LUMO", "eV", HARTREE),
        Target("gap", "Δε", "eV", HARTREE),
        Target("r2", "⟨R²⟩", "a0²"),
        Target("zpve", "ZPVE", "eV", HARTREE),
        Target("U0", "U0", "eV", HARTREE, "U0"),
        Target("U", "U", "eV", HARTREE, "U"),
        Target("H", "H", "eV", HARTREE, "H"),
        Target("G", "G", "eV", HARTREE, "G"),
        Target("Cv", "Cv", "cal/(mol K)"),
    )
}
"""The 12 targets in the order of the papers (the order of PyTorch Geometric: target 0 to 11)."""


class Molecule(NamedTuple):
    """What is read from one file of the archive."""

    number: int
    species: list[int]
    positions: np.ndarray
    charges: list[float]
    properties: list[float]


def find_target(name: str) -> Target:
    """A target by its name, its symbol, or its number in the papers.

    Raises:
        UserError: There is no such target.
    """
    known = {**TARGETS, **{t.symbol: t for t in TARGETS.values()}, **dict(zip(map(str, range(12)), TARGETS.values()))}
    folded = {key.lower(): target for key, target in known.items()}
    if name.lower() not in folded:
        raise UserError(f"QM9 has no target {name!r}{suggest(name, TARGETS)}; there are: {', '.join(TARGETS)}")
    return folded[name.lower()]


def parse_molecule(text: str, name: str) -> Molecule:
    """One file: number of atoms, properties, atoms (symbol, x, y, z, charge), frequencies, SMILES, InChI.

    Some numbers are written as Mathematica does, `1.2*^-6`.

    Raises:
        UserError: It is not such a file.
    """
    lines = text.replace("*^", "e").split("\n")
    try:
        count = int(lines[0])
        head = lines[1].split()
        tokens = "\t".join(lines[2 : 2 + count]).split()
        species = [NUMBERS[symbol] for symbol in tokens[0::5]]
        numbers = np.array([[float(x) for x in tokens[axis::5]] for axis in (1, 2, 3)])
        charges = [float(x) for x in tokens[4::5]]
        properties = [float(x) for x in head[2:]]
        number = int(head[1])
    except (ValueError, IndexError, KeyError) as error:
        raise UserError(f"{name} is not a QM9 file: {type(error).__name__}: {error}") from error
    if len(tokens) != 5 * count or len(properties) != len(PROPERTIES) or not count:
        raise UserError(f"{name} is not a QM9 file: {count} atoms, {len(tokens)} entries, {len(properties)} properties")
    if not (np.isfinite(numbers).all() and np.isfinite(properties).all()):
        raise UserError(f"{name} holds a number that is not finite")
    return Molecule(number, species, numbers.T, charges, properties)


def read_archive(path: Path, progress: Callable[[int, int], None] | None = None) -> list[Molecule]:
    """All molecules of the archive, by number; the archive is streamed, never unpacked.

    Raises:
        UserError: It is truncated or damaged, or a member is not a QM9 file.
    """
    molecules = []
    done = threading.Event()
    try:
        with _Decompressed(path, done) as stream, tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is None or not member.name.endswith(".xyz"):
                    continue
                molecules.append(parse_molecule(file.read().decode("utf-8", "replace"), member.name))
                if progress is not None and len(molecules) % 500 == 0:
                    progress(len(molecules), MOLECULES)
            while stream.read(1 << 20):  # What follows the last member is checked too.
                pass
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        what = "ends too early (a download that was interrupted?)" if _is_short(error) else f"is damaged: {error}"
        raise UserError(f"{path} {what}; {len(molecules)} molecules were read; fetch it again") from error
    return sorted(molecules)


def read_excluded(path: Path) -> list[int]:
    """Numbers of the molecules that are left out."""
    with explained(f"cannot read {path}", "fetch it again"):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return sorted(int(line.split()[0]) for line in lines if line.strip() and line.split()[0].isdigit())


def read_atomref(path: Path) -> dict[str, dict[int, float]]:
    """Energies of the free atoms, Hartree, by target and atomic number.

    Raises:
        UserError: An element or a number is missing.
    """
    with explained(f"cannot read {path}", "fetch it again"):
        rows = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    table: dict[str, dict[int, float]] = {name: {} for name in ("zpve", "U0", "U", "H", "G", "Cv")}
    try:
        for row in rows:
            if row and row[0] in NUMBERS:
                for name, text in zip(table, row[1:7], strict=True):
                    table[name][NUMBERS[row[0]]] = float(text)
    except ValueError as error:
        raise UserError(f"{path} is not QM9's atomref.txt: {error}") from error
    missing = [symbol for symbol, z in NUMBERS.items() if z not in table["U0"]]
    if missing:
        raise UserError(f"{path} has no reference energies of {', '.join(missing)}")
    return table


def prepare(
    folder: Path,
    store: Path,
    *,
    molecules: int = MOLECULES,
    unusable: int = UNUSABLE,
    about: dict[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Read the published files and write the store of usable molecules.

    Args:
        folder: Where the three files are.
        store: Where the store goes.
        molecules: Number of molecules that the archive must hold.
        unusable: Number of them that must be excluded.
        about: Metadata for the store.
        progress: Progress callback `(done, total)`, in molecules read.

    Raises:
        UserError: A file is missing, damaged, or incomplete.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)} of QM9; equiform data fetch qm9 gets them")
    excluded = set(read_excluded(folder / EXCLUDED))
    if len(excluded) != unusable:
        raise UserError(f"{folder / EXCLUDED} lists {len(excluded)} molecules, but {unusable} are published; fetch it again")
    atomref = read_atomref(folder / ATOMREF)
    found = read_archive(folder / ARCHIVE, progress)
    numbers = [molecule.number for molecule in found]
    absent = sorted(set(range(1, molecules + 1)) - set(numbers))
    if absent or len(numbers) != molecules:
        some = ", ".join(map(str, absent[:5])) + (", …" if len(absent) > 5 else "")
        raise UserError(
            f"{folder / ARCHIVE} holds {len(numbers)} molecules, but {molecules} are published"
            + (f"; number {some} is missing" if absent else "")
        )
    digest = content_digest(found)
    fields = {
        "number": Field("graph", "int32", about="number in the archive, 1 to 133,885"),
        "charge": Field("atom", "float64", (), "e", "Mulliken charge"),
        **PROPERTIES,
    }
    details = {**(about or {}), "content": digest, "molecules": molecules, "excluded": unusable}
    details["atomref"] = {name: {str(z): value for z, value in column.items()} for name, column in atomref.items()}
    with StoreWriter(store, fields, about=details) as writer:
        for molecule in found:
            if molecule.number in excluded:
                continue
            writer.add(
                positions=molecule.positions,
                species=molecule.species,
                number=molecule.number,
                charge=molecule.charges,
                **dict(zip(PROPERTIES, molecule.properties)),
            )


def content_digest(molecules: list[Molecule]) -> str:
    """SHA-256 of all numbers, whatever the files were packed with."""
    digest = hashlib.sha256()
    for molecule in molecules:
        digest.update(np.array([molecule.number, *molecule.species], "<i8").tobytes())
        digest.update(np.ascontiguousarray(molecule.positions, "<f8").tobytes())
        digest.update(np.array(molecule.properties + molecule.charges, "<f8").tobytes())
    return digest.hexdigest()


class _Decompressed:
    """The unpacked content of a bz2 file as a stream; a second thread unpacks, so that two cores are used."""

    def __init__(self, path: Path, done: threading.Event):
        self._path, self._done = path, done
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(maxsize=16)
        self._rest, self._ended = b"", False
        self._thread = threading.Thread(target=self._unpack, name="equiform-bz2", daemon=True)

    def __enter__(self) -> "_Decompressed":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and not self._ended:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            self._ended = not item
            self._rest += item
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    def _unpack(self) -> None:
        try:
            for part in self._parts():
                self._put(part)
            self._put(b"")
        except BaseException as error:  # Raised again by the reader.
            self._put(error)

    def _put(self, item: bytes | BaseException) -> None:
        while not self._done.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def _parts(self) -> Iterator[bytes]:
        with open(self._path, "rb") as file:
            unpacker, any_stream = bz2.BZ2Decompressor(), False
            while chunk := file.read(1 << 18):
                while chunk:
                    if unpacker.eof:
                        unpacker = bz2.BZ2Decompressor()
                    if part := unpacker.decompress(chunk):
                        yield part
                    any_stream, chunk = True, unpacker.unused_data if unpacker.eof else b""
            if not (any_stream and unpacker.eof):
                raise EOFError("the compressed data end too early")


def _is_short(error: Exception) -> bool:
    return isinstance(error, EOFError) or "unexpected end" in str(error)
