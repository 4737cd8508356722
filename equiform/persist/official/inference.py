"""The configuration of a set of official parameters, inferred from names and shapes alone.

Multiplicities are not stored, only sums over them: a norm determines the number of channels and of scalars, a linear map from
features to themselves the sum of their squares, a radial network the number of paths. The search enumerates the multiplicities
that explain all sizes. If several do, the weights decide: each candidate cuts the flat arrays into blocks per irrep, and the
scale of the weights differs from block to block (initially 1/√fan-in), so the right cut has the highest likelihood.
"""

from collections.abc import Callable, Iterator, Sequence
from math import isqrt
from typing import Any

import numpy as np

from equiform.algebra.so3.irreps import SCALAR, Chunk, Irrep, Irreps
from equiform.algebra.so3.products import Paths
from equiform.errors import UserError

# Families of irreps in the released configurations: all even, or true parities with both parities of each degree.
_FAMILIES = [(1, False), (2, False), (3, False), (4, False), (1, True), (2, True)]
_QM9, _OC20 = (1, 6, 7, 8, 9), 84


# Flat arrays of the same form, the sizes of their blocks, and the fan-in of each block.
Cut = tuple[Sequence[np.ndarray], Sequence[int], Sequence[int]]


def infer_fields(state: dict[str, np.ndarray]) -> tuple[dict[str, Any], list[str]]:
    """Fields of `EquiformerConfig` for a checkpoint, and notes on ambiguities.

    Raises:
        UserError: No configuration fits.
    """
    sizes = {name: int(array.size) for name, array in state.items()}
    notes: list[str] = []
    try:
        return _infer(state, sizes, notes), notes
    except KeyError as error:
        raise UserError(f"the checkpoint lacks the parameter {error.args[0]!r} that every Equiformer has") from error


def _infer(state: dict[str, np.ndarray], sizes: dict[str, int], notes: list[str]) -> dict[str, Any]:
    num_layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    dot = any(".dpa." in name for name in state)
    linear = any(".ga.sep." in name for name in state)
    layer = "blocks.0.dpa" if dot else "blocks.0.ga"
    product = f"{layer}.key_value" if dot else f"{layer}.sep" if linear else f"{layer}.sep_act"
    scalars = sizes["blocks.0.norm_1.affine_bias"]
    channels = sizes["blocks.0.norm_1.affine_weight"]
    # The edge-degree embedding's product goes from node features to node features in every variant.
    squares = sizes[f"{layer}.merge_dst.tp.weight"]
    numbers = (sizes["edge_deg_embed.rad.offset"], sizes["edge_deg_embed.proj.tp.weight"])
    found = dict(_node_irreps(scalars, channels, squares, *numbers))
    kind = layer.rpartition(".")[2]
    merges = _all(state, f".{kind}.merge_src.tp.weight") + _all(state, f".{kind}.merge_dst.tp.weight")
    node = _most_likely(
        list(found),
        lambda irreps: [(merges, [mul * mul for mul, _ in irreps], [mul for mul, _ in irreps])],
        f"irreps with {scalars} scalars among {channels} channels (message irreps that differ from those of the node are "
        "only known for presets)",
        notes,
    )
    irreps_sh = found[node]
    shapes = [state[f"{product}.dtp_rad.net.{i}.weight"].shape for i in (0, 3, 6)]
    num_types = sizes["atom_embed.atom_type_lin.tp.weight"] // scalars
    oc20 = num_types == _OC20 or "tag_embed.atom_type_lin.tp.weight" in state
    num_heads, alpha_channels = _heads(state, layer, sizes, node)
    message = "dot" if dot else "linear" if linear else "nonlinear"
    if dot:
        notes.append(f"the number of heads is not in the file; assuming {num_heads}: check a known energy")
    head = _head_irreps(state, sizes, layer, node, num_heads, alpha_channels, message, notes)
    gaussian, bessel = "rbf.mean" in state, "rbf.rbf.frequencies" in state
    fields: dict[str, Any] = {
        "elements": _QM9 if num_types == len(_QM9) else tuple(range(num_types)),
        "num_layers": num_layers,
        "irreps": str(node),
        "irreps_sh": str(irreps_sh),
        "irreps_head": str(head),
        "irreps_mlp": str(_hidden(state, sizes, node, notes)),
        "irreps_feature": str(_feature(state, sizes, node, num_layers - 1, notes)),
        "num_heads": num_heads,
        "message": "linear" if dot or linear else "nonlinear",
        "attention": "dot" if dot else "mlp",
        "basis": "gaussian" if gaussian else "bessel" if bessel else "exp",
        "num_basis": shapes[0][1],
        "radial_widths": (shapes[0][0], shapes[1][0]),
        "norm": "per_degree",
        "cutoff_kind": "sharp",
        "num_tags": sizes.get("tag_embed.atom_type_lin.tp.weight", 0) // scalars,
    }
    if alpha_channels != head.count(SCALAR):
        fields["alpha_channels"] = alpha_channels
    if "head.alpha_dot" in state:
        fields["energy_readout"] = "attention"
    if oc20:
        fields |= {"average_degree": 23.395238876342773, "average_atoms": 77.81317}
    if any(name.startswith("auxiliary_head.") for name in state):
        # The released models set the message irreps of this head to those of the node.
        fields |= {"vector_readouts": ("displacement",), "irreps_message": str(node)}
    return fields


def _node_irreps(
    scalars: int, channels: int, squares: int, num_weights: int, projection: int
) -> Iterator[tuple[Irreps, Irreps]]:
    for l_max, parity in _FAMILIES:
        irreps_sh = Irreps.spherical(l_max, parity=parity)
        kinds = [Irrep(l, p) for l in range(l_max + 1) for p in ((1, -1) if parity else (1,))][1:]
        rest, rest_squares = channels - scalars, squares - scalars**2
        # Number of paths from each kind to each kind; the same for all multiplicities.
        single = Irreps(tuple(Chunk(1, kind) for kind in (SCALAR, *kinds)))
        counts = np.zeros((len(single), len(single)), int)
        for path in Paths(single, irreps_sh, single).created:
            counts[path.source, [irrep for _, irrep in single].index(path.irrep)] += 1
        for muls in _multiplicities(len(kinds), rest, rest_squares):
            vector = np.array([scalars, *muls])
            if vector @ counts.sum(axis=1) == num_weights and vector @ counts @ vector == projection:
                yield Irreps(tuple(Chunk(mul, chunk.irrep) for mul, chunk in zip(vector.tolist(), single))), irreps_sh


def _multiplicities(count: int, total: int, squares: int) -> Iterator[tuple[int, ...]]:
    """All tuples of positive numbers with a given sum and sum of squares, larger ones first."""
    if count == 1:
        if total > 0 and total * total == squares:
            yield (total,)
        return
    if count == 2:  # the two roots of x² − total x + (total² − squares) / 2
        root = isqrt(max(2 * squares - total * total, 0))
        for first in dict.fromkeys(((total + root) // 2, (total - root) // 2)):
            if 0 < first < total and first**2 + (total - first) ** 2 == squares:
                yield (first, total - first)
        return
    # Cauchy–Schwarz: the sum of squares is at least total² / count.
    if total < 0 or squares < 0 or total * total > count * squares:
        return
    for first in range(min(total, int(squares**0.5)), 0, -1):
        for others in _multiplicities(count - 1, total - first, squares - first * first):
            yield (first, *others)


def _heads(state: dict[str, np.ndarray], layer: str, sizes: dict[str, int], node: Irreps) -> tuple[int, int | None]:
    if f"{layer}.alpha_dot" in state:
        _, heads, size = state[f"{layer}.alpha_dot"].shape
        return heads, size
    # Dot product: the query's bias counts heads · scalars; released models have 4 or 8 heads.
    scalars = sizes[f"{layer}.query.bias.0"]
    for heads in (4, 8, 2, 1, 16):
        if scalars % heads == 0 and node.count(SCALAR) % heads == 0 and scalars == node.count(SCALAR):
            return heads, None
    return 2, None


def _head_irreps(
    state: dict[str, np.ndarray], sizes: dict[str, int], layer: str, node: Irreps, heads: int, alpha: int | None, kind: str,
    notes: list[str],
) -> Irreps:  # fmt: skip
    """Head features from the sizes of the projection and of what feeds it."""
    feeding = {"nonlinear": "sep_value.lin", "linear": "sep.lin", "dot": "key_value.lin"}[kind]
    copies = 2 * heads if kind == "dot" else heads
    extra = heads * (alpha or 0) if kind == "linear" else 0
    scalars = (sizes[f"{layer}.{feeding}.bias.0"] - extra) // copies
    others = [chunk for chunk in node if chunk.irrep != SCALAR]
    paths = Paths(node, Irreps.spherical(node.l_max, parity=any(irrep.p < 0 for _, irrep in node)), node)

    def columns(head: Irreps) -> dict[Irrep, int]:
        return {irrep: mul * copies + (extra if irrep == SCALAR else 0) for mul, irrep in head}

    rest = sizes[f"{layer}.proj.tp.weight"] // heads - scalars * node.count(SCALAR)
    fed = sizes[f"{layer}.{feeding}.tp.weight"] - (scalars * copies + extra) * paths.irreps_out.count(SCALAR)
    per_copy = [copies * paths.irreps_out.count(chunk.irrep) for chunk in others]
    candidates = [
        Irreps((Chunk(scalars, SCALAR), *(Chunk(mul, chunk.irrep) for mul, chunk in zip(muls, others))))
        for muls in _combinations([chunk.mul for chunk in others], rest)
        if sum(mul * factor for mul, factor in zip(muls, per_copy)) == fed
    ]
    name = layer.rpartition(".")[2]
    projections, values = _all(state, f".{name}.proj.tp.weight"), _all(state, f".{name}.{feeding}.tp.weight")

    def cuts(head: Irreps) -> list[Cut]:
        wide = columns(head)
        fed = [(mul * wide[irrep], mul) for mul, irrep in paths.irreps_out if irrep in wide]
        projected = [(heads * mul * node.count(irrep), heads * mul) for mul, irrep in head]
        return [
            (projections, [size for size, _ in projected], [fan_in for _, fan_in in projected]),
            (values, [size for size, _ in fed], [fan_in for _, fan_in in fed]),
        ]

    return _most_likely(candidates, cuts, f"features of a head (sizes of {layer}.proj and of the values)", notes)


def _hidden(state: dict[str, np.ndarray], sizes: dict[str, int], node: Irreps, notes: list[str]) -> Irreps:
    """Features inside the feed-forward network, from the sizes of its maps."""
    last = 1 + max(int(name.split(".")[1]) for name in sizes if name.startswith("blocks."))
    first, gated = sizes["blocks.0.ffn.fctp_1.tp.weight"], sizes["blocks.0.ffn.fctp_1.bias.0"]
    second = sizes["blocks.0.ffn.fctp_2.tp.weight"] if last > 1 else None
    others = [chunk for chunk in node if chunk.irrep != SCALAR]
    candidates = []
    for muls in _combinations([chunk.mul for chunk in others], first - node.count(SCALAR) * gated):
        scalars = gated - sum(muls)
        size = scalars * node.count(SCALAR) + sum(mul * chunk.mul for mul, chunk in zip(muls, others))
        if scalars > 0 and second in (None, size):
            chunks = (Chunk(scalars, SCALAR), *(Chunk(mul, chunk.irrep) for mul, chunk in zip(muls, others)))
            candidates.append(Irreps(chunks))
    firsts = _all(state, ".ffn.fctp_1.tp.weight")
    seconds = [array for array in _all(state, ".ffn.fctp_2.tp.weight") if array.size == second]

    def cuts(hidden: Irreps) -> list[Cut]:
        inside = [node.count(SCALAR) * gated, *(mul * node.count(irrep) for mul, irrep in hidden if irrep != SCALAR)]
        outside = [mul * node.count(irrep) for mul, irrep in hidden]
        return [(firsts, inside, [mul for mul, _ in node]), (seconds, outside, [mul for mul, _ in hidden])]

    return _most_likely(candidates, cuts, "hidden features (sizes of blocks.0.ffn)", notes)


def _most_likely(candidates: list[Irreps], cuts: Callable[[Irreps], list[Cut]], what: str, notes: list[str]) -> Irreps:
    """The candidate whose cuts of the flat arrays into blocks have the highest likelihood.

    Each block is a zero-mean normal whose variance is near 1 / fan-in, give or take 30 % (training moves it little).

    Raises:
        UserError: There is no candidate.
    """
    if not candidates:
        raise UserError(f"the checkpoint does not fit: no {what} explain its shapes")
    if len(candidates) == 1:
        return candidates[0]

    def score(irreps: Irreps) -> float:
        total = 0.0
        for arrays, sizes, fan_ins in cuts(irreps):
            ends = np.cumsum(sizes)[:-1]
            split = [np.split(array.ravel().astype(np.float64), ends) for array in arrays]
            for block, fan_in in zip(zip(*split), fan_ins):
                values = np.concatenate(block)
                variance = (values**2).mean() + 1e-300
                total -= 0.5 * values.size * np.log(variance) + 0.5 * (np.log(variance * fan_in) / 0.3) ** 2
        return total

    scores = {irreps: score(irreps) for irreps in candidates}
    ranked = sorted(candidates, key=scores.__getitem__, reverse=True)
    if scores[ranked[0]] - scores[ranked[1]] < 5:
        notes.append(
            f"the shapes allow several {what}, and the weights favour {ranked[0]} only narrowly over {ranked[1]}: "
            "check a known energy"
        )
    return ranked[0]


def _all(state: dict[str, np.ndarray], ending: str) -> list[np.ndarray]:
    return [array for name, array in state.items() if name.endswith(ending) and name.startswith("blocks.")]


def _feature(state: dict[str, np.ndarray], sizes: dict[str, int], node: Irreps, last: int, notes: list[str]) -> Irreps:
    """Features after the last block: those of the node, or its scalars, with vectors or more if a readout needs them."""
    scalars, channels = sizes["norm.affine_bias"], sizes["norm.affine_weight"]
    shortcut = sizes.get(f"blocks.{last}.ffn_shortcut.tp.weight")
    if shortcut is None:
        return node
    if "head.alpha_dot" in state:
        return _attended_feature(state, sizes["head.merge_dst.tp.weight"], (scalars, channels, shortcut), node, notes)
    chunks = [Chunk(scalars, SCALAR)]
    if channels > scalars:
        vector = next(irrep for _, irrep in node if irrep.l == 1)
        chunks.append(Chunk(channels - scalars, vector))
    return Irreps(tuple(chunks))


def _attended_feature(
    state: dict[str, np.ndarray], squares: int, found: tuple[int, int, int], node: Irreps, notes: list[str]
) -> Irreps:
    """Features that the energy's attention layer reads, whose message has the same irreps."""
    scalars, channels, shortcut = found
    candidates = [Irreps((Chunk(scalars, SCALAR),))] if channels == scalars else []
    for count in range(1, len(node.chunks)):
        for muls in _multiplicities(count, channels - scalars, squares - scalars**2):
            kinds = [chunk.irrep for chunk in node][: count + 1]
            candidates.append(Irreps(tuple(Chunk(mul, irrep) for mul, irrep in zip((scalars, *muls), kinds))))
    candidates = [irreps for irreps in candidates if sum(mul * irreps.count(irrep) for mul, irrep in node) == shortcut]
    merges = [state["head.merge_src.tp.weight"], state["head.merge_dst.tp.weight"]]

    def cuts(irreps: Irreps) -> list[Cut]:
        return [(merges, [mul * mul for mul, _ in irreps], [mul for mul, _ in irreps])]

    return _most_likely(candidates, cuts, "features that enter the readout (sizes of head.merge_dst)", notes)


def _combinations(weights: list[int], total: int) -> Iterator[tuple[int, ...]]:
    """Positive numbers whose weighted sum is given, larger ones first."""
    if not weights:
        if total == 0:
            yield ()
        return
    if len(weights) == 1:
        if total > 0 and total % weights[0] == 0:
            yield (total // weights[0],)
        return
    for first in range((total - sum(weights[1:])) // weights[0], 0, -1):
        for others in _combinations(weights[1:], total - first * weights[0]):
            yield (first, *others)
