"""Parameters of the authors' GATr and ours: the same numbers under other names.

Scalar weights are (in, out) here and (out, in) there; the blocks of `GATr` are stacked along a first axis; `bias` and
`log_weights` lack an axis of length one. Everything else keeps its shape.

Source: authors' code of Brehmer et al. (arXiv:2305.18415), release 1.4.3.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from equiform.errors import UserError
from equiform.models.gatr import Block, GATr
from equiform.models.gatr_axial import AxialGATr
from equiform.nn import init
from equiform.nn.multivector import MultivectorLinear

Model = GATr | AxialGATr
Entry = tuple[str, Callable[[Any], Array], Callable[[Any], Any]]
"""A name's end, where the array is, and its official form from ours or ours from it: a transposition, or a reshape."""


def official_gatr_state(model: Model) -> dict[str, np.ndarray]:
    """All parameters by their official names; of gradients too, which have the structure of a model."""
    parts = {"linear_in": model.linear_in, "linear_out": model.linear_out}
    state = {f"{prefix}.{name}": value for prefix, layer in parts.items() for name, value in _layer_state(layer)}
    for i, block in enumerate(_blocks(model)):
        for prefix, where in _layers(block):
            state |= {f"blocks.{i}.{prefix}.{name}": value for name, value in _layer_state(where(block))}
        if block.attention.log_weights is not None:
            state[f"blocks.{i}.{_LOG_WEIGHTS}"] = np.asarray(block.attention.log_weights)[:, None]
    return state


def with_official_gatr_state(model: Model, state: Mapping[str, np.ndarray]) -> Model:
    """The model with these parameters.

    Args:
        model: A model of the configuration that the parameters are of.
        state: Arrays by their official names.

    Raises:
        UserError: If a name is missing or left over, or an array has another shape.
    """
    state = {name: value for name, value in state.items() if not name.endswith("pos_encoding.inv_freq")}  # no parameter
    shapes = {name: value.shape for name, value in official_gatr_state(model).items()}
    for what, names in (("lacks", shapes.keys() - state.keys()), ("has no place for", state.keys() - shapes.keys())):
        if names:
            owner = "the official state" if what == "lacks" else "the model"
            raise UserError(f"{owner} {what} {min(names)} and {len(names) - 1} more parameters; is it of this configuration?")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise UserError(f"{name} has shape {state[name].shape} in the official state, and {shape} in the model")
    blocks = []
    for i, block in enumerate(_blocks(model)):
        for prefix, where in _layers(block):
            block = eqx.tree_at(where, block, _with_state(where(block), f"blocks.{i}.{prefix}", state))
        if block.attention.log_weights is not None:
            weights = state[f"blocks.{i}.{_LOG_WEIGHTS}"][:, 0]
            block = eqx.tree_at(lambda b: b.attention.log_weights, block, jax.numpy.asarray(weights))
        blocks.append(block)
    replaced = (
        _with_state(model.linear_in, "linear_in", state),
        _with_state(model.linear_out, "linear_out", state),
        init.stack(blocks) if isinstance(model, GATr) else blocks,
    )
    return eqx.tree_at(lambda m: (m.linear_in, m.linear_out, m.blocks), model, replaced)


_LOG_WEIGHTS = "attention.attention.log_weights"


def _blocks(model: Model) -> list[Block]:
    if isinstance(model, AxialGATr):
        return model.blocks
    return [jax.tree.map(lambda leaf, i=i: leaf[i], model.blocks) for i in range(model.config.num_blocks)]


def _layers(block: Block) -> Iterator[tuple[str, Callable[[Block], MultivectorLinear]]]:
    """Official name and place of each linear layer of a block."""
    names = ("q_linear", "k_linear", "v_linear") if block.config.multi_query else ("in_linear",)
    for i, name in enumerate(names):
        yield f"attention.qkv_module.{name}", lambda b, i=i: b.attention.inputs[i]
    yield "attention.out_linear", lambda b: b.attention.out
    for i, name in enumerate(("left", "right", "join_left", "join_right")[: len(block.products.factors)]):
        yield f"mlp.layers.0.linear_{name}", lambda b, i=i: b.products.factors[i]
    yield "mlp.layers.0.linear_out", lambda b: b.products.mix
    # A dropout layer stands before the last one where there is any.
    yield f"mlp.layers.{3 if block.config.dropout else 2}", lambda b: b.products.out


def _entries(layer: MultivectorLinear) -> Iterator[Entry]:
    yield "weight", lambda x: x.weight, lambda a: a
    if layer.from_scalars is None:
        yield "bias", lambda x: x.bias, lambda a: a[:, None] if a.ndim == 1 else a[:, 0]
    else:
        yield "s2mvs.weight", lambda x: x.from_scalars.weight, lambda a: a.T
        yield "s2mvs.bias", lambda x: x.from_scalars.bias, lambda a: a
    if layer.to_scalars is not None:
        yield "mvs2s.weight", lambda x: x.to_scalars.weight, lambda a: a.T
        yield "mvs2s.bias", lambda x: x.to_scalars.bias, lambda a: a
    if layer.scalars is not None:
        yield "s2s.weight", lambda x: x.scalars, lambda a: a.T


def _layer_state(layer: MultivectorLinear) -> Iterator[tuple[str, np.ndarray]]:
    for name, where, convert in _entries(layer):
        yield name, np.asarray(convert(where(layer)))


def _with_state(layer: MultivectorLinear, prefix: str, state: Mapping[str, np.ndarray]) -> MultivectorLinear:
    for name, where, convert in _entries(layer):
        layer = eqx.tree_at(where, layer, jax.numpy.asarray(convert(state[f"{prefix}.{name}"])))
    return layer
