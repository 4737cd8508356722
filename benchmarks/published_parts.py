"""Building blocks of the published Equiformer, in PyTorch and e3nn 0.4.4; benchmarks/published_equiformer.py assembles them.

Features are rows of concatenated irreps, channels before components, as in e3nn. `Linear` and the depth-wise product
are one class, as published: a TensorProduct that e3nn compiles to TorchScript.
"""

import itertools
import math

import torch
from e3nn import o3
from e3nn.math import normalize2mom
from torch import Tensor, nn

SCALAR = o3.Irreps("1x0e")
SLOPE = 0.2
"""Negative slope of the smooth leaky ReLU before the attention weights."""


class Product(nn.Module):
    """A tensor product without normalisation by the number of inputs per path, optionally with a bias on its scalars."""

    def __init__(self, left: o3.Irreps, right: o3.Irreps, out: o3.Irreps, paths: list[tuple], *, trained: bool, biased: bool):
        super().__init__()
        self.tp = o3.TensorProduct(
            left, right, out, paths, path_normalization="none", internal_weights=trained, shared_weights=trained
        )
        merged = out.simplify()
        self.places = [place for place, (_, irrep) in zip(merged.slices(), merged) if biased and irrep == SCALAR[0].ir]
        self.bias = nn.ParameterList(torch.zeros(place.stop - place.start) for place in self.places)

    def forward(self, left: Tensor, right: Tensor, weights: Tensor | None = None) -> Tensor:
        result = self.tp(left, right, weights)
        for place, bias in zip(self.places, self.bias):
            result.narrow(1, place.start, place.stop - place.start).add_(bias)
        return result


class Linear(Product):
    """A linear map of each irrep: the fully connected product with a constant 1."""

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, *, biased: bool = True):
        paths = [(i, 0, k, "uvw", True) for i, a in enumerate(irreps_in) for k, c in enumerate(irreps_out) if a.ir == c.ir]
        super().__init__(irreps_in, SCALAR, irreps_out, paths, trained=True, biased=biased)

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(features, torch.ones_like(features[:, :1]))


def depth_wise(irreps: o3.Irreps, irreps_sh: o3.Irreps, requested: o3.Irreps, *, trained: bool) -> Product:
    """Each channel times the spherical harmonics, keeping scalar and requested outputs; outputs sorted, even first."""
    paths = [
        (i, j, mul, irrep)
        for i, (mul, left) in enumerate(irreps)
        for j, (_, right) in enumerate(irreps_sh)
        for irrep in left * right
        if irrep in requested or irrep == SCALAR[0].ir
    ]
    order = sorted(range(len(paths)), key=lambda path: (paths[path][3].l, -paths[path][3].p, path))
    out = o3.Irreps([paths[path][2:] for path in order])
    instructions = [(i, j, order.index(path), "uvu", True) for path, (i, j, _, _) in enumerate(paths)]
    return Product(irreps, irreps_sh, out, instructions, trained=trained, biased=False)


class Gate(nn.Module):
    """SiLU on the scalars; every other irrep times the sigmoid of its own scalar."""

    def __init__(self, irreps: o3.Irreps):
        super().__init__()
        scalars = o3.Irreps([entry for entry in irreps if entry.ir == SCALAR[0].ir])
        gated = o3.Irreps([entry for entry in irreps if entry.ir != SCALAR[0].ir])
        gates = o3.Irreps([(entry.mul, SCALAR[0].ir) for entry in gated])
        self.irreps_in = (scalars + gates + gated).simplify()
        self.sizes = [scalars.dim, gates.dim, gated.dim]
        self.of_scalars, self.of_gates = normalize2mom(nn.SiLU()), normalize2mom(torch.sigmoid)
        self.mul = o3.ElementwiseTensorProduct(gated, gates.simplify())

    def forward(self, features: Tensor) -> Tensor:
        scalars, gates, gated = features.split(self.sizes, dim=1)
        return torch.cat([self.of_scalars(scalars), self.mul(gated, self.of_gates(gates))], dim=1)


class Radial(nn.Module):
    """The radial network that computes the weights of a product for every edge."""

    def __init__(self, widths: list[int]):
        super().__init__()
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths[:-1]):
            layers += [nn.Linear(narrow, wide), nn.LayerNorm(wide), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=False))
        self.offset = nn.Parameter(torch.zeros(widths[-1]))

    def forward(self, basis: Tensor) -> Tensor:
        return self.net(basis) + self.offset[None]


class Norm(nn.Module):
    """Layer norm per irrep; only scalars have a mean and a bias."""

    def __init__(self, irreps: o3.Irreps):
        super().__init__()
        self.irreps = irreps
        self.affine_weight = nn.Parameter(torch.ones(irreps.num_irreps))
        self.affine_bias = nn.Parameter(torch.zeros(irreps.count(SCALAR[0].ir)))

    def forward(self, features: Tensor) -> Tensor:
        normed, start = [], 0
        for place, (mul, irrep) in zip(self.irreps.slices(), self.irreps):
            field = features[:, place].reshape(-1, mul, irrep.dim)
            scalar = irrep == SCALAR[0].ir
            if scalar:
                field = field - field.mean(1, keepdim=True)
            scale = (field.pow(2).mean(2).mean(1, keepdim=True) + 1e-5).pow(-0.5)
            field = field * (scale * self.affine_weight[None, start : start + mul])[:, :, None]
            if scalar:
                field = field + self.affine_bias[:, None]
            normed.append(field.flatten(1))
            start += mul
        return torch.cat(normed, dim=1)


class GaussianBasis(nn.Module):
    """Gaussians with learned centres and widths, π truncated as published."""

    def __init__(self, size: int, cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        self.mean, self.std = nn.Parameter(torch.zeros(1, size)), nn.Parameter(torch.ones(1, size))
        self.weight, self.bias = nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.zeros(1, 1))

    def forward(self, distances: Tensor) -> Tensor:
        reduced = self.weight * (distances / self.cutoff)[:, None] + self.bias
        width = self.std.abs() + 1e-5
        return torch.exp(-0.5 * ((reduced - self.mean) / width) ** 2) / (math.sqrt(2 * 3.14159) * width)


class ExponentialBasis(nn.Module):
    """Exponential-normal functions with a cosine cutoff; not learned."""

    def __init__(self, size: int, cutoff: float):
        super().__init__()
        self.cutoff, start = cutoff, math.exp(-cutoff)
        self.steepness = (2 / size * (1 - start)) ** -2
        self.register_buffer("means", torch.linspace(start, 1, size), persistent=False)

    def forward(self, distances: Tensor) -> Tensor:
        envelope = 0.5 * (torch.cos(distances * (math.pi / self.cutoff)) + 1) * (distances < self.cutoff)
        nearness = torch.exp(-5 / self.cutoff * distances)[:, None]
        return envelope[:, None] * torch.exp(-self.steepness * (nearness - self.means) ** 2)


def added_up(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sum of the rows with the same index."""
    return values.new_zeros(size, *values.shape[1:]).index_add(0, index, values)


def softmax(logits: Tensor, index: Tensor, size: int) -> Tensor:
    """Softmax over the rows with the same index, per column."""
    where = index[:, None].expand_as(logits)
    largest = logits.new_zeros(size, logits.shape[1]).scatter_reduce(0, where, logits.detach(), "amax", include_self=False)
    exponentials = (logits - largest.index_select(0, index)).exp()
    return exponentials / (added_up(exponentials, index, size) + 1e-16).index_select(0, index)


def smooth_leaky_relu(values: Tensor) -> Tensor:
    """A smooth leaky ReLU."""
    return (1 + SLOPE) / 2 * values + (1 - SLOPE) / 2 * values * (2 * torch.sigmoid(values) - 1)
