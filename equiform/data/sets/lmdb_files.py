"""The two kinds of LMDB that OC20 comes in, as plain records: pickled PyTorch Geometric objects, and fairchem's ASE-LMDB."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from equiform.data.sets.pyg_pickle import read_object
from equiform.errors import UserError

_RESERVED = (b"length", b"nextid", b"metadata", b"deleted_ids")


def read_records(path: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Records in the order of their numbers: place, number of records, and fields as arrays and numbers.

    Fields have the names of OC20's objects: pos, cell, atomic_numbers, tags, fixed, y_relaxed, pos_relaxed, …

    Args:
        path: The LMDB: a file, or a folder with `data.mdb`.

    Raises:
        UserError: The `lmdb` package is missing, it is not an LMDB, or a record is damaged or would have to be executed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise UserError("reading LMDBs needs one more package: pip install 'equiform[oc20]'") from error
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    try:
        environment = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, max_readers=1)
    except lmdb.Error as error:
        raise UserError(f"{path} is not a whole LMDB ({error}); fetch it again") from error
    with environment, environment.begin() as transaction:
        try:
            keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
        except lmdb.Error as error:
            raise UserError(f"{path} is damaged ({error}); fetch it again") from error
        unknown = [key for key in keys if not key.isdigit() and key not in _RESERVED]
        numbers = sorted((key for key in keys if key.isdigit()), key=int)
        if not numbers:
            some = f"; its keys are {', '.join(repr(key) for key in unknown[:3])}" if unknown else ""
            raise UserError(f"{path} holds no numbered records{some}")
        for key in numbers:
            where = f"{path}, record {key.decode()}"
            try:
                content = bytes(transaction.get(key) or b"")
                yield where, len(numbers), _record(content)
            except lmdb.Error as error:
                raise UserError(f"{where} cannot be read ({error}); fetch the file again") from error
            except UserError as error:
                raise UserError(f"{where}: {error}") from error


def _record(content: bytes) -> dict[str, Any]:
    if content[:1] == b"\x80":
        return read_object(content)
    try:
        text = zlib.decompress(content) if content[:1] == b"\x78" else content
        row = json.loads(text)
    except (zlib.error, ValueError) as error:
        raise UserError(f"it is neither a pickled object nor a row of an ASE database ({error})") from error
    if not isinstance(row, dict) or "positions" not in row or "numbers" not in row:
        raise UserError("it is not a row of an ASE database: it has no positions and numbers")
    return _from_row(row)


def _from_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of an ASE database under the names of OC20's objects."""
    data = row.get("data") or {}
    data = _plain(json.loads(data) if isinstance(data, str) else data)
    pairs = row.get("key_value_pairs") or {}
    record: dict[str, Any] = {**pairs, **data}
    record["pos"], record["atomic_numbers"] = _plain(row["positions"]), _plain(row["numbers"])
    cell = _plain(row.get("cell"))
    record["cell"] = cell.get("array") if isinstance(cell, dict) else cell
    if row.get("tags") is not None:
        record["tags"] = _plain(row["tags"])
    fixed = np.zeros(len(np.asarray(record["atomic_numbers"])), bool)
    constraints = row.get("constraints") or []
    for constraint in json.loads(constraints) if isinstance(constraints, str) else constraints:
        if constraint.get("name") == "FixAtoms":
            fixed[np.asarray(_plain(constraint["kwargs"]["indices"]), int)] = True
    record["fixed"] = fixed
    if row.get("energy") is not None:
        record.setdefault("y_relaxed", row["energy"])
    if row.get("forces") is not None:
        record["forces"] = _plain(row["forces"])
    return record


def _plain(value: Any) -> Any:
    """ASE writes an array as `{"__ndarray__": [shape, dtype, values]}`, orjson as nested lists."""
    if isinstance(value, dict) and "__ndarray__" in value:
        shape, dtype, values = value["__ndarray__"]
        return np.array(values, dtype).reshape(shape)
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return np.array(value) if isinstance(value, list) else value
