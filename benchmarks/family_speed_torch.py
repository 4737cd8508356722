"""The PyTorch side of benchmarks.family_speed: EGNN as its authors write it, and the pip package torchmd-net.

Run by `python -m benchmarks.family_speed --torch PYTHON` in an environment that has torch (and torchmd-net). It reads the cases
from standard input and prints one line of JSON per case.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from family_speed_timing import best  # in the same folder; this file is run as a script
from torch import nn


class Layer(nn.Module):
    """One layer of the N-body model: per-edge networks on concatenated inputs, sums by index."""

    def __init__(self, width: int):
        super().__init__()
        self.edge = nn.Sequential(nn.Linear(2 * width + 3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.node = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.move = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1, bias=False))
        self.follow = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, h: Any, x: Any, rows: Any, columns: Any, velocity: Any, attributes: Any) -> Any:
        difference = x[rows] - x[columns]
        squared = (difference**2).sum(1, keepdim=True)
        message = self.edge(torch.cat([h[rows], h[columns], squared, attributes], dim=1))
        step = torch.clamp(difference * self.move(message), -100, 100)
        zeros = torch.zeros_like(x)
        number = zeros.index_add(0, rows, torch.ones_like(step)).clamp(min=1)
        x = x + zeros.index_add(0, rows, step) / number + self.follow(h) * velocity
        received = torch.zeros_like(h).index_add(0, rows, message)
        return h + self.node(torch.cat([h, received], dim=1)), x


class EGNN(nn.Module):
    """The published N-body model."""

    def __init__(self, width: int, num_layers: int):
        super().__init__()
        self.embedding = nn.Linear(1, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(num_layers))

    def forward(self, x: Any, rows: Any, columns: Any, velocity: Any, charge: Any) -> Any:
        start = x
        h = self.embedding(velocity.norm(dim=1, keepdim=True))
        squared = ((x[rows] - x[columns]) ** 2).sum(1, keepdim=True)
        attributes = torch.cat([(charge[rows] * charge[columns])[:, None], squared], dim=1)
        for layer in self.layers:
            h, x = layer(h, x, rows, columns, velocity, attributes)
        return x - start


def egnn(case: dict[str, Any], arrays: dict[str, np.ndarray]) -> tuple[nn.Module, tuple[Any, ...], Any]:
    model = EGNN(case["channels"], case["num_layers"])
    inputs = tuple(torch.tensor(arrays[name]) for name in ("positions", "receivers", "senders", "velocity", "charge"))
    return model, inputs, torch.tensor(arrays["displacement"])


def torchmd_et(case: dict[str, Any], arrays: dict[str, np.ndarray]) -> tuple[nn.Module, tuple[Any, ...], Any]:
    from torchmdnet.models.output_modules import EquivariantScalar
    from torchmdnet.models.torchmd_et import TorchMD_ET

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = TorchMD_ET(
                hidden_channels=case["channels"],
                num_layers=case["num_layers"],
                num_rbf=case["num_basis"],
                trainable_rbf=False,
                cutoff_upper=case["cutoff"],
                max_num_neighbors=64,
            )
            self.out = EquivariantScalar(case["channels"])

        def forward(self, z: Any, x: Any, batch: Any) -> Any:
            features, vectors, z, x, batch = self.net(z, x, batch)
            return self.out.reduce(self.out.pre_reduce(features, vectors, z, x, batch), batch)[:, 0]

    inputs = tuple(torch.tensor(arrays[name]) for name in ("species", "positions", "graph_index"))
    return Net(), inputs, torch.tensor(arrays["energy"])


def measure(case: dict[str, Any]) -> dict[str, Any]:
    arrays = dict(np.load(case["arrays"]))
    model, inputs, target = (egnn if case["model"] == "egnn" else torchmd_et)(case, arrays)
    given = {name.removeprefix("weight:"): torch.tensor(value) for name, value in arrays.items() if name.startswith("weight:")}
    missing = set(dict(model.named_parameters())) ^ set(given)
    if missing:
        raise SystemExit(f"weights do not match: {', '.join(sorted(missing))}")
    model.load_state_dict(given, strict=False)
    with torch.no_grad():
        output = model(*inputs).numpy()
    difference = float(np.abs(output - arrays["output"]).max() / np.abs(arrays["output"]).max())
    if not difference < 1e-3:
        raise SystemExit(f"relative output difference {difference:.1e}: this would not compare the same function")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    number = sum(p.numel() for p in model.parameters())
    result: dict[str, Any] = {"parameters": number, "difference": difference, "torch": torch.__version__}
    for form in case["forms"]:
        start = time.perf_counter()
        try:
            called = torch.compile(model) if form == "compiled" else model

            def forward(called: Any = called) -> None:
                with torch.no_grad():
                    called(*inputs)

            def step(called: Any = called) -> None:
                optimizer.zero_grad()
                ((called(*inputs) - target) ** 2).mean().backward()
                optimizer.step()

            forward()
            step()
            ready = time.perf_counter() - start
            result[form] = {"compile": ready}
            if case["timed"]:
                result[form] |= {"forward": best(forward), "step": best(step)}
        except Exception as error:  # A failed compilation is reported, not hidden.
            result[form] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
    return result


if __name__ == "__main__":
    torch.manual_seed(0)
    for line in sys.stdin:
        print(json.dumps(measure(json.loads(line))), flush=True)
