"""GATr as published by its authors, in PyTorch, for benchmarks/peer_gatr.py.

The same function, parameter names, and operations in the same order: equivariant linear maps as dense 16 × 16 matrices for each
pair of channels, geometric product and join as contractions with dense 16 × 16 × 16 tables, distance features by a 4 × 4 × 5
table, PyTorch's own attention on features that are padded to a common multiple of 8, keys and values expanded to all heads,
sequential blocks. None of Equiform's optimisations is used. Reimplemented, only for what the timed presets use: multi-query
attention, GELU, the join's reference from the data, inputs given again to queries and keys.

Source: Brehmer, de Haan, Behrends & Cohen, arXiv:2305.18415, and the authors' code, release 1.4.3.
Differs: the order of contractions is written down, where the published code finds it once and looks it up at each call; no
branches for compilers, autocast or xformers.
"""

import math
from functools import cache
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

BLADES = [blade for grade in range(5) for blade in combinations(range(4), grade)]
"""Indices of each component's basis vectors, e0 to e3."""
EUCLIDEAN = [i for i, blade in enumerate(BLADES) if 0 not in blade]
"""Components of the inner product."""
DUAL_SIGNS = (1, -1, 1, -1, 1, 1, -1, 1, 1, -1, 1, -1, 1, -1, 1, 1)
RAISED = ([(1, 0)], [(5, 2), (6, 3), (7, 4)], [(11, 8), (12, 9), (13, 10)], [(15, 14)])
"""Components (to, from) of e0 times the grades 0 to 3."""
EPSILON = 1e-3


def product_table(outer: bool) -> Tensor:
    """T of (x y)_k = Σ T_kij x_i y_j: the geometric product, or the outer one, which keeps pairs without a common vector."""
    table = torch.zeros(16, 16, 16, dtype=torch.float64)
    for i, left in enumerate(BLADES):
        for j, right in enumerate(BLADES):
            common = set(left) & set(right)
            if 0 in common or (outer and common):
                continue
            swaps = sum(a > b for a in left for b in right)
            table[BLADES.index(tuple(sorted(set(left) ^ set(right)))), i, j] = (-1) ** swaps
    return table


@cache
def tables(dtype: torch.dtype) -> dict[str, Tensor]:
    """The constants of all layers."""
    basis = torch.zeros(9, 16, 16, dtype=torch.float64)
    for grade in range(5):
        places = [i for i, blade in enumerate(BLADES) if len(blade) == grade]
        basis[grade, places, places] = 1
    for number, pairs in enumerate(RAISED):
        for to, start in pairs:
            basis[5 + number, to, start] = 1
    signs = torch.tensor(DUAL_SIGNS, dtype=torch.float64)
    dual = signs[:, None] * torch.eye(16, dtype=torch.float64).flip(0)
    query, key = torch.zeros(5, 4, 4, dtype=torch.float64), torch.zeros(5, 4, 4, dtype=torch.float64)
    for axis in range(3):
        query[0, axis, axis], key[1, axis, axis] = 1, -1
        query[2 + axis, axis, 3], key[2 + axis, axis, 3] = 1, 2
    query[1, 3, 3], key[0, 3, 3] = 1, -1
    found = {
        "basis": basis / basis.flatten(1).norm(dim=1)[:, None, None],
        "product": product_table(outer=False),
        "join": torch.einsum("la,abc,bi,cj->lij", dual, product_table(outer=True), dual, dual),
        "query": query,
        "key": key,
    }
    return {name: table.to(dtype) for name, table in found.items()}


def bilinear(name: str, x: Tensor, y: Tensor) -> Tensor:
    """Σ_ij T_kij x_i y_j with a dense table."""
    pairs = x[..., :, None] * y[..., None, :]  # first: the order that the published search for the fewest operations finds
    return torch.einsum("kij,...ij->...k", tables(x.dtype)[name], pairs)


class Linear(nn.Module):
    """Equivariant linear map of multivectors and scalars."""

    def __init__(self, channels: tuple[int, int], scalars: tuple[int, int]):
        super().__init__()
        (into, out), (s_in, s_out) = channels, scalars
        self.weight = nn.Parameter(torch.zeros(out, into, 9))
        self.bias = None if s_in else nn.Parameter(torch.zeros(out, 1))
        self.s2mvs = nn.Linear(s_in, out) if s_in else None
        self.mvs2s = nn.Linear(into, s_out) if s_out else None
        self.s2s = nn.Linear(s_in, s_out, bias=False) if s_in and s_out else None

    def forward(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        matrix = torch.einsum("yxb,bij->yxij", self.weight, tables(x.dtype)["basis"])
        y = torch.einsum("yxij,...xj->...yi", matrix, x)
        if self.s2mvs is not None:
            y[..., 0] += self.s2mvs(s)
        elif self.bias is not None:
            y[..., 0] += self.bias[:, 0]
        if self.mvs2s is None:
            return y, s[..., :0]
        scalars = self.mvs2s(x[..., 0])
        return y, scalars if self.s2s is None else scalars + self.s2s(s)


class Attention(nn.Module):
    """Multi-query attention; the logits see inner products, distances of points, and scalars."""

    def __init__(self, channels: int, scalars: int, heads: int, again: tuple[int, int]):
        super().__init__()
        self.heads = heads
        self.channels, self.scalars = max(2 * channels // heads, 1), max(2 * scalars // heads, 4)
        longer = channels + again[0], scalars + again[1]
        sizes = {"q_linear": (longer, heads), "k_linear": (longer, 1), "v_linear": ((channels, scalars), 1)}
        self.qkv_module = nn.ModuleDict(
            {
                name: Linear((into[0], copies * self.channels), (into[1], copies * self.scalars))
                for name, (into, copies) in sizes.items()
            }
        )
        self.attention = nn.ParameterDict({"log_weights": torch.zeros(heads, 1, self.channels)})
        self.out_linear = Linear((heads * self.channels, channels), (heads * self.scalars, scalars))

    def forward(self, x: Tensor, s: Tensor, again: tuple[Tensor, Tensor], mask: Tensor | None) -> tuple[Tensor, Tensor]:
        longer = torch.cat([x, again[0]], dim=-2), torch.cat([s, again[1]], dim=-1)
        parts = self.qkv_module
        q, q_s = heads_apart(parts["q_linear"](*longer), self.heads)
        k, k_s = heads_apart(parts["k_linear"](*longer), 1)
        v, v_s = heads_apart(parts["v_linear"](x, s), 1)
        weights = self.attention["log_weights"].exp()[..., None]
        queries = torch.cat([q[..., EUCLIDEAN[:-1]].flatten(3), (weights * distances("query", q)).flatten(3), q_s], dim=-1)
        keys = torch.cat([k[..., EUCLIDEAN[:-1]].flatten(3), distances("key", k).flatten(3), k_s], dim=-1)
        values = torch.cat([v.flatten(3), v_s], dim=-1)
        width = 8 * math.ceil(max(queries.shape[-1], values.shape[-1]) / 8)
        keys = keys * math.sqrt(width / keys.shape[-1])  # the softmax's scale counts the zeros too
        queries, keys, values = (functional.pad(part, (0, width - part.shape[-1])) for part in (queries, keys, values))
        keys, values = (part.expand(-1, self.heads, -1, -1) for part in (keys, values))
        out = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).movedim(1, 2)
        end = 16 * self.channels
        y = out[..., :end].unflatten(-1, (self.channels, 16)).flatten(2, 3)
        return self.out_linear(y, out[..., end : end + self.scalars].flatten(2, 3))


def heads_apart(parts: tuple[Tensor, Tensor], heads: int) -> tuple[Tensor, Tensor]:
    """Multivectors and scalars (batch, head, token, …) from channels of which the head is the fastest index."""
    x, s = parts
    return x.unflatten(2, (-1, heads)).movedim(3, 1), s.unflatten(2, (-1, heads)).movedim(3, 1)


def distances(side: str, x: Tensor) -> Tensor:
    """Five features whose product with those of the other side is minus the squared distance."""
    weight = x[..., 14:15]
    points = x[..., 11:15] * (weight / (weight**2 + EPSILON))
    return bilinear(side, points, points)


class Products(nn.Module):
    """Geometric products and joins, each of half the channels, and a linear map of them."""

    def __init__(self, channels: int, scalars: int):
        super().__init__()
        factors = [Linear((channels, channels), (scalars, 0)) for _ in range(4)]
        self.linear_left, self.linear_right, self.linear_join_left, self.linear_join_right = factors
        self.linear_out = Linear((2 * channels, 2 * channels), (scalars, 2 * scalars))

    def forward(self, x: Tensor, s: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.linear_left(x, s)[0], self.linear_right(x, s)[0]
        join_left, join_right = self.linear_join_left(x, s)[0], self.linear_join_right(x, s)[0]
        joins = reference[..., 14:15] * bilinear("join", join_left, join_right)
        return self.linear_out(torch.cat([bilinear("product", left, right), joins], dim=-2), s)


class Gate(nn.Module):
    """x GELU(x_0), by tanh, and the exact GELU of scalars."""

    def forward(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return x * functional.gelu(x[..., :1], approximate="tanh"), functional.gelu(s)


class Perceptron(nn.Module):
    """Products, gate, linear."""

    def __init__(self, channels: int, scalars: int):
        super().__init__()
        out = Linear((2 * channels, channels), (2 * scalars, scalars))
        self.layers = nn.ModuleList([Products(channels, scalars), Gate(), out])

    def forward(self, x: Tensor, s: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        products, gate, out = self.layers
        return out(*gate(*products(x, s, reference)))


def normalised(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Both norms, which have no parameters."""
    squares = (x[..., EUCLIDEAN] ** 2).sum(-1, keepdim=True).mean(-2, keepdim=True)
    return x / squares.clamp(min=0.01).sqrt(), functional.layer_norm(s, s.shape[-1:], eps=1e-5)


class Block(nn.Module):
    """Attention and perceptron, each with pre-normalisation and a residual connection."""

    def __init__(self, attention: Attention, mlp: Perceptron):
        super().__init__()
        self.attention, self.mlp = attention, mlp

    def forward(
        self, x: Tensor, s: Tensor, reference: Tensor, again: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        dx, ds = self.attention(*normalised(x, s), again, mask)
        x, s = x + dx, s + ds
        dx, ds = self.mlp(*normalised(x, s), reference)
        return x + dx, s + ds


class PublishedGATr(nn.Module):
    """The whole model.

    Args:
        config: Fields of Equiform's `GATrConfig`.
    """

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        only = {"algebra": "improved-projective", "multi_query": True, "activation": "gelu", "join_reference": "data"}
        for name, value in {**only, "rotary": False, "dropout": 0.0}.items():
            if config[name] != value:
                raise ValueError(f"only {name} = {value!r} is reimplemented here, not {config[name]!r}")
        inner, scalars = config["channels"], config["scalars"]
        self.again = list(config["reinserted_channels"]), list(config["reinserted_scalars"])
        self.linear_in = Linear((config["in_channels"], inner), (config["in_scalars"], scalars))
        self.blocks = nn.ModuleList(
            Block(
                Attention(inner, scalars, config["num_heads"], (len(self.again[0]), len(self.again[1]))),
                Perceptron(inner, scalars),
            )
            for _ in range(config["num_blocks"])
        )
        self.linear_out = Linear((inner, config["out_channels"]), (scalars, config["out_scalars"]))

    def forward(self, x: Tensor, s: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Multivectors (batch, token, channel, 16) and scalars (batch, token, channel)."""
        reference = x.mean(dim=(1, 2), keepdim=True)
        again = x[..., self.again[0], :], s[..., self.again[1]]
        x, s = self.linear_in(x, s)
        for block in self.blocks:
            x, s = block(x, s, reference, again, mask)
        return self.linear_out(x, s)
