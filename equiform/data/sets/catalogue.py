"""The benchmark data sets: published addresses, local places, and stores.

Published files are looked for in the folder that is given, in `EQUIFORM_DATA`, and in the user's cache; stores are always in
the cache, one per published file, so that another source is another store.
"""

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from equiform.data.sets import md17, oc20, qm9
from equiform.data.sets.fetch import RemoteFile, download
from equiform.data.store.files import Store
from equiform.errors import UserError, suggest
from equiform.runtime.cache import user_cache_folder

Progress = Callable[[int, int], None]
ENVIRONMENT = "EQUIFORM_DATA"

_FIGSHARE = "https://ndownloader.figshare.com/files/"
_GDML = "http://www.quantum-machine.org/gdml/data/npz/"
_OC20 = "https://dl.fbaipublicfiles.com/opencatalystproject/data/"


class DataSet(NamedTuple):
    """A data set of the catalogue.

    Attributes:
        about: What it is.
        licence: As its publishers say.
        parts: Molecules or divisions, each a store; empty if the set is one store.
    """

    about: str
    licence: str
    parts: tuple[str, ...] = ()


SETS = {
    "qm9": DataSet("QM9: 130,831 small organic molecules, 12 properties, B3LYP/6-31G(2df,p)", "CC0"),
    "md17": DataSet("MD17: molecular dynamics of eight molecules, energies and forces, PBE+vdW-TS", "cite", md17.MOLECULES),
    "rmd17": DataSet("rMD17: frames of MD17 recomputed, PBE/def2-SVP, tight", "CC0", (*md17.MOLECULES, *md17.ONLY_REVISED)),
    "oc20-is2re": DataSet("OC20 IS2RE/IS2RS: adsorbates on catalyst surfaces, RPBE", "CC BY 4.0", oc20.PARTS),
}

QM9_FILES = (
    RemoteFile(qm9.ARCHIVE, _FIGSHARE + "3195389", None, "86 MB"),
    RemoteFile(
        qm9.EXCLUDED,
        _FIGSHARE + "3195404",
        "sha256:3aa5115d540b356de94791d4a74c3bf1ed91c469ecf52a4f5d7cc0506fe02e24",
        "0.5 MB",
    ),
    RemoteFile(
        qm9.ATOMREF, _FIGSHARE + "3195395", "sha256:af739d4a0fbe894a56f346ad6045ee1b74c58f8a8c9ef3fbfed920c9ad8b00f9", "1 kB"
    ),
)
RMD17_FILE = RemoteFile("rmd17.tar.bz2", "https://figshare.com/ndownloader/files/23950376", None, "all molecules, splits")
OC20_FILE = RemoteFile(
    "is2res_train_val_test_lmdbs.tar.gz",
    _OC20 + "is2res_train_val_test_lmdbs.tar.gz",
    "md5:cfc04dd2f87b4102ab2f607240d25fb1",
    "8.1 GB, 97 GB unpacked",
)


def cache_folder() -> Path:
    """Where downloads and stores go."""
    return user_cache_folder() / "equiform" / "data"


def check_name(name: str, part: str | None) -> str | None:
    """The part's own name, once the set and the part are known to exist.

    Raises:
        UserError: One of them does not, or a part is missing or too many.
    """
    if name not in SETS:
        raise UserError(f"there is no data set {name!r}{suggest(name, SETS)}; there are: {', '.join(SETS)}")
    parts = SETS[name].parts
    if not parts:
        if part is not None:
            raise UserError(f"{name} is one set, without parts such as {part!r}")
        return None
    kind = "molecule" if "md17" in name else "part"
    if part is None:
        raise UserError(f"{name} has several {kind}s; name one: {', '.join(parts)}")
    if "md17" in name:
        return md17.find_molecule(part, name)
    if part not in parts:
        raise UserError(f"{name} has no {kind} {part!r}{suggest(part, parts)}; there are: {', '.join(parts)}")
    return part


def published_files(name: str, part: str | None, folder: str | Path | None = None) -> Path | None:
    """The file that a store is made from (archive, npz file, LMDB), or None if it is not on this machine.

    Args:
        name: The data set.
        part: The molecule or part.
        folder: Where to look first.
    """
    for place in _places(name, folder):
        if name == "qm9":
            found = place / qm9.ARCHIVE if (place / qm9.ARCHIVE).is_file() else None
        elif name in md17.FILES:
            found = md17.find_file(place, name, part or "")
        else:
            found = oc20.find_source(place, part or "")
        if found is not None:
            return found
    return None


def fetch(name: str, part: str | None, folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Download the published files of a set into a folder of the cache.

    Args:
        name: The data set.
        part: MD17: which molecule.
        folder: Where to put them instead.
        progress: Progress callback `(done, total)`, in bytes done.

    Returns:
        The folder.

    Raises:
        UserError: There is no network, or a file is not what was published.
    """
    target = folder or cache_folder() / name
    if name == "qm9":
        for remote in QM9_FILES:
            download(remote, target, progress)
    elif name == "md17":
        file = md17.FILES["md17"][part or ""]
        download(RemoteFile(file, _GDML + file), target, progress)
    elif name == "rmd17":
        _unpack(download(RMD17_FILE, target, progress), target, ("rmd17/npz_data/", "rmd17/splits/"))
    else:
        requested = tuple(f"is2res_train_val_test_lmdbs/data/is2re/{path}/" for path in oc20.FOLDERS.values())
        _unpack(download(OC20_FILE, target, progress), target, requested)
    return target


def open_store(
    name: str, part: str | None = None, folder: str | Path | None = None, *, progress: Progress | None = None
) -> Store:
    """The store of a data set: opened if it was made before, made from the published files if they are on this machine.

    Raises:
        UserError: Neither is there; the message says how to get it.
    """
    part = check_name(name, part)
    label = name if part is None else f"{name}-{part}"
    stores = cache_folder() / "stores"
    source = published_files(name, part, folder)
    if source is None:
        if folder is not None:
            raise UserError(f"{folder} has no published file of {label}; it must hold {_wanted(name, part)}")
        made = sorted(stores.glob(f"{label}-[0-9a-f]*"), key=lambda path: path.stat().st_mtime)
        if made:
            return Store(made[-1])
        raise UserError(
            f"{label} is not available: run 'equiform data fetch {name}{f' {part}' if part else ''}', or name the folder with "
            f"{_wanted(name, part)} by --from FOLDER, data.folder or {ENVIRONMENT}"
        )
    path = stores / f"{label}-{_fingerprint(source)}"
    if not (path / "store.json").is_file():
        about: dict[str, Any] = {"set": name, "part": part, "source": str(source), **SETS[name]._asdict(), "parts": None}
        if name == "qm9":
            qm9.prepare(source.parent, path, about=about, progress=progress)
        elif name in md17.FILES:
            md17.prepare(source, name, part or "", path, about=about, progress=progress)
        else:
            oc20.prepare(source, path, about=about, progress=progress)
    return Store(path)


def is_here(name: str, part: str | None) -> bool:
    """Whether a set, or a store that was made of it, is on this machine."""
    label = name if part is None else f"{name}-{part}"
    return published_files(name, part) is not None or any((cache_folder() / "stores").glob(f"{label}-[0-9a-f]*"))


def checks(store: Store) -> list[str]:
    """Human-readable check of the content; a warning where it is not what was published."""
    if store.about.get("set") != "qm9":
        return []
    same = store.about.get("content") == qm9.CONTENT
    return ["content: as published" if same else "warning: the numbers are not those of the published archive"]


def _places(name: str, folder: str | Path | None) -> Iterator[Path]:
    bases = [Path(folder)] if folder is not None else []
    if folder is None and os.environ.get(ENVIRONMENT):
        bases.append(Path(os.environ[ENVIRONMENT]))
    if folder is None:
        bases.append(cache_folder())
    for base in bases:
        if not base.is_dir() and base != cache_folder():
            raise UserError(
                f"{base} is not a folder (it was given by {'--from or data.folder' if folder is not None else ENVIRONMENT})"
            )
        yield from (base, base / name, base / name.partition("-")[0])
        if name == "md17":
            yield base / "rmd17"


def _wanted(name: str, part: str | None) -> str:
    if name == "qm9":
        return ", ".join(qm9.FILES)
    if name in md17.FILES:
        return md17.FILES[name][part or ""]
    return f"{oc20.FOLDERS[part]}/data.lmdb" if part in oc20.FOLDERS else "*.traj"


def _fingerprint(path: Path) -> str:
    """Digest of the size and the two ends of a file (of a folder: of its files), to distinguish sources quickly."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_dir():
            continue
        digest.update(f"{file.name} {file.stat().st_size}".encode())
        with open(file, "rb") as stream:
            digest.update(stream.read(65536))
            stream.seek(max(file.stat().st_size - 65536, 0))
            digest.update(stream.read())
    return digest.hexdigest()[:10]


def _unpack(archive: Path, folder: Path, requested: tuple[str, ...]) -> None:
    """Unpack the requested members of an archive, each under its own name only when complete."""
    try:
        with tarfile.open(archive, "r|*") as stream:
            for member in stream:
                target = folder / member.name
                if not member.isfile() or not member.name.startswith(requested) or ".." in member.name or target.is_file():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(f".{target.name}.part")
                file = stream.extractfile(member)
                with open(part, "wb") as out:
                    while file is not None and (chunk := file.read(1 << 20)):
                        out.write(chunk)
                os.replace(part, target)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} is damaged ({error}); remove it and fetch it again") from error
