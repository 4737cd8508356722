"""Compiled programs that a later start loads without tracing them again.

JAX's persistent cache is keyed by the lowered program, so even a hit traces and lowers the model first: seconds for a training
step. Here the key is what the program is made from: the model's description, the settings, the shapes of the arguments, this
package's source text and the versions of the packages that determine the numbers. Programs with a part that cannot be
described completely, such as a function or a foreign class, are not stored, nor is any if the persistent cache is disabled.
"""

import dataclasses
import hashlib
import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import numpy as np
from jax.experimental.serialize_executable import deserialize_and_load, serialize
from pydantic import BaseModel

from equiform.errors import UserError
from equiform.runtime.cache import processor
from equiform.runtime.files import write_atomically
from equiform.runtime.versions import package_versions

MOST_PROGRAMS = 24
"""Maximum number of stored programs; the oldest ones are deleted."""
SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_disable_jit",
)
"""JAX options that affect tracing."""


class Indescribable(Exception):
    """Something has no complete description."""


def load_or_compile(identity: Any, arguments: tuple, results: Any, compile: Callable[[], Any]) -> Any:
    """The program from the store, or else a newly compiled one, which is stored if possible.

    Args:
        identity: Everything except the arguments that determines what the program computes.
        arguments: Its arguments.
        results: A tree with the structure of its results.
        compile: Traces, lowers and compiles it.
    """
    path = _path(identity, arguments)
    if path is None:
        return compile()
    in_tree, out_tree = jax.tree.structure((arguments, {})), jax.tree.structure(results)
    if path.is_file():
        try:
            return deserialize_and_load(path.read_bytes(), in_tree, out_tree)
        except (OSError, EOFError, ValueError, RuntimeError, pickle.UnpicklingError):
            pass  # truncated, or from another build of the same release: compile and store it again
    with _CacheHits() as hits:
        program = compile()
    if hits.count:  # JAX cannot serialise a program that it has deserialised: functions would be missing
        return program
    try:
        payload, *trees = serialize(program)
        if trees == [in_tree, out_tree]:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, payload)
            _tidy(path.parent)
    except (OSError, ValueError, NotImplementedError, RuntimeError, UserError):
        pass  # disk full or not writable, or unsupported by the device: do not store it
    return program


def describe(value: Any) -> str:
    """A text that two values share only if they are equivalent for tracing; arrays are described by their bytes.

    Raises:
        Indescribable: There is none for this kind of value.
    """
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    if isinstance(value, np.dtype):
        return f"dtype {value.str}"
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise Indescribable(type(value))
        return f"array {array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    kind = type(value)
    if isinstance(value, (tuple, list, set, frozenset)) and kind.__module__ == "builtins":
        parts = [describe(part) for part in value]
        return f"{kind.__name__}({', '.join(sorted(parts) if isinstance(value, (set, frozenset)) else parts)})"
    if isinstance(value, dict) and kind is dict:
        return f"dict({', '.join(f'{describe(name)}: {describe(part)}' for name, part in value.items())})"
    # The source text is part of the key for this package's own classes only.
    if kind.__module__.partition(".")[0] != "equiform":
        raise Indescribable(kind)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, BaseModel):
        return f"{name}{value.model_dump_json()}"
    if dataclasses.is_dataclass(value):
        parts = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        return f"{name}{describe(parts)}"
    if isinstance(value, tuple):  # a NamedTuple
        return f"{name}{describe(tuple(value))}"
    raise Indescribable(kind)


class _CacheHits:
    """Counts hits of JAX's own cache inside the block."""

    def __init__(self) -> None:
        self.count = 0

    def _listen(self, event: str, **kwargs: str | int) -> None:
        del kwargs
        self.count += event == "/jax/compilation_cache/cache_hits"

    def __enter__(self) -> "_CacheHits":
        jax.monitoring.register_event_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_listener(self._listen)


def _path(identity: Any, arguments: tuple) -> Path | None:
    """Path of the stored program; None if it cannot be stored."""
    config: Any = jax.config
    folder = config.jax_compilation_cache_dir
    if not folder or not config.jax_enable_compilation_cache or "://" in str(folder):
        return None
    try:
        known = describe(identity)
    except Indescribable:
        return None
    leaves, tree = jax.tree.flatten(arguments)
    shapes = [(leaf.dtype.str, leaf.shape, getattr(leaf, "weak_type", False)) for leaf in leaves]
    settings = [(name, str(getattr(config, name, None))) for name in SETTINGS]
    devices = [(device.platform, device.device_kind) for device in jax.devices()]
    machine = (devices, processor(), os.environ.get("XLA_FLAGS"), sorted(package_versions().items()), _source())
    text = repr((known, str(tree), shapes, settings, machine))
    return Path(folder) / "equiform-programs" / hashlib.sha256(text.encode()).hexdigest()


@cache
def _source() -> str:
    """A digest of this package's source text."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _tidy(folder: Path) -> None:
    files = sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_mtime)
    for path in files[:-MOST_PROGRAMS]:
        path.unlink(missing_ok=True)
