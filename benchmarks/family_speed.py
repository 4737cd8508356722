"""How fast EGNN and the Equivariant Transformer are here, jitted, and in PyTorch: forward pass and training step.

The same sizes and the same inputs, float32, warm, one after the other on one machine; the least of five repeats. The time to
compile stands beside it.

    python -m benchmarks.family_speed                                  ours
    python -m benchmarks.family_speed --torch PYTHON --json out.json   and the authors' form, in that environment
    python -m benchmarks.family_speed --plot out.json speed.png        the figure
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NODES, BATCHES = (5, 20, 50), (32, 128)
SIZES: dict[str, dict[str, Any]] = {
    "egnn": {"channels": 64, "num_layers": 4},
    "torchmd-et": {"channels": 128, "num_layers": 6, "num_basis": 32, "cutoff": 5.0},
}
NAMES = {"equiform": "Equiform, jitted", "eager": "PyTorch, eager", "compiled": "PyTorch, compiled"}


def inputs(nodes: int, batch: int, model: str) -> dict[str, np.ndarray]:
    """Random particles, all pairs as edges; for the transformer at the density of atoms, pairs within its cutoff."""
    rng = np.random.default_rng(nodes)
    side = 2.2 * nodes ** (1 / 3)
    positions = rng.uniform(0, side, (batch, nodes, 3)).astype(np.float32)
    edges = []
    for number in range(batch):
        distance = np.linalg.norm(positions[number, :, None] - positions[number], axis=-1)
        near = ~np.eye(nodes, dtype=bool) & (distance < (SIZES[model].get("cutoff") or np.inf))
        edges.append(np.argwhere(near) + number * nodes)
    receivers, senders = np.concatenate(edges).T.astype(np.int64)
    atoms = batch * nodes
    return {
        "positions": positions.reshape(-1, 3),
        "receivers": receivers,
        "senders": senders,
        "species": rng.choice([1, 6, 7, 8], atoms),
        "graph_index": np.repeat(np.arange(batch), nodes),
        "velocity": rng.normal(size=(atoms, 3)).astype(np.float32),
        "charge": rng.choice([-1.0, 1.0], atoms).astype(np.float32),
        "displacement": rng.normal(size=(atoms, 3)).astype(np.float32),
        "energy": rng.normal(size=batch).astype(np.float32),
    }


def ours(model: str, arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Seconds of the jitted forward pass and training step (Adam), and of compiling both."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.family_speed_timing import best
    from equiform.graph import Graph
    from equiform.models import build_model
    from equiform.models.presets import preset

    sizes, atoms, edges = SIZES[model], len(arrays["species"]), len(arrays["senders"])
    graphs = len(arrays["energy"])
    graph = Graph(
        positions=jnp.asarray(arrays["positions"]),
        species=jnp.asarray(arrays["species"], jnp.int32) * (model != "egnn"),
        senders=jnp.asarray(arrays["senders"], jnp.int32),
        receivers=jnp.asarray(arrays["receivers"], jnp.int32),
        shifts=jnp.zeros((edges, 3), jnp.int32),
        cell=jnp.zeros((graphs, 3, 3)),
        graph_index=jnp.asarray(arrays["graph_index"], jnp.int32),
        atom_mask=jnp.ones(atoms, bool),
        edge_mask=jnp.ones(edges, bool),
        graph_mask=jnp.ones(graphs, bool),
        node_fields={"velocity": jnp.asarray(arrays["velocity"]), "charge": jnp.asarray(arrays["charge"])},
    )
    name = "egnn-nbody" if model == "egnn" else "torchmd-et-md17"
    built = build_model(preset(name, **sizes), key=jax.random.key(0))
    params, static = eqx.partition(built, eqx.is_inexact_array)
    target = jnp.asarray(arrays["displacement" if model == "egnn" else "energy"])
    optimizer = optax.adam(1e-4)

    def predict(params: Any, graph: Any) -> Any:
        outputs = eqx.combine(params, static)(graph)
        return outputs["displacement"] if model == "egnn" else graph.sum_over_atoms(outputs["energy"])

    def update(params: Any, state: Any, graph: Any, target: Any) -> Any:
        gradient = jax.grad(lambda p: ((predict(p, graph) - target) ** 2).mean())(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    start = time.perf_counter()
    forward = jax.jit(predict).lower(params, graph).compile()
    step = jax.jit(update).lower(params, optimizer.init(params), graph, target).compile()
    compile_seconds = time.perf_counter() - start
    state = optimizer.init(params)
    return {
        "forward": best(lambda: jax.block_until_ready(forward(params, graph))),
        "step": best(lambda: jax.block_until_ready(step(params, state, graph, target))),
        "compile": compile_seconds,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    }


def run(python: str | None, quick: bool, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All cases, ours and theirs in turn."""
    rows = []
    forms = ["eager"] if quick else ["eager", "compiled"]
    with tempfile.TemporaryDirectory() as folder:
        for model in SIZES:
            for nodes in NODES[:2] if quick else NODES:
                for batch in BATCHES[:1] if quick else BATCHES:
                    arrays = inputs(nodes, batch, model)
                    row: dict[str, Any] = {"model": model, "nodes": nodes, "batch": batch, "edges": len(arrays["senders"])}
                    row["equiform"] = ours(model, arrays)
                    if python is not None:
                        path = Path(folder) / "case.npz"
                        np.savez(path, **arrays)
                        case = {"model": model, "arrays": str(path), "forms": forms, **SIZES[model]}
                        script = Path(__file__).with_name("family_speed_torch.py")
                        ended = subprocess.run(
                            [python, str(script)], input=json.dumps(case) + "\n", capture_output=True, text=True, check=False
                        )
                        if ended.returncode:
                            sys.exit(f"{python}: {ended.stderr.strip().splitlines()[-1]}")
                        row |= json.loads([line for line in ended.stdout.splitlines() if line.startswith("{")][-1])
                    rows.append(row)
                    say(line_of(row))
    return rows


def line_of(row: dict[str, Any]) -> str:
    """A case as a line of a table: milliseconds of forward pass / training step."""
    cells = [f"{row['model']:<11}{row['nodes']:>4} × {row['batch']:<4}{row['edges']:>7} edges"]
    for form in ("equiform", "eager", "compiled"):
        found = row.get(form)
        if found is not None:
            told = (
                found.get("error") or f"{1e3 * found['forward']:.2f} / {1e3 * found['step']:.2f} ms ({found['compile']:.0f} s)"
            )
            cells.append(f"{form}: {told}")
    return "   ".join(cells)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Training step and forward pass against the number of edges."""
    from equiform.analysis.plots import Curve, Panel, lines

    panels = []
    for model in SIZES:
        cases = sorted((row for row in rows if row["model"] == model), key=lambda row: row["edges"])
        for kind in ("forward", "step"):
            curves = []
            for form, name in (
                ("equiform", "Equiform, jitted"),
                ("eager", "PyTorch, eager"),
                ("compiled", "PyTorch, compiled"),
            ):
                found = [(row["edges"], 1e3 * row[form][kind]) for row in cases if kind in row.get(form, {})]
                if found:
                    curves.append(Curve(name, *zip(*found), marked=True))
            title = f"{model}: {'forward pass' if kind == 'forward' else 'training step'}"
            panels.append(Panel(title, "edges of a batch", "ms", curves, log_y=True))
    lines(path, panels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", metavar="PYTHON", help="interpreter with torch and torchmd-net")
    parser.add_argument("--quick", action="store_true", help="the small cases only, eager PyTorch only")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--plot", nargs=2, metavar=("JSON", "PNG"), help="draw numbers that were written before")
    arguments = parser.parse_args()
    if arguments.plot:
        plot(json.loads(Path(arguments.plot[0]).read_text()), Path(arguments.plot[1]))
    else:
        found = run(arguments.torch, arguments.quick, lambda line: print(line, flush=True))
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")
