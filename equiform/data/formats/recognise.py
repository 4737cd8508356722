"""Which format a file has: as the user says, by its name, by its content where that is safe, by ASE's rules."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from equiform.data.formats.archives import read_hdf5, read_npz
from equiform.data.formats.ase_files import read_ase, read_database, read_sdf
from equiform.data.formats.blocks import read_mtp, read_n2p2
from equiform.data.formats.deepmd import is_deepmd, read_deepmd
from equiform.data.formats.dpdata_files import read_dpdata
from equiform.data.formats.frames import Frame, How, Reader, reason
from equiform.data.formats.lammps_files import lammps_format
from equiform.data.formats.materials import is_materials, read_materials
from equiform.data.formats.xyz import read_xyz
from equiform.errors import UserError

OWN: dict[str, Reader] = {
    "extxyz": read_xyz,
    "xyz": read_xyz,
    "cp2k-xyz": read_xyz,
    "deepmd": read_deepmd,
    "npz": read_npz,
    "hdf5": read_hdf5,
    "mtp": read_mtp,
    "n2p2": read_n2p2,
    "pymatgen": read_materials,
    "sdf": read_sdf,
}
"""The formats with a reader of our own, by the names that `data.format` takes."""

_SUFFIXES = {
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".exyz": "extxyz",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".sdf": "sdf",
}
# In a folder, what belongs to these is read; POSCAR and the like would repeat what an OUTCAR holds.
_ALSO_SUFFIXES = (".traj", ".db", ".cif", ".cfg", ".dump", ".lammpstrj")
_NAMES = ("OUTCAR", "vasprun", "XDATCAR")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".p", ".joblib")
# First lines of the outputs of programs, and the formats to try.
_PROGRAMS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("CP2K|", "DBCSR| ", "DBCSR|"), ("cp2k/output",)),
    (("Siesta Version", "SIESTA ", "Welcome to SIESTA"), ("siesta/output",)),
    (("Psi4: An Open-Source",), ("psi4/out",)),
    (("Invoking FHI-aims",), ("aims-output", "fhi_aims/md", "fhi_aims/scf")),
    (("* O   R   C   A *",), ("orca-output", "orca/spout")),
)
_ALSO_DPDATA = {"vasp-out": ("vasp/outcar",), "gaussian-out": ("gaussian/log",), "vasp-xml": ("vasp/xml",)}


def reader_of(file: Path, how: How) -> Callable[[Path, How], Sequence[Frame]]:
    """A function that reads the file.

    Raises:
        UserError: The format is unknown, or deliberately not read.
    """
    if how.format is not None:
        return _named(how.format)
    if file.is_dir():
        if is_deepmd(file):
            return _listed(read_deepmd)
        raise UserError(f"{file} is a folder; name a file, or a pattern such as {file / '*.xyz'}")
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in (".gz", ".bz2", ".xz")]
    suffix = suffixes[-1] if suffixes else ""
    head = _head(file)
    if suffix in _PICKLES or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        raise UserError(
            f"{file} looks like a Python pickle, which is not read: reading one executes its content. Where you trust it, "
            "convert it once: load it, and write the structures with ase.io.write('data.extxyz', structures)"
        )
    if suffix == ".npy":
        raise UserError(f"{file} is a single array; name the .npz file or the DeePMD folder that it belongs to")
    if suffix in _SUFFIXES:
        return _listed(OWN[_SUFFIXES[suffix]])
    if suffix == ".db":
        return lambda path, chosen: read_database(path, "db", chosen)
    text = head.decode("utf-8", errors="replace")
    if (own := _by_content(head, text)) is not None:
        return _listed(OWN[own])
    if (lammps := lammps_format(text)) is not None:
        return lambda path, chosen: read_ase(path, lammps, chosen)
    for marks, forms in _PROGRAMS:
        if any(mark in text for mark in marks):
            return partial(_first_that_reads, forms)
    if suffix == ".json" and is_materials(text):
        return _listed(read_materials)
    return _by_ase(file)


def is_structure_file(file: Path) -> bool:
    """Whether a file that is met in a folder is one of structures: by its name, or what a program wrote in its first lines."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in (".gz", ".bz2", ".xz")]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in _SUFFIXES or suffix in _ALSO_SUFFIXES or file.name.startswith(_NAMES):
        return True
    text = _head(file).decode("utf-8", errors="replace")
    return any(mark in text for marks, _ in _PROGRAMS for mark in marks) or (suffix == ".json" and is_materials(text))


def _named(form: str) -> Callable[[Path, How], Sequence[Frame]]:
    if form in OWN:
        return _listed(OWN[form])
    if form in ("db", "json"):
        return lambda path, how: read_database(path, form, how)
    if "/" in form:
        return lambda path, how: read_dpdata(path, form, how)
    from ase.io.formats import UnknownFileTypeError, get_ioformat

    try:
        get_ioformat(form)
    except UnknownFileTypeError:
        known = ", ".join(sorted({*OWN, "db"}))
        raise UserError(
            f"data.format={form} is not known; there are {known}, the formats of dpdata (cp2k/output, …) and of ASE "
            f"(vasp-out, …)"
        ) from None
    return lambda path, how: read_ase(path, form, how)


def _by_content(head: bytes, text: str) -> str | None:
    lines = text.split("\n", 40)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if any(line.strip() == "BEGIN_CFG" for line in lines[:20]):
        return "mtp"
    first = next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
    if first == "begin" and any(line.split()[:1] in (["atom"], ["lattice"], ["comment"]) for line in lines[1:10]):
        return "n2p2"
    return None


def _by_ase(file: Path) -> Callable[[Path, How], Sequence[Frame]]:
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    try:
        form = filetype(str(file))
        get_ioformat(form)  # ASE takes an unknown suffix as the name of a format
    except UnknownFileTypeError:
        raise UserError(
            f"{file}: not a format that ASE recognises; extended XYZ (.xyz, .extxyz), .traj and .db are; others may be named "
            "with data.format=… (docs: What is read)"
        ) from None
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise UserError(f"{file} cannot be read: {reason(error)}") from None
    if form in ("xyz", "extxyz"):
        return _listed(read_xyz)
    if form in ("db", "json"):
        return lambda path, how: read_database(path, form, how)
    if form in _ALSO_DPDATA:
        return partial(_first_that_reads, (form, *_ALSO_DPDATA[form]))
    return lambda path, how: read_ase(path, form, how)


def _first_that_reads(forms: Sequence[str], file: Path, how: How) -> Sequence[Frame]:
    """The result of the first format that works; if none does, the error of the first."""
    first: UserError | None = None
    for form in forms:
        tried = How(form, how.types, how.has_units, how.skip_invalid)
        try:
            frames = _named(form)(file, tried)
        except UserError as error:
            missing = "pip install" in str(error)
            first = error if first is None or missing else first
            continue
        for line in tried.warnings:
            how.warn(line)
        return frames
    assert first is not None  # there is at least one format
    raise first


def _listed(read: Reader) -> Callable[[Path, How], Sequence[Frame]]:
    return lambda file, how: list(read(file, how))


def _head(file: Path) -> bytes:
    from ase.io.formats import open_with_compression

    try:
        with open_with_compression(str(file), "rb") as stream:
            return stream.read(50_000)
    except PermissionError:
        raise
    except (OSError, EOFError, ValueError):
        with open(file, "rb") as plain:
            return plain.read(50_000)
