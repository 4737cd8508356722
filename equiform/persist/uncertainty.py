"""The uncertainty of a model, in a file beside its weights: `uncertainty.safetensors`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_safetensors

from equiform.errors import UserError
from equiform.persist.modelfile import CONFIG_FILE
from equiform.runtime.files import explained, write_atomically
from equiform.tasks.uncertainty import LastLayer, MemberSpread, Spread

UNCERTAINTY_FILE = "uncertainty.safetensors"


def save_uncertainty(model: Path, spread: Spread, about: Mapping[str, Any]) -> Path:
    """Write the uncertainty of a model into its folder.

    Args:
        model: The model's folder.
        spread: Calibrated.
        about: What it was calibrated on, as plain values.

    Raises:
        UserError: The file cannot be written.
    """
    arrays = {"whitening": np.asarray(spread.whitening)} if isinstance(spread, LastLayer) else {}
    content = {
        "kind": "last layer" if arrays else "committee",
        "energy_factor": spread.energy_factor,
        "forces_factor": spread.forces_factor,
        "weights": _weights_of(model),
        "about": dict(about),
    }
    file = model / UNCERTAINTY_FILE
    with explained(f"cannot write {file}", "free some space or check its permissions"):
        write_atomically(file, save_safetensors(arrays, metadata={"content": json.dumps(content)}))
    return file


def load_uncertainty(model: Path) -> Spread | None:
    """The uncertainty of a model; None if none was calibrated.

    Raises:
        UserError: The file is damaged or of other weights.
    """
    file = model / UNCERTAINTY_FILE
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="numpy") as opened:
            content = json.loads((opened.metadata() or {})["content"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is not a mapping
        factors = {"energy_factor": float(content["energy_factor"]), "forces_factor": float(content["forces_factor"])}
        kind, weights = content["kind"], content["weights"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is damaged ({type(error).__name__}); make it again with: equiform uncertainty") from error
    if weights != _weights_of(model):
        raise UserError(f"{file} belongs to other weights; make it again with: equiform uncertainty {model}")
    if kind == "committee":
        return MemberSpread(**factors)
    with jax.enable_x64(True):  # Otherwise float64 numbers would be truncated.
        return LastLayer(whitening=jnp.asarray(arrays["whitening"]), **factors)


def _weights_of(model: Path) -> str:
    return json.loads((model / CONFIG_FILE).read_bytes())["weights"]["sha256"]
