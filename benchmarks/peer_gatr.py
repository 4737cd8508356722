"""The published form of GATr as a worker of benchmarks/gatr_speed.py. `python peer_gatr.py TASK.npz ANSWERS`.

The task contains the configuration, the inputs, and all parameters under their published names. Beside the timed programs,
"outputs" and "exact" write what the model with the given parameters gives, in float32 and in float64, to outputs.npz in the
same folder.
"""

import copy
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from peer_in_torch import load, size
from peer_protocol import Task, serve
from published_gatr import PublishedGATr

LEARNING_RATE = 1e-4


def main() -> None:
    path, descriptor = sys.argv[1:]
    with np.load(path) as archive:
        state = {name: archive[name] for name in archive.files}
    config = json.loads(str(state.pop("config")))
    exact_inputs = [torch.tensor(state.pop(f"input:{name}")) for name in ("x", "s")]
    x, s = (part.float() for part in exact_inputs)
    model = PublishedGATr(config)
    load(model, state)
    frozen = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    folder = Path(path).parent

    def forward() -> torch.Tensor:
        with torch.no_grad():
            y, t = frozen(x, s)
        return y.mean() + t.mean()

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        y, t = model(x, s)
        loss = (y**2).mean() + (t**2).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def written(dtype: torch.dtype) -> torch.Tensor:
        exact = PublishedGATr(config).to(dtype)
        load(exact, state)
        with torch.no_grad():
            y, t = exact(*(part.to(dtype) for part in exact_inputs))
        np.savez(folder / "outputs.npz", x=y.numpy(), s=t.numpy())
        return y.sum() + t.sum()

    batch, tokens = x.shape[:2]
    about = {
        "code": f"published form, PyTorch {torch.__version__.partition('+')[0]}",
        "parameters": size(model),
        "edges": batch * tokens**2,
        "threads": torch.get_num_threads(),
        "warm_up": 1,
    }
    programs = {
        "forward": forward,
        "step": step,
        "outputs": lambda: written(torch.float32),
        "exact": lambda: written(torch.float64),
    }
    task = Task("gatr", False, [], None, folder, os.fdopen(int(descriptor), "w"))
    serve(task, about, programs)


if __name__ == "__main__":
    main()
