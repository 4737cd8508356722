"""Equiformer as published by its authors, in PyTorch and e3nn 0.4.4, for benchmarks/peer_equiformer.py.

The same function, parameter names and operations in the same order: depth-wise products by `e3nn.o3.TensorProduct` with weights
per edge, every linear map on edges another TensorProduct with a constant 1, messages gathered by index and summed at their
receivers, one radial network per layer, sequential layers, forces by automatic differentiation. e3nn compiles its products to
TorchScript. None of Equiform's optimisations is used. Reimplemented, only for what the timed presets use: non-linear messages,
MLP attention, Gaussian or exponential-normal basis.

Source: Liao and Smidt, arXiv:2206.11990, and its code (atomicarchitects/equiformer, commit 64cb786). Differs: edges are given;
PyTorch's own index operations replace those of torch_scatter and torch_geometric.
"""

import math
from typing import Any

import torch
from e3nn import o3
from e3nn.math import normalize2mom
from published_parts import (
    SCALAR,
    ExponentialBasis,
    Gate,
    GaussianBasis,
    Linear,
    Norm,
    Radial,
    added_up,
    depth_wise,
    smooth_leaky_relu,
    softmax,
)
from torch import Tensor, nn


class FirstProduct(nn.Module):
    """Depth-wise product with weights per edge, then linear and gate."""

    def __init__(self, irreps: o3.Irreps, irreps_sh: o3.Irreps, widths: list[int]):
        super().__init__()
        self.dtp = depth_wise(irreps, irreps_sh, irreps, trained=False)
        self.dtp_rad = Radial([*widths, self.dtp.tp.weight_numel])
        self.gate = Gate(irreps)
        self.lin = Linear(self.dtp.tp.irreps_out.simplify(), self.gate.irreps_in)


class SecondProduct(nn.Module):
    """Depth-wise product with weights shared by all edges, then linear to the values of all heads."""

    def __init__(self, irreps: o3.Irreps, irreps_sh: o3.Irreps, values: o3.Irreps):
        super().__init__()
        self.dtp = depth_wise(irreps, irreps_sh, values, trained=True)
        self.lin = Linear(self.dtp.tp.irreps_out.simplify(), values)

    def forward(self, features: Tensor, harmonics: Tensor) -> Tensor:
        return self.lin(self.dtp(features, harmonics))


class Attention(nn.Module):
    """Graph attention with non-linear messages; weights from a small network on the message's scalars."""

    def __init__(self, irreps: o3.Irreps, irreps_sh: o3.Irreps, head: o3.Irreps, heads: int, widths: list[int], dropout: float):
        super().__init__()
        self.heads, self.head = heads, head
        values = o3.Irreps([(heads * mul, irrep) for mul, irrep in head])
        num_alpha = head.count(SCALAR[0].ir)
        self.merge_src, self.merge_dst = Linear(irreps, irreps), Linear(irreps, irreps, biased=False)
        self.sep_act = FirstProduct(irreps, irreps_sh, widths)
        self.sep_alpha = Linear(self.sep_act.dtp.tp.irreps_out, o3.Irreps(f"{heads * num_alpha}x0e"))
        self.sep_value = SecondProduct(irreps, irreps_sh, values)
        self.alpha_act = normalize2mom(smooth_leaky_relu)
        self.alpha_dot = nn.Parameter(torch.zeros(1, heads, num_alpha))
        self.dropout = nn.Dropout(dropout)
        self.places = values.slices()
        self.sizes = [entry.dim for entry in head]
        self.proj = Linear(values, irreps)

    def forward(self, features: Tensor, edges: Tensor, harmonics: Tensor, basis: Tensor) -> Tensor:
        senders, receivers = edges
        message = self.merge_src(features)[senders] + self.merge_dst(features)[receivers]
        first = self.sep_act
        message = first.dtp(message, harmonics, first.dtp_rad(basis))
        alpha = self.alpha_act(self.sep_alpha(message).reshape(len(message), self.heads, -1))
        value = self.sep_value(first.gate(first.lin(message)), harmonics)
        value = torch.cat([value[:, place].reshape(len(value), self.heads, -1) for place in self.places], dim=2)
        weights = self.dropout(softmax(torch.einsum("ehk,ahk->eh", alpha, self.alpha_dot), receivers, len(features)))
        total = added_up(value * weights[:, :, None], receivers, len(features))
        return self.proj(torch.cat([part.flatten(1) for part in total.split(self.sizes, dim=2)], dim=1))


class FeedForward(nn.Module):
    """Linear, gate, linear."""

    def __init__(self, irreps: o3.Irreps, hidden: o3.Irreps, out: o3.Irreps):
        super().__init__()
        self.gate = Gate(hidden)
        self.fctp_1, self.fctp_2 = Linear(irreps, self.gate.irreps_in), Linear(hidden, out)

    def forward(self, features: Tensor) -> Tensor:
        return self.fctp_2(self.gate(self.fctp_1(features)))


class Block(nn.Module):
    """Attention and feed-forward network, each with pre-normalisation and a residual connection."""

    def __init__(self, attention: Attention, irreps: o3.Irreps, hidden: o3.Irreps, out: o3.Irreps):
        super().__init__()
        self.norm_1, self.ga = Norm(irreps), attention
        self.norm_2, self.ffn = Norm(irreps), FeedForward(irreps, hidden, out)
        self.ffn_shortcut = Linear(irreps, out) if irreps != out else None

    def forward(self, features: Tensor, *geometry: Tensor) -> Tensor:
        features = features + self.ga(self.norm_1(features), *geometry)
        change = self.ffn(self.norm_2(features))
        return (features if self.ffn_shortcut is None else self.ffn_shortcut(features)) + change


class AtomEmbedding(nn.Module):
    """A vector of scalars for each atom type."""

    def __init__(self, types: int, irreps: o3.Irreps):
        super().__init__()
        self.types, self.atom_type_lin = types, Linear(o3.Irreps(f"{types}x0e"), irreps)

    def forward(self, types: Tensor) -> Tensor:
        return self.atom_type_lin(nn.functional.one_hot(types, self.types).to(torch.get_default_dtype()))


class DegreeEmbedding(nn.Module):
    """Edge-degree embedding: depends on the neighbours' positions but not on their types."""

    def __init__(self, irreps: o3.Irreps, irreps_sh: o3.Irreps, widths: list[int], degree: float):
        super().__init__()
        self.degree = degree
        self.exp, self.dw = Linear(SCALAR, irreps), depth_wise(irreps, irreps_sh, irreps, trained=False)
        self.rad = Radial([*widths, self.dw.tp.weight_numel])
        self.proj = Linear(self.dw.tp.irreps_out.simplify(), irreps)

    def forward(self, like: Tensor, edges: Tensor, harmonics: Tensor, basis: Tensor) -> Tensor:
        source = self.exp(torch.ones_like(like[:, :1]))[edges[0]]
        message = self.proj(self.dw(source, harmonics, self.rad(basis)))
        return added_up(message, edges[1], len(like)) / math.sqrt(self.degree)


class PublishedEquiformer(nn.Module):
    """The whole model.

    Args:
        config: Fields of Equiform's `EquiformerConfig`, as in JSON.
    """

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        irreps, harmonics, head, hidden, feature = (
            o3.Irreps(config[f"irreps{part}"]) for part in ("", "_sh", "_head", "_mlp", "_feature")
        )
        size, cutoff, layers = config["num_basis"], config["cutoff"], config["num_layers"]
        widths = [size, *config["radial_widths"]]
        self.average_atoms = config["average_atoms"]
        self.atom_embed = AtomEmbedding(len(config["elements"]), irreps)
        self.rbf = {"gaussian": GaussianBasis, "exp": ExponentialBasis}[config["basis"]](size, cutoff)
        self.edge_deg_embed = DegreeEmbedding(irreps, harmonics, widths, config["average_degree"])
        self.harmonics = o3.SphericalHarmonics(harmonics, normalize=True, normalization="component")
        self.blocks = nn.ModuleList()
        for layer in range(layers):
            attention = Attention(irreps, harmonics, head, config["num_heads"], widths, config["alpha_dropout"])
            self.blocks.append(Block(attention, irreps, hidden, irreps if layer < layers - 1 else feature))
        self.norm = Norm(feature)
        self.head = nn.Sequential(Linear(feature, feature), normalize2mom(nn.SiLU()), Linear(feature, SCALAR))

    def forward(self, types: Tensor, positions: Tensor, edges: Tensor, molecule: Tensor, num_molecules: int) -> Tensor:
        """Energy of each molecule."""
        vectors = positions.index_select(0, edges[0]) - positions.index_select(0, edges[1])
        geometry = (edges, self.harmonics(vectors), self.rbf(vectors.norm(dim=1)))
        features = self.atom_embed(types)
        features = features + self.edge_deg_embed(features, *geometry)
        for block in self.blocks:
            features = block(features, *geometry)
        energies = self.head(self.norm(features))
        return added_up(energies, molecule, num_molecules)[:, 0] / math.sqrt(self.average_atoms)
