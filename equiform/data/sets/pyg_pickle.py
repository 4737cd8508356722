"""PyTorch Geometric objects as OC20's LMDBs hold them, read without PyTorch and without executing anything.

A pickle is a program; this one may call nothing but what is written here: it builds plain attributes, containers and NumPy
arrays. A tensor is a storage (PyTorch's own old file format, again a pickle, then raw bytes) with a shape and strides.
"""

import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

from equiform.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "UntypedStorage": "<u1",
    "BoolStorage": "?",
}
_PLAIN = {("collections", "OrderedDict"): OrderedDict, ("builtins", "set"): set, ("builtins", "slice"): slice}
_OPAQUE = ("torch_geometric.",)


class _Bag:
    """Stands for any object of PyTorch Geometric: its attributes, and no behaviour."""

    attributes: dict[str, Any]

    def __new__(cls, *_: Any) -> "_Bag":  # A pickle makes objects without __init__.
        bag = super().__new__(cls)
        bag.attributes = {}
        return bag

    def __setstate__(self, state: Any) -> None:
        # With slots a state is (attributes, slots).
        for part in state if isinstance(state, tuple) else (state,):
            self.attributes.update(part or {})


class _StorageType:
    """Stands for a class of storages; all that matters is its name."""

    def __init__(self, name: str):
        self.name = name


def read_object(content: bytes) -> dict[str, Any]:
    """The attributes of a pickled data object: NumPy arrays, numbers, texts.

    Raises:
        UserError: It requests anything that is not on the list of harmless names, or is damaged.
    """
    try:
        found = _Unpickler(io.BytesIO(content)).load()
        attributes = found.attributes if isinstance(found, _Bag) else found
        if not isinstance(attributes, dict):
            raise UserError(f"the record holds a {type(found).__name__}, not a data object")
        store = attributes.get("_store")
        if isinstance(store, _Bag):  # Newer versions keep everything in a storage object.
            attributes = store.attributes.get("_mapping", {})
    except UserError:
        raise
    except Exception as error:  # A damaged pickle can fail in any way.
        raise UserError(f"the record is damaged: {type(error).__name__}: {error}") from error
    plain = {name: value.value if isinstance(value, _Array) else value for name, value in attributes.items()}
    return {name: value for name, value in plain.items() if not isinstance(value, _Bag) and value is not None}


class _Unpickler(pickle.Unpickler):
    """Knows a handful of names and refuses every other one."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if module.startswith(_OPAQUE):
            return _Bag
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _load_storage
        if module.startswith("torch") and name in _DTYPES:
            return _StorageType(name)
        if (module, name) == ("torch", "Size"):
            return tuple
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _Array
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _scalar
        if (module, name) == ("numpy", "ndarray"):
            return _Array
        if (module, name) == ("numpy", "dtype"):
            return _Dtype
        raise UserError(f"the record asks for {module}.{name}, which is not executed here")


class _StorageUnpickler(_Unpickler):
    """Also resolves the storages that a tensor file refers to."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.storages: dict[str, tuple[str, int]] = {}

    def persistent_load(self, reference: Any) -> Any:
        kind, storage_type, key, _, count = reference[:5]
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise UserError(f"the record refers to a {kind!r}, which is not known here")
        self.storages[key] = (storage_type.name, int(count))
        return key


def _load_storage(content: bytes) -> np.ndarray:
    """PyTorch's format before 1.6: magic number, version, system, the object, the keys, then the bytes of each storage."""
    file = io.BytesIO(content)
    if _Unpickler(file).load() != _MAGIC:
        raise UserError("the record holds a tensor in a format that is not known here")
    _Unpickler(file).load()
    system = _Unpickler(file).load()
    if not system.get("little_endian", True):
        raise UserError("the record was written on a big-endian machine, which is not supported")
    unpickler = _StorageUnpickler(file)
    unpickler.load()
    keys = _Unpickler(file).load()
    if len(keys) != 1:
        raise UserError(f"the record holds {len(keys)} storages where one was expected")
    name, count = unpickler.storages[keys[0]]
    dtype = np.dtype(_DTYPES[name])
    stored = int.from_bytes(file.read(8), "little")
    data = file.read(stored * dtype.itemsize)
    if stored != count or len(data) != stored * dtype.itemsize:
        raise UserError(f"the record is cut off: {len(data)} bytes of {count} numbers")
    return np.frombuffer(data, dtype)


def _rebuild_tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    if not isinstance(storage, np.ndarray):
        raise UserError("the record holds a tensor without a storage")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if min((offset, *size, *stride), default=0) < 0 or (np.prod(size) and last >= len(storage)):
        raise UserError(f"the record holds a tensor of {size} that its {len(storage)} numbers do not fill")
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, [s * storage.itemsize for s in stride])
    return view.copy()


class _Dtype:
    """Stands for a NumPy type: its name, and the order of bytes that the pickle adds."""

    def __init__(self, text: str, *_: Any):
        self._text, self._order = str(text), "|"

    def __setstate__(self, state: Any) -> None:
        self._order = state[1]

    def numpy(self) -> np.dtype:
        dtype = np.dtype(self._text)
        if dtype.kind not in "biuf":
            raise UserError(f"the record holds an array of {self._text}, which is not read")
        return dtype.newbyteorder(">") if self._order == ">" else dtype


class _Array:
    """Stands for a NumPy array while it is put together."""

    def __init__(self, *_: Any):
        self.value = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(content, bytes) or not isinstance(dtype, _Dtype):
            raise UserError("the record holds an array of Python objects, which is not read")
        self.value = np.frombuffer(content, dtype.numpy()).reshape(shape, order="F" if fortran else "C")


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype.numpy())[0].item()
