"""The stored references of the official code, as graphs, models and expected values."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from equiform.graph import Graph
from equiform.models.equiformer import Equiformer, EquiformerConfig
from equiform.models.presets import preset
from equiform.persist.official.names import official_shapes, with_official_state

SMALL = (
    "qm9_small_nonlinear",
    "qm9_small_linear",
    "qm9_small_dp",
    "qm9_small_bessel",
    "qm9_small_e3",
    "md17_small_l2",
    "md17_small_l3",
    "oc20_small_aux",
)
FULL = {"qm9_full_nonlinear": "qm9-l2-nonlinear", "md17_full_l2": "md17-l2"}
_PRESETS = {"qm9": "qm9-l2-nonlinear", "md17": "md17-l2", "oc20": "oc20-nonlinear"}


def config_of(folder: Path, product: str = "aligned") -> EquiformerConfig:
    """The configuration of a stored model."""
    if folder.name in FULL:
        return preset(FULL[folder.name], product=product)
    meta = json.loads((folder / "meta.json").read_text())
    stored = meta["config"]
    dot = meta["cls"].startswith("DotProduct")
    fields: dict[str, Any] = {
        "irreps": stored["irreps_node_embedding"],
        "irreps_sh": stored["irreps_edge_attr"],
        "irreps_head": stored["irreps_head"],
        "irreps_mlp": stored["irreps_mlp_mid"],
        "irreps_feature": stored["irreps_feature"],
        "num_heads": int(stored["num_heads"]),
        "num_layers": int(stored["num_layers"]),
        "basis": stored.get("basis_type", "gaussian"),
        "num_basis": int(stored["number_of_basis"]),
        "radial_widths": tuple(json.loads(stored["fc_neurons"]))[1:],
        "message": "nonlinear" if stored["nonlinear_message"] == "True" else "linear",
        "attention": "dot" if dot else "mlp",
        "product": product,
    }
    if stored.get("use_auxiliary_task") == "True":
        fields |= {"vector_readouts": ("aux",), "irreps_message": stored["irreps_pre_attn"]}
    return preset(_PRESETS[folder.name.split("_")[0]], **fields)


def model_of(folder: Path, product: str, dtype: Any, *, key: Any) -> Equiformer:
    """The stored model with its weights, in the given precision."""
    model, state = Equiformer(config_of(folder, product), key=key), state_of(folder)
    shapes = official_shapes(model)
    if shapes != {name: array.shape for name, array in state.items()}:
        raise ValueError(f"{folder.name}: our parameters do not have the official names and shapes")
    return with_official_state(model, state, dtype)


def state_of(folder: Path) -> dict[str, np.ndarray]:
    """The weights of a stored model by official name, float32."""
    if folder.name in FULL:
        formula = json.loads((folder / "weights_formula.json").read_text())
        return {name: formula_weights(name, **entry) for name, entry in formula.items()}
    with np.load(folder / "state_f32.npz") as archive:
        return {name: archive[name] for name in archive.files}


def formula_weights(name: str, shape: list[int], mean: float, std: float) -> np.ndarray:
    """Reproducible weights that depend only on the name, float32."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return (mean + std * rng.standard_normal(shape)).astype(np.float32)


def graph_of(inputs: Any) -> Graph:
    """A stored input as a host graph."""
    num_atoms, num_graphs, num_edges = len(inputs["z"]), int(inputs["batch"].max()) + 1, len(inputs["edge_src"])
    periodic = "cell" in inputs.files
    return Graph(
        positions=inputs["pos"],
        species=inputs["z"].astype(np.int32),
        senders=inputs["edge_src"].astype(np.int32),
        receivers=inputs["edge_dst"].astype(np.int32),
        shifts=inputs["cell_offsets"].astype(np.int32) if periodic else np.zeros((num_edges, 3), np.int32),
        cell=inputs["cell"] if periodic else np.zeros((num_graphs, 3, 3)),
        graph_index=inputs["batch"].astype(np.int32),
        atom_mask=np.ones(num_atoms, bool),
        edge_mask=np.ones(num_edges, bool),
        graph_mask=np.ones(num_graphs, bool),
        node_fields={"tags": inputs["tags"].astype(np.int32)} if "tags" in inputs.files else {},
    )


def relative_error(got: Any, expected: np.ndarray) -> float:
    """Maximum deviation relative to the maximum expected magnitude."""
    return float(np.abs(np.asarray(got) - expected).max() / np.abs(expected).max())


def stage_errors(stages: Any, result: dict[str, Any], expected: Any) -> dict[str, float]:
    """Relative errors of everything stored for a case: features after each block, attention, outputs.

    Args:
        stages: `Equiformer.stages` of the input.
        result: The potential's energy, forces and vectors.
        expected: The stored arrays by name.
    """
    errors = {}
    if "node_features0" in expected:
        errors["embedding"] = relative_error(stages.embedding.to_mul_ir(), expected["node_features0"])
    for i, block in enumerate(stages.blocks):
        stored = expected[f"blocks.{i}"]
        errors[f"block {i}"] = relative_error(block.to_mul_ir()[: len(stored)], stored)
    for i, attention in enumerate(stages.attention):
        name = "attn_softmax.block0" if i == 0 else f"attn_softmax.call{i}"
        if name in expected:
            errors[f"attention {i}"] = relative_error(attention, expected[name].reshape(attention.shape))
    stored = expected["norm"]
    errors["norm"] = relative_error(stages.feature.to_mul_ir()[: len(stored)], stored)
    errors["energy"] = relative_error(result["energy"], expected["out.energy"][:, 0])
    errors["forces"] = relative_error(result["forces"], expected["out.forces"])
    if "out.aux" in expected:
        errors["vectors"] = relative_error(result["aux"], expected["out.aux"])
    return errors
