"""The stored cases of the authors' GATr: models of ours with their parameters and inputs, and the errors of what they give.

`python -m benchmarks.parity` prints them with the other models' cases; the tests hold them to `SMALL` and `PUBLISHED`.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.algebra.clifford import projective
from equiform.models.gatr import GATr, GATrConfig
from equiform.models.gatr_axial import AxialGATr, AxialGATrConfig
from equiform.persist.official.gatr import official_gatr_state, with_official_gatr_state

SMALL = {
    "noscalar_small": 1e-12,
    "scalar_small": 1e-12,
    "multihead_mask": 1e-12,
    "rope_canonical_relu": 1e-9,
    "axial_small": 1e-9,
}
"""Small cases and their limits in float64; the reference keeps the tables of its rotary encoding in float32."""
PUBLISHED = ("nbody_published", "arteries_published")
"""The published networks: 1e-12, their gradients 1e-9."""
MASKS = ("bool_block2d", "bool_4d", "float_4d")

Errors = dict[str, float]


def load(folder: Path, name: str) -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"{name}.npz"))


def stored_model(folder: Path) -> GATr | AxialGATr:
    """The model of a stored case, with its parameters."""
    meta = json.loads((folder / "meta.json").read_text())
    official = meta["config"]
    attention = official["attention"]
    config = GATrConfig.model_validate(
        {
            "in_channels": official["in_mv"],
            "out_channels": official["out_mv"],
            "channels": official["hidden_mv"],
            "in_scalars": official["in_s"] or 0,
            "out_scalars": official["out_s"] or 0,
            "scalars": official["hidden_s"],
            "num_blocks": official["blocks"],
            "num_heads": attention.get("num_heads", 8),
            "multi_query": attention.get("multi_query", True),
            "reinserted_channels": tuple(official.get("reinsert_mv", ())),
            "reinserted_scalars": tuple(official.get("reinsert_s", ())),
            "activation": official.get("activation", "gelu"),
            "join_reference": meta.get("join_reference", "data"),
            "rotary": attention.get("pos_encoding", False),
            "init": "published",
        }
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


def relative(ours: Any, stored: Any) -> float:
    """Largest difference over the largest stored magnitude."""
    scale = float(np.abs(stored).max())
    return float(np.abs(np.asarray(ours) - np.asarray(stored)).max()) / (scale or 1.0)


def small_errors(folder: Path) -> tuple[Errors, Errors]:
    """Errors of a small case: of outputs, block activations and input gradients, and of parameter gradients."""
    axial = folder.name == "axial_small"
    model, inputs, stored = stored_model(folder), load(folder, "inputs"), load(folder, "outputs_none")
    x, s = jnp.asarray(inputs["mv"]), jnp.asarray(inputs.get("s", np.zeros((*inputs["mv"].shape[:-2], 0))))

    def loss(model: Any, x: Any, s: Any) -> Any:
        states = model.hidden_states(x, s)
        y, t = model.linear_out(*(states[-1] if axial else [part[-1] for part in states]))
        total = (y * stored["loss_weight.mv"]).sum()
        return (total + (t * stored["loss_weight.s"]).sum() if t.shape[-1] else total), (y, t, states)

    function = eqx.filter_jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (value, (y, t, states)), (of_model, of_x, of_s) = function(model, x, s)
    found = {"out.mv": y, "loss": value, "grad_in.mv": of_x}
    if "out.s" in stored:
        found["out.s"] = t
    if "grad_in.s" in stored:
        found["grad_in.s"] = of_s
    for i, (mv, scalars) in enumerate(states if axial else zip(*states)):
        odd = axial and i % 2  # stored along the axis that the block attends along
        found[f"blocks.{i}.mv"] = jnp.swapaxes(mv, 1, 2) if odd else mv
        found[f"blocks.{i}.s"] = jnp.swapaxes(scalars, 1, 2) if odd else scalars
    grads, reference = official_gatr_state(of_model), load(folder, "param_grads_none")
    if missing := reference.keys() - {f"grad.{name}" for name in grads}:
        raise KeyError(f"no gradients of {', '.join(sorted(missing))}")
    largest = max(np.abs(value).max() for value in reference.values())
    slopes = {name: np.abs(grads[name] - reference.get(f"grad.{name}", 0)).max() / largest for name in grads}
    return {name: relative(ours, stored[name]) for name, ours in found.items()}, slopes


def mask_errors(folder: Path, mask: str) -> Errors:
    """Errors of the case of masks, with one of them."""
    model, inputs, stored = stored_model(folder), load(folder, "inputs"), load(folder, f"outputs_{mask}")
    function = eqx.filter_jit(lambda m, x, s, mask: m(x, s, mask=mask))
    y, t = function(model, *(jnp.asarray(inputs[name]) for name in ("mv", "s", f"mask.{mask}")))
    return {"out.mv": relative(y, stored["out.mv"]), "out.s": relative(t, stored["out.s"])}


def nbody_outputs(model: Any, x: jax.Array, y: jax.Array) -> Any:
    """Loss of the published n-body network, and its parts.

    Args:
        model: The network.
        x: Masses, positions and velocities.
        y: Positions afterwards.
    """
    tokens = projective.point(x[..., 1:4]) + projective.translation(x[..., 4:])
    tokens = tokens.at[..., 0].add(x[..., 0])[..., None, :]
    out, scalars = model(tokens, jnp.zeros((*x.shape[:2], 1)))
    prediction = projective.extract_point(out[..., 0, :])
    error = (projective.point_weight_error(out[..., 0, :]) + (scalars**2).sum(-1)).sum(-1)
    mse = ((prediction - y) ** 2).mean()
    return mse + 0.01 * error.mean(), {"pred": prediction, "mse": mse}


def artery_outputs(model: Any, folder: Path) -> Any:
    """Loss of the published artery network, its outputs and activations."""
    inputs, stored = load(folder, "inputs"), load(folder, "outputs_f64")
    x, s, mask = (jnp.asarray(inputs[name]) for name in ("mv", "s", "mask"))
    states = model.hidden_states(x, s, mask=mask)
    out, scalars = model.linear_out(*(part[-1] for part in states))
    wss = projective.extract_plane(out[..., 0, :])[0]  # the task multiplies by 53.836
    blocks = {f"blocks.{i}.{n}": value[i] for n, value in zip(("mv", "s"), states) for i in range(model.config.num_blocks)}
    return (wss * stored["loss_weight"]).sum(), {"wss": wss, "out_mv": out, "out_s": scalars} | blocks


def published_errors(folder: Path) -> Errors:
    """Errors of a published network's outputs, loss and activations."""
    model, stored = stored_model(folder), load(folder, "outputs_f64")
    if folder.name == "nbody_published":
        inputs = load(folder, "inputs")
        value, found = eqx.filter_jit(nbody_outputs)(model, jnp.asarray(inputs["x"]), jnp.asarray(inputs["y"]))
    else:
        value, found = eqx.filter_jit(lambda model: artery_outputs(model, folder))(model)
    return {name: relative(ours, stored[name]) for name, ours in ({"loss": value} | found).items()}


def all_errors(folder: Path) -> dict[str, tuple[float, float]]:
    """The largest error of every stored case under the references' `gatr`, and its limit; gradients of the small cases too."""
    found: dict[str, tuple[float, float]] = {}
    for case, limit in SMALL.items():
        outputs, slopes = small_errors(folder / case)
        found[case] = max(outputs.values()), limit
        found[f"{case}, parameter gradients"] = max(slopes.values()), limit
    for mask in MASKS:
        found[f"multihead_mask, {mask}"] = max(mask_errors(folder / "multihead_mask", mask).values()), 1e-12
    for case in PUBLISHED:
        found[case] = max(published_errors(folder / case).values()), 1e-12
    return found
