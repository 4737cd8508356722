"""Small made-up files in the publishers' formats, written byte by byte as the publishers' programs do."""

import bz2
import io
import pickle
import sys
import tarfile
import types
import zlib
from pathlib import Path

import numpy as np

METHANE = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t\
-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 0.0002765748\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""
ATOMREF = """
=========================================
  Ele-    ZPVE         U (0 K)      U (298.15 K)    H (298.15 K)    G (298.15 K)     CV
  ment   Hartree       Hartree        Hartree         Hartree         Hartree        Cal/(Mol Kelvin)
=========================================
   H     0.000000     -0.500273      -0.498857       -0.497912       -0.510927       2.981
   C     0.000000    -37.846772     -37.845355      -37.844411      -37.861317       2.981
   N     0.000000    -54.583861     -54.582445      -54.581501      -54.598897       2.981
   O     0.000000    -75.064579     -75.063163      -75.062219      -75.079532       2.981
   F     0.000000    -99.718730     -99.717314      -99.716370      -99.733544       2.981
=========================================
"""


def qm9_molecule(number: int) -> str:
    """Methane for number 1; else a bent H–O–H whose properties are made of its number, with Mathematica's exponents."""
    if number == 1:
        return METHANE
    values = "\t".join(str(number + k / 16) for k in range(15))
    atoms = f"O\t0.\t0.\t{number}.*^-3\t-0.4\nH\t0.96\t0.\t0.\t0.2\nH\t-0.24\t0.93\t1.5*^-6\t0.2\n"
    return f"3\ngdb {number}\t{values}\t\n{atoms}1.\t2.\t3.\nO\tO\nInChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2\n"


def write_qm9(folder: Path, count: int = 40, excluded: tuple[int, ...] = (3, 7), order: int = -1) -> Path:
    """The three files of QM9 with `count` molecules, the archive in descending order if `order` is −1."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(1, count + 1)[::order]:
            text = qm9_molecule(number).encode()
            info = tarfile.TarInfo(f"dsgdb9nsd_{number:06d}.xyz")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    (folder / "dsgdb9nsd.xyz.tar.bz2").write_bytes(bz2.compress(packed.getvalue()))
    lines = [f"  {number:8d}    SMILES    SMILES   6.0" for number in excluded]
    (folder / "uncharacterized.txt").write_text("\n".join(["List of molecules", "=====", "#  Index", *lines, "====="]))
    (folder / "atomref.txt").write_text(ATOMREF)
    return folder


def write_md17(path: Path, frames: int = 1100, *, revised: bool) -> dict[str, np.ndarray]:
    """An npz file of water in a harmonic well, kcal/mol; the revised labels are the original ones less 10 kcal/mol."""
    rng = np.random.default_rng(0)
    still = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    shift = 0.05 * rng.normal(size=(frames, 3, 3))
    energies, forces = -47000 + 100 * (shift**2).sum((1, 2)), -200 * shift
    positions, charges = still + shift, np.array([8, 1, 1], np.uint8)
    if revised:
        arrays = {"nuclear_charges": charges, "coords": positions, "energies": energies - 10, "forces": 0.5 * forces}
        arrays |= {"old_indices": np.arange(frames), "old_energies": energies, "old_forces": forces}
    else:
        arrays = {"z": charges, "R": positions, "E": energies[:, None], "F": forces, "name": np.array("water", object)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return arrays


class _FloatStorage:
    """Pickled as PyTorch pickles a storage: a call of torch.storage._load_from_bytes with its old file format."""

    def __init__(self, values: np.ndarray):
        self.values = np.ascontiguousarray(values)

    def __reduce__(self):
        return sys.modules["torch.storage"]._load_from_bytes, (self.content(),)

    def content(self) -> bytes:
        kind = {"f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage"}[self.values.dtype.str[1:]]
        out = io.BytesIO()
        for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
            pickle.dump(value, out, protocol=2)
        pickler = pickle.Pickler(out, protocol=2)
        storage_type = getattr(sys.modules["torch"], kind)
        pickler.persistent_id = lambda value: (
            ("storage", storage_type, "7", "cpu", self.values.size, None) if value is self else None
        )
        pickler.dump(self)
        pickle.dump(["7"], out, protocol=2)
        out.write(self.values.size.to_bytes(8, "little") + self.values.tobytes())
        return out.getvalue()


class _Tensor:
    def __init__(self, values: np.ndarray):
        self.values = np.asarray(values)

    def __reduce__(self):
        strides = tuple(s // self.values.itemsize for s in np.ascontiguousarray(self.values).strides)
        storage = _FloatStorage(self.values.ravel())
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (storage, 0, self.values.shape, strides, False, {})


def pickled_by_torch(fields: dict[str, object], *, old: bool) -> bytes:
    """A PyTorch Geometric data object as pickle writes it, without either package.

    Args:
        fields: Its attributes; arrays become tensors.
        old: Attributes in the object itself, as before PyTorch Geometric 2, instead of in a storage object.
    """
    names = ("torch", "torch._utils", "torch.storage", "torch_geometric", "torch_geometric.data", "torch_geometric.data.data")
    modules = {name: types.ModuleType(name) for name in (*names, "torch_geometric.data.storage")}

    def make(module: str, name: str, kind: type | None = None):
        made = kind or types.FunctionType((lambda *_: None).__code__, {}, name)
        made.__module__, made.__qualname__, made.__name__ = module, name, name
        setattr(modules[module], name, made)
        return made

    make("torch._utils", "_rebuild_tensor_v2")
    make("torch.storage", "_load_from_bytes")
    for storage in ("FloatStorage", "DoubleStorage", "LongStorage"):
        make("torch", storage, type(storage, (), {}))
    data = make("torch_geometric.data.data", "Data", type("Data", (), {}))()
    attributes = {name: _Tensor(v) if isinstance(v, np.ndarray) else v for name, v in fields.items()}
    if old:
        data.__dict__.update(attributes)
    else:
        store = make("torch_geometric.data.storage", "GlobalStorage", type("GlobalStorage", (), {}))()
        store._mapping = attributes
        data._store = store
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        return pickle.dumps(data, protocol=4)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def write_lmdb(path: Path, records: dict[bytes, bytes]) -> Path:
    import lmdb

    path.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), subdir=False, map_size=1 << 24, lock=False) as environment, environment.begin(write=True) as out:
        for key, value in records.items():
            out.put(key, value)
    return path


def ase_row(fields: dict[str, object]) -> bytes:
    """A row as fairchem's ASE-LMDB holds it."""
    import json

    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}
    return zlib.compress(json.dumps(plain).encode())
