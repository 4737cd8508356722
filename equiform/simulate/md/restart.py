"""Restart files: everything that the rest of a run depends on, bit for bit, in one .npz without pickled
objects.

The positions for which the neighbour list was built are stored as well: they determine when the next list is built
and atoms are wrapped into the cell, and so how later sums are rounded.
"""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from equiform.errors import UserError
from equiform.runtime.files import explained, write_atomically
from equiform.simulate.md.integrator import Snapshot, State, TwoFloat
from equiform.simulate.md.trajectory import Frame, LogRow, Substance
from equiform.tasks.energy import Potential

FORMAT, FORMAT_VERSION = "equiform-md-restart", 1


class Restart(NamedTuple):
    """The content of a restart file.

    Attributes:
        settings: Plain values: configuration, statistics, counters, output files and their lengths.
        substance: Atoms, masses, cell, fixed atoms.
        state: The state on the device.
        reference: The positions for which the neighbour list was built.
        images: Periodic image of each atom.
        last: The last completed step, if any.
    """

    settings: dict[str, Any]
    substance: Substance
    state: State
    reference: TwoFloat
    images: Int[np.ndarray, "atoms 3"]
    last: Frame | None


def save_restart(path: Path, restart: Restart) -> None:
    """Write a restart file; an earlier one is replaced atomically."""
    substance, state, last = restart.substance, restart.state, restart.last
    settings = restart.settings | {  # restart.settings may come from an earlier restart file
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "step": int(state.step),
        "last": None if last is None else vars(last.row),
    }
    arrays: dict[str, Any] = {
        "settings": np.array(json.dumps(settings)),
        **{f"substance.{name}": value for name, value in vars(substance).items() if value is not None and name != "columns"},
        **{f"column.{name}": column for name, column in substance.columns.items()},
        "positions": np.stack(state.positions),
        "velocities": np.stack(state.velocities),
        "reference": np.stack(restart.reference),
        "images": restart.images,
    }
    if last is not None:
        arrays["last"] = np.stack([last.positions, last.velocities, last.forces])
    content = io.BytesIO()
    np.savez(content, **arrays)
    with explained(f"cannot write the restart file {path}", "free some space; an earlier one is kept"):
        write_atomically(path, content.getvalue())


def load_restart(path: Path) -> Restart:
    """Read a restart file; arrays keep the dtype they were saved with.

    Raises:
        UserError: It is missing, damaged, or not a restart file of this version.
    """
    try:
        # Through memory: NumPy leaves the file open when it is damaged.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        settings = json.loads(str(arrays["settings"]))
        if settings["format"] != FORMAT:
            raise KeyError(FORMAT)
        if settings["format_version"] != FORMAT_VERSION:
            version = settings["format_version"]
            raise UserError(f"{path} has format version {version}; this version of equiform reads {FORMAT_VERSION}")
        return _restored(settings, arrays)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such restart file") from None
    except OSError as error:
        raise UserError(f"cannot read the restart file {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a restart file of equiform md, or it is damaged") from error


def _restored(settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Restart:
    prefix = "substance."
    common: dict[str, Any] = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    common["comment"] = str(common.get("comment", ""))
    common["columns"] = {k.removeprefix("column."): v for k, v in arrays.items() if k.startswith("column.")}
    substance = Substance(**common)
    positions, velocities = (TwoFloat(*map(jnp.asarray, arrays[name])) for name in ("positions", "velocities"))
    last = None
    if settings["last"] is not None:
        last = Frame(LogRow(**settings["last"]), *arrays["last"])
    zero = jnp.zeros((), positions.high.dtype)
    nothing = Snapshot(jnp.asarray(-1, jnp.int32), positions, velocities.high, jnp.zeros_like(velocities.high), zero, zero)
    state = State(jnp.asarray(settings["step"], jnp.int32), positions, velocities, nothing)
    reference = TwoFloat(*map(jnp.asarray, arrays["reference"]))
    return Restart(settings, substance, state, reference, arrays["images"], last)


def fingerprint(potential: Potential) -> str:
    """A checksum of weights and energy scale, to detect that a run is resumed with another model."""
    digest = hashlib.sha256(f"{potential.scale!r} {potential.shift!r} {potential.anchored!r}".encode())
    for leaf in jax.tree.leaves(potential):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
