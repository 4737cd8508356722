"""The stored cases of the authors' GATr as models of ours with their inputs."""

import json
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equiform.models.gatr import GATr, GATrConfig
from equiform.models.gatr_axial import AxialGATr, AxialGATrConfig
from equiform.persist.official.gatr import official_gatr_state, with_official_gatr_state


def load(folder: Path, name: str) -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"{name}.npz"))


def stored_model(folder: Path) -> GATr | AxialGATr:
    """The model of a stored case, with its parameters."""
    meta = json.loads((folder / "meta.json").read_text())
    official = meta["config"]
    attention = official["attention"]
    config = GATrConfig(
        in_channels=official["in_mv"],
        out_channels=official["out_mv"],
        channels=official["hidden_mv"],
        in_scalars=official["in_s"] or 0,
        out_scalars=official["out_s"] or 0,
        scalars=official["hidden_s"],
        num_blocks=official["blocks"],
        num_heads=attention.get("num_heads", 8),
        multi_query=attention.get("multi_query", True),
        reinserted_channels=tuple(official.get("reinsert_mv", ())),
        reinserted_scalars=tuple(official.get("reinsert_s", ())),
        activation=official.get("activation", "gelu"),
        join_reference=meta.get("join_reference", "data"),
        rotary=attention.get("pos_encoding", False),
        init="published",
    )
    model: Any
    if official["cls"] == "GATr":
        model = GATr(config, key=jax.random.key(0))
    else:
        model = AxialGATr(AxialGATrConfig(layers=config, rotary=tuple(official["pos_encodings"])), key=jax.random.key(0))
    if (folder / "state_f64.npz").exists():
        return with_official_gatr_state(model, load(folder, "state_f64"))
    return with_official_gatr_state(model, formula_weights(folder))


def formula_weights(folder: Path) -> dict[str, np.ndarray]:
    state = {}
    for name, entry in json.loads((folder / "weights_formula.json").read_text()).items():
        draws = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(entry["shape"])
        state[name] = (entry["mean"] + entry["std"] * draws).astype(np.float32).astype(float)
    return state


def probe(name: str, gradient: np.ndarray) -> float:
    """Σ gradient · a random array known by its name."""
    draws = np.random.default_rng(zlib.crc32(f"probe:{name}".encode())).standard_normal(gradient.shape)
    return float((gradient * draws.astype(np.float32)).sum())


def gradients(model: Any) -> dict[str, np.ndarray]:
    return official_gatr_state(model)


def relative(ours: Any, stored: Any) -> float:
    """Largest difference over the largest stored magnitude."""
    scale = float(np.abs(stored).max())
    return float(np.abs(np.asarray(ours) - np.asarray(stored)).max()) / (scale or 1.0)


def arrays(*values: np.ndarray | None) -> list[jax.Array | None]:
    return [None if value is None else jnp.asarray(value) for value in values]
