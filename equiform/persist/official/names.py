"""Mapping between official parameters and ours: one walk over the model, used for reading, writing and comparing.

Official linear weights are flat: blocks (channels in, channels out) per irrep, concatenated; torch matrices are (out, in).
Source: parameter names of atomicarchitects/equiformer, commit 64cb786.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.algebra.so3.products import Paths
from equiform.models.equiformer import AttentionLayer, Equiformer, FeedForward
from equiform.models.equiformer_attention import DotProductMessage, GraphAttention, LinearMessage
from equiform.models.equiformer_norm import EquivariantNorm
from equiform.models.equiformer_radial import BesselBasis, GaussianBasis, RadialMLP
from equiform.nn.linear import Linear


@runtime_checkable
class Exchange(Protocol):
    """Takes our arrays behind one official name, and returns the arrays that replace them."""

    def __call__(self, name: str, arrays: list[Any], to_official: Callable[[list[Any]], Any]) -> list[Any]: ...


def official_state(model: Equiformer) -> dict[str, np.ndarray]:
    """All parameters under their official names, in official shapes and in the order of the official modules."""
    state: dict[str, np.ndarray] = {}

    def write(name: str, arrays: list[Any], to_official: Callable[[list[Any]], Any]) -> list[Any]:
        state[name] = np.asarray(to_official([np.asarray(array) for array in arrays]))
        return arrays

    walk(model, write)
    return state


def official_shapes(model: Equiformer) -> dict[str, tuple[int, ...]]:
    """Shapes of all official parameters; the model may be abstract (`equinox.filter_eval_shape`)."""
    zeros = jax.tree.map(
        lambda leaf: np.broadcast_to(np.zeros((), np.float32), leaf.shape) if hasattr(leaf, "shape") else leaf,
        model,
    )
    return {name: array.shape for name, array in official_state(zeros).items()}


def with_official_state(model: Equiformer, state: dict[str, np.ndarray], dtype: Any) -> Equiformer:
    """A copy of the model with the official parameters filled in; shapes must match (`official_shapes`)."""

    def read(name: str, arrays: list[Any], to_official: Callable[[list[Any]], Any]) -> list[Any]:
        # Invert the packing by packing the indices of our elements.
        sizes = np.cumsum([0] + [int(np.prod(array.shape)) for array in arrays])
        numbered = [
            np.arange(start, start + int(np.prod(array.shape))).reshape(array.shape) for start, array in zip(sizes, arrays)
        ]
        positions = np.asarray(to_official(numbered)).ravel()
        values = np.empty(sizes[-1], state[name].dtype)
        values[positions] = state[name].ravel()
        return [
            jnp.asarray(values[start : start + int(np.prod(array.shape))].reshape(array.shape), dtype)
            for start, array in zip(sizes, arrays)
        ]

    return walk(model, read)


def walk(model: Equiformer, exchange: Exchange) -> Equiformer:
    """Visit every parameter of a model by its official name; returns the model with the arrays that `exchange` returned."""
    parts: dict[str, Any] = {}
    parts["species_embedding"] = _linear(model.species_embedding, "atom_embed.atom_type_lin", exchange)
    if model.tag_embedding is not None:
        parts["tag_embedding"] = _linear(model.tag_embedding, "tag_embed.atom_type_lin", exchange)
    parts["basis"] = _basis(model.basis, exchange)
    degree = model.degree_embedding
    parts["degree_embedding"] = _replace(
        degree,
        constant=_linear(degree.constant, "edge_deg_embed.exp", exchange),
        radial=_radial(degree.radial, degree.paths, "edge_deg_embed.rad", exchange),
        linear=_linear(degree.linear, "edge_deg_embed.proj", exchange, degree.paths),
    )
    attention, mixed = [], []
    last = model.config.num_layers - 1
    for i in range(last + 1):
        layer = _unstacked(model.attention_layers, i)
        attention.append(_attention_layer(layer, f"blocks.{i}", exchange))
        mix = model.last_feed_forward if i == last else _unstacked(model.feed_forwards, i)
        mixed.append(_feed_forward(mix, f"blocks.{i}", exchange))
    parts["attention_layers"] = _stacked(attention)
    if model.feed_forwards is not None:
        parts["feed_forwards"] = _stacked(mixed[:-1])
    parts["last_feed_forward"] = mixed[-1]
    parts["norm"] = _norm(model.norm, "norm", exchange)
    if model.energy_attention is not None:
        parts["energy_attention"] = _attention(model.energy_attention, "head", exchange)
    if model.energy_hidden is not None and model.energy_out is not None:
        parts["energy_hidden"] = _linear(model.energy_hidden, "head.0", exchange)
        parts["energy_out"] = _linear(model.energy_out, "head.2", exchange)
    if model.vector_head is not None:
        parts["vector_head"] = _attention(model.vector_head, "auxiliary_head", exchange)
    return _replace(model, **parts)


def _attention_layer(layer: AttentionLayer, name: str, exchange: Exchange) -> AttentionLayer:
    kind = "dpa" if isinstance(layer.attention.message, DotProductMessage) else "ga"
    norm = _norm(layer.norm, f"{name}.norm_1", exchange)
    return _replace(layer, norm=norm, attention=_attention(layer.attention, f"{name}.{kind}", exchange))


def _feed_forward(layer: FeedForward, name: str, exchange: Exchange) -> FeedForward:
    parts: dict[str, Any] = {
        "norm": _norm(layer.norm, f"{name}.norm_2", exchange),
        "linear_in": _linear(layer.linear_in, f"{name}.ffn.fctp_1", exchange),
        "linear_out": _linear(layer.linear_out, f"{name}.ffn.fctp_2", exchange),
    }
    if layer.shortcut is not None:
        parts["shortcut"] = _linear(layer.shortcut, f"{name}.ffn_shortcut", exchange)
    return _replace(layer, **parts)


def _attention(layer: GraphAttention, name: str, exchange: Exchange) -> GraphAttention:
    message = layer.message
    source = _linear(layer.source, f"{name}.merge_src", exchange)
    target = _linear(layer.target, f"{name}.merge_dst", exchange)
    if isinstance(message, DotProductMessage):
        visited = _replace(
            message,
            query=_linear(message.query, f"{name}.query", exchange),
            radial=_radial(message.radial, message.paths, f"{name}.key_value.dtp_rad", exchange),
            linear=_linear(message.linear, f"{name}.key_value.lin", exchange, message.paths),
        )
    else:
        (alpha_dot,) = exchange(f"{name}.alpha_dot", [message.alpha_dot], lambda a: a[0][None])
        if isinstance(message, LinearMessage):
            visited = _replace(
                message,
                alpha_dot=alpha_dot,
                radial=_radial(message.radial, message.paths, f"{name}.sep.dtp_rad", exchange),
                linear=_linear(message.linear, f"{name}.sep.lin", exchange, message.paths),
            )
        else:
            radial = _radial(message.radial, message.paths, f"{name}.sep_act.dtp_rad", exchange)
            linear = _linear(message.linear, f"{name}.sep_act.lin", exchange, message.paths)
            alpha = _linear(message.alpha, f"{name}.sep_alpha", exchange, message.paths)
            weights_name = f"{name}.sep_value.dtp.tp.weight"
            order = message.value_paths.weight_order()
            (value_weights,) = exchange(weights_name, [message.value_weights], lambda a: a[0][order])
            visited = _replace(
                message,
                alpha_dot=alpha_dot,
                radial=radial,
                linear=linear,
                alpha=alpha,
                value_weights=value_weights,
                value=_linear(message.value, f"{name}.sep_value.lin", exchange, message.value_paths),
            )
    projection = _linear(layer.projection, f"{name}.proj", exchange)
    return _replace(layer, source=source, target=target, message=visited, projection=projection)


def _linear(linear: Linear, name: str, exchange: Exchange, paths: Paths | None = None) -> Linear:
    """`paths`: the product whose output channels are the map's input; officially they are in order of creation."""
    irreps = [irrep for _, irrep in linear.irreps_in if str(irrep) in linear.weights]
    names = [str(irrep) for irrep in irreps]

    def flat(arrays: list[Any]) -> Any:
        rows = [slice(None) if paths is None else paths.row_order(irrep) for irrep in irreps]
        return np.concatenate([array[row].ravel() for array, row in zip(arrays, rows)])

    arrays = exchange(f"{name}.tp.weight", [linear.weights[irrep] for irrep in names], flat)
    bias = linear.bias
    if bias is not None:
        (bias,) = exchange(f"{name}.bias.0", [bias], lambda a: a[0])
    by_name = dict(zip(names, arrays))
    return _replace(linear, weights={irrep: by_name[irrep] for irrep in linear.weights}, bias=bias)


def _norm(norm: EquivariantNorm, name: str, exchange: Exchange) -> EquivariantNorm:
    names = [str(irrep) for _, irrep in norm.irreps]
    arrays = exchange(f"{name}.affine_weight", [norm.weights[irrep] for irrep in names], np.concatenate)
    (bias,) = exchange(f"{name}.affine_bias", [norm.bias], lambda a: a[0])
    by_name = dict(zip(names, arrays))
    return _replace(norm, weights={irrep: by_name[irrep] for irrep in norm.weights}, bias=bias)


def _radial(radial: RadialMLP, paths: Paths, name: str, exchange: Exchange) -> RadialMLP:
    weights, biases, norms = [], [], []
    order = paths.weight_order()
    (offset,) = exchange(f"{name}.offset", [radial.offset], lambda a: a[0][order])
    for i, weight in enumerate(radial.weights):
        columns = order if i == len(radial.biases) else slice(None)
        weights += exchange(f"{name}.net.{3 * i}.weight", [weight], lambda a, c=columns: a[0][:, c].T)
        if i < len(radial.biases):
            biases += exchange(f"{name}.net.{3 * i}.bias", [radial.biases[i]], lambda a: a[0])
            norm = radial.norms[i]
            (scale,) = exchange(f"{name}.net.{3 * i + 1}.weight", [norm.weight], lambda a: a[0])
            (shift,) = exchange(f"{name}.net.{3 * i + 1}.bias", [norm.bias], lambda a: a[0])
            norms.append(_replace(norm, weight=scale, bias=shift))
    return _replace(radial, weights=weights, biases=biases, norms=norms, offset=offset)


def _basis(basis: Any, exchange: Exchange) -> Any:
    if isinstance(basis, GaussianBasis):
        shapes = {"mean": (1, -1), "std": (1, -1), "weight": (1, 1), "bias": (1, 1)}
        visited = {
            key: exchange(f"rbf.{key}", [getattr(basis, key)], lambda a, shape=shape: a[0].reshape(shape))[0]
            for key, shape in shapes.items()
        }
        return _replace(basis, **visited)
    if isinstance(basis, BesselBasis):
        (frequencies,) = exchange("rbf.rbf.frequencies", [basis.frequencies], lambda a: a[0])
        return _replace(basis, frequencies=frequencies)
    return basis


def _replace(module: Any, **changes: Any) -> Any:
    """A copy of a module with some fields set, whatever their types."""
    names = list(changes)
    return eqx.tree_at(
        lambda m: [getattr(m, name) for name in names],
        module,
        [changes[name] for name in names],
        is_leaf=lambda leaf: leaf is None,
    )


def _unstacked(layers: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index] if hasattr(leaf, "shape") else leaf, layers)


def _stacked(layers: list[Any]) -> Any:
    def stack(*leaves: Any) -> Any:
        if not hasattr(leaves[0], "shape"):
            return leaves[0]
        return jnp.stack(leaves) if isinstance(leaves[0], jax.Array) else np.stack(leaves)

    return jax.tree.map(stack, *layers)
