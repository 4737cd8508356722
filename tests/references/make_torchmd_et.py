"""Write torchmd_et.npz: inputs, weights and outputs of the pip package torchmd-net, float64, on a CPU.

In an environment of its own: pip install torch==2.13.0; pip install --no-deps torchmd-net==3.1.0 ase numpy scipy tqdm
warp-lang h5py lightning-utilities packaging pyyaml; then python tests/references/make_torchmd_et.py
"""

from pathlib import Path

import numpy as np
import torch
from torchmdnet.models.output_modules import (
    EquivariantDipoleMoment,
    EquivariantElectronicSpatialExtent,
    EquivariantScalar,
    EquivariantVectorOutput,
)
from torchmdnet.models.torchmd_et import TorchMD_ET
from torchmdnet.models.utils import ExpNormalSmearing

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
rng = np.random.default_rng(0)


def molecule(count: int) -> np.ndarray:
    positions: list[np.ndarray] = []
    while len(positions) < count:
        trial = 2.0 * rng.normal(size=3)
        if all(np.linalg.norm(trial - other) > 0.9 for other in positions):
            positions.append(trial)
    return np.array(positions)


sizes = (7, 5)
positions = np.concatenate([molecule(size) for size in sizes])
species = rng.choice([1, 6, 8], sum(sizes))
batch = np.repeat(np.arange(len(sizes)), sizes)
arrays: dict[str, np.ndarray] = {"positions": positions, "species": species, "batch": batch}
net = TorchMD_ET(
    hidden_channels=16,
    num_layers=2,
    num_rbf=8,
    num_heads=4,
    trainable_rbf=False,
    max_z=10,
    cutoff_upper=3.5,
    dtype=torch.float64,
)
# The package makes its radial basis in single precision, whatever the dtype of the net.
net.distance_expansion = ExpNormalSmearing(0.0, 3.5, 8, False, dtype=torch.float64)
readouts = {
    "scalar": EquivariantScalar(16, dtype=torch.float64),
    "dipole": EquivariantDipoleMoment(16, dtype=torch.float64),
    "spatial_extent": EquivariantElectronicSpatialExtent(16, dtype=torch.float64),
    "vector": EquivariantVectorOutput(16, dtype=torch.float64),
}
for module in (net, *readouts.values()):
    for parameter in module.parameters():
        if parameter.ndim == 1:  # biases and normalisations are constants otherwise, and would hide mistakes
            parameter.data += 0.3 * torch.randn_like(parameter)
        parameter.data = parameter.data.float().double()  # numbers that single precision holds: half the size of the file
for name, value in net.named_parameters():
    arrays[f"weight.net.{name}"] = value.detach().numpy().astype(np.float32)
for kind, readout in readouts.items():
    for name, value in readout.named_parameters():
        arrays[f"weight.{kind}.{name}"] = value.detach().numpy().astype(np.float32)
for vector_cutoff in (False, True):
    for layer in net.attention_layers:
        layer.vector_cutoff = vector_cutoff
    for kind, readout in readouts.items():
        x = torch.tensor(positions, requires_grad=True)
        z, index = torch.tensor(species), torch.tensor(batch)
        features, vectors, *_ = net(z, x, index)
        out = readout.pre_reduce(features, vectors, z, x, index)
        mark = "cut" if vector_cutoff else "paper"
        if kind == "vector":
            arrays[f"out.{mark}.vector"] = out.detach().numpy()
            arrays[f"out.{mark}.features"] = features.detach().numpy()
            arrays[f"out.{mark}.vectors"] = vectors.detach().numpy()
            continue
        total = readout.post_reduce(readout.reduce(out, index))
        total.sum().backward()
        arrays[f"out.{mark}.{kind}"] = total.detach().numpy()[:, 0]
        arrays[f"out.{mark}.{kind}.gradient"] = x.grad.numpy()
np.savez_compressed(Path(__file__).with_name("torchmd_et.npz"), **arrays)
print({name: value.shape for name, value in arrays.items() if name.startswith("out")})
