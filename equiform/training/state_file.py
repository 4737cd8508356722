"""State of a small training loop in one file: parameters and optimizer by name, the step, and the seconds spent."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load, save

from equiform.persist.parameters import filled, named
from equiform.runtime.files import explained, write_atomically


def save_state(file: Path, tree: Any, step: int, seconds: float) -> None:
    """Write a state, atomically.

    Args:
        file: Where; replaced if it is there.
        tree: Arrays.
        step: Steps done.
        seconds: Seconds spent.
    """
    arrays = {name: np.asarray(value) for name, value in named(tree).items()}
    arrays |= {"step": np.asarray(step), "seconds": np.asarray(seconds)}
    with explained(f"cannot write {file}", "free some space or choose another folder"):
        write_atomically(file, save(arrays))


def restored_state(file: Path, like: Any) -> tuple[Any, int, float]:
    """A state, the steps done and the seconds spent.

    Args:
        file: An existing file.
        like: Arrays of the same structure.

    Raises:
        UserError: The file is of another model.
    """
    with explained(f"cannot read {file}", "check its permissions"):
        arrays = load(file.read_bytes())
    step, seconds = int(arrays.pop("step")), float(arrays.pop("seconds"))
    return jax.tree.map(jnp.asarray, filled(like, arrays, str(file))), step, seconds
