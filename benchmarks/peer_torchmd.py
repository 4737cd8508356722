"""The peer's process for benchmarks/peers.py: TorchMD-NET's equivariant transformer, run by the python that has it.

    python peer_torchmd.py qm9|md17 INPUTS.npz

Prints a line about itself, then for every line "inference" or "step" on its input a line with the seconds that it took. Needs
torch and torchmdnet only; nothing of Equiform is imported.
"""

import json
import os
import sys
import time
import warnings

# Only answers go to the other side: what libraries print, on being imported too, goes to where errors go.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torchmdnet  # noqa: E402
from torchmdnet.models.model import create_model  # noqa: E402

warnings.filterwarnings("ignore")
# The published examples ET-QM9 and ET-MD17.
SIZES = {
    "qm9": {"embedding_dimension": 256, "num_layers": 8, "num_rbf": 64},
    "md17": {"embedding_dimension": 128, "num_layers": 6, "num_rbf": 32},
}
COMMON = {
    "model": "equivariant-transformer",
    "num_heads": 8,
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "activation": "silu",
    "attn_activation": "silu",
    "distance_influence": "both",
    "neighbor_embedding": True,
    "cutoff_lower": 0.0,
    "cutoff_upper": 5.0,
    "max_z": 100,
    "max_num_neighbors": 64,
    "precision": 32,
    "output_model": "Scalar",
    "reduce_op": "add",
    "atom_filter": -1,
    "prior_model": None,
}


def main() -> None:
    form, path = sys.argv[1:]
    forces = form == "md17"
    torch.manual_seed(0)
    model = create_model({**COMMON, **SIZES[form], "derivative": forces})
    with np.load(path) as arrays:
        z, index = torch.tensor(arrays["z"], dtype=torch.long), torch.tensor(arrays["batch"], dtype=torch.long)
        positions = torch.tensor(arrays["pos"], dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    size = sum(parameter.numel() for parameter in model.parameters())

    def inference() -> None:
        model.eval()
        with torch.set_grad_enabled(forces):
            energy, _ = model(z, positions.clone(), index)
        energy.detach()

    def step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        energy, force = model(z, positions.clone(), index)
        loss = energy.abs().mean()
        if forces:
            loss = loss + 10 * force.norm(dim=1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    version = getattr(torchmdnet, "__version__", "?")
    name = f"TorchMD-NET {version} ET {SIZES[form]['embedding_dimension']}×{SIZES[form]['num_layers']}"
    about = {"name": name, "torch": torch.__version__, "threads": torch.get_num_threads(), "parameters": size}
    print(json.dumps(about), file=ANSWERS, flush=True)
    programs = {"inference": inference, "step": step}
    for line in sys.stdin:
        start = time.perf_counter()
        programs[line.strip()]()
        print(json.dumps({"seconds": time.perf_counter() - start}), file=ANSWERS, flush=True)


if __name__ == "__main__":
    main()
