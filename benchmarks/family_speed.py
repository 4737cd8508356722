"""Speed of our jitted EGNN and Equivariant Transformer against PyTorch: forward pass and training step.

The same sizes, inputs and weights, so the same outputs (the difference is reported); float32, warm, one after the other on one
machine; minimum of five repeats. Compile times are listed too. EGNN's PyTorch form is written after its paper, the
transformer's is the pip package torchmd-net.

    python -m benchmarks.family_speed                                  ours
    python -m benchmarks.family_speed --torch PYTHON --json out.json   ours and PyTorch's, in that environment
    python -m benchmarks.family_speed --plot out.json speed.png        the figure
    python -m benchmarks.family_speed --markdown out.json              the table

Cases already in the file are skipped, so the measurement can be split into parts (`--minutes`, `--case`). `--cache FOLDER`
caches compiled programs, `--warm` only fills the cache: then a measurement does not wait for compilers. Compile times are those
of runs without a cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from equiform.__main__ import restart_with_large_pages

NODES, BATCHES = (5, 20, 50), (32, 128)
SIZES: dict[str, dict[str, Any]] = {
    "egnn": {"channels": 64, "num_layers": 4},
    "torchmd-et": {"channels": 128, "num_layers": 6, "num_basis": 32, "cutoff": 5.0},
}
NAMES = {"equiform": "Equiform, jitted", "eager": "PyTorch, eager", "compiled": "PyTorch, compiled"}


def inputs(nodes: int, batch: int, model: str) -> dict[str, np.ndarray]:
    """Random particles with all pairs as edges; for the transformer at atomic density, with pairs within its cutoff."""
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


def weights(model: str, built: Any) -> dict[str, np.ndarray]:
    """Our weights by their PyTorch names."""
    found: dict[str, np.ndarray] = {}

    def put(name: str, layer: Any) -> None:
        for part in ("weight", "bias"):
            if (value := getattr(layer, part)) is not None:
                found[f"{name}.{part}"] = np.asarray(value).T

    if model == "egnn":
        put("embedding", built.embedding)
        for number, layer in enumerate(built.layers):
            for name, mlp in (("edge", layer.edge), ("node", layer.node), ("follow", layer.follow)):
                put(f"layers.{number}.{name}.0", mlp.first)
                put(f"layers.{number}.{name}.2", mlp.second)
            put(f"layers.{number}.move.0", layer.move[0])
            put(f"layers.{number}.move.2", layer.move[1])
        return found
    import jax

    found["net.embedding.weight"] = np.asarray(built.embedding)
    around = built.neighbor_embedding
    found["net.neighbor_embedding.embedding.weight"] = np.asarray(around.embedding)
    put("net.neighbor_embedding.distance_proj", around.filter)
    put("net.neighbor_embedding.combine", around.combine)
    names = {"query": "q_proj", "keys": "k_proj", "values": "v_proj", "out": "o_proj", "vectors": "vec_proj"}
    names |= {"key_filter": "dk_proj", "value_filter": "dv_proj", "norm": "layernorm"}
    for number in range(built.config.num_layers):
        layer = jax.tree.map(lambda leaf, number=number: leaf[number], built.layers)
        for own, theirs in names.items():
            put(f"net.attention_layers.{number}.{theirs}", getattr(layer, own))
    put("net.out_norm", built.norm)
    for number, block in enumerate(built.blocks):
        name = f"out.output_network.{number}"
        put(f"{name}.vec1_proj", block.first)
        put(f"{name}.vec2_proj", block.second)
        put(f"{name}.update_net.layers.0", block.mix.first)
        put(f"{name}.update_net.layers.2", block.mix.second)
    return found


def ours(model: str, arrays: dict[str, np.ndarray], timed: bool) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Time of the jitted forward pass and training step (Adam) in seconds, and compile time of both; weights and output."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.family_speed_timing import best
    from equiform.graph import Graph
    from equiform.models import build_model
    from equiform.models.presets import preset
    from equiform.runtime.compilation import compiler_options

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
    forward = jax.jit(predict).lower(params, graph).compile(compiler_options())
    step = jax.jit(update).lower(params, optimizer.init(params), graph, target).compile(compiler_options())
    compile_seconds = time.perf_counter() - start
    state = optimizer.init(params)
    found = {"compile": compile_seconds, "parameters": sum(leaf.size for leaf in jax.tree.leaves(params))}
    if timed:
        found |= {
            "forward": best(lambda: jax.block_until_ready(forward(params, graph))),
            "step": best(lambda: jax.block_until_ready(step(params, state, graph, target))),
        }
    named = {f"weight:{name}": value for name, value in weights(model, built).items()}
    return found, {"output": np.asarray(forward(params, graph)), **named}


def run(arguments: argparse.Namespace, rows: list[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Measure the missing cases, ours and theirs in turn; the file is written after each."""
    forms = ["eager"] if arguments.quick or arguments.eager else ["eager", "compiled"]
    start = time.monotonic()
    environment = dict(os.environ)
    if arguments.cache is not None:
        import jax

        environment["TORCHINDUCTOR_CACHE_DIR"] = str(arguments.cache / "torch")
        jax.config.update("jax_compilation_cache_dir", str(arguments.cache / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    done = {(row["model"], row["nodes"], row["batch"]) for row in rows}
    every = [(m, n, b) for m in SIZES for n in (NODES[:2] if arguments.quick else NODES) for b in BATCHES]
    if arguments.quick:
        every = [case for case in every if case[2] == BATCHES[0]]
    if arguments.case:
        every = [(model, int(nodes), int(batch)) for model, nodes, batch in arguments.case]
    for model, nodes, batch in every:
        if (model, nodes, batch) in done or time.monotonic() - start > 60 * arguments.minutes:
            continue
        arrays = inputs(nodes, batch, model)
        row: dict[str, Any] = {"model": model, "nodes": nodes, "batch": batch, "edges": len(arrays["senders"])}
        row["cached"] = arguments.cache is not None
        row["equiform"], checked = ours(model, arrays, not arguments.warm)
        if arguments.torch is not None:
            row |= theirs(arguments.torch, model, arrays | checked, forms, environment, not arguments.warm)
        if not arguments.warm:
            rows.append(row)
        if arguments.json and not arguments.warm:
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
        say(line_of(row))


def theirs(
    python: str, model: str, arrays: dict[str, np.ndarray], forms: list[str], environment: dict[str, str], timed: bool
) -> dict[str, Any]:
    """The same in PyTorch, in a separate process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.npz"
        np.savez(path, allow_pickle=False, **arrays)
        case = {"model": model, "arrays": str(path), "forms": forms, "timed": timed, **SIZES[model]}
        script = Path(__file__).with_name("family_speed_torch.py")
        ended = subprocess.run(
            [python, str(script)], input=json.dumps(case) + "\n", capture_output=True, text=True, check=False, env=environment
        )
    if ended.returncode:
        sys.exit(f"{python}: {ended.stderr.strip().splitlines()[-1]}")
    return json.loads([line for line in ended.stdout.splitlines() if line.startswith("{")][-1])


def line_of(row: dict[str, Any]) -> str:
    """A case as a table line: forward pass / training step in milliseconds."""
    cells = [f"{row['model']:<11}{row['nodes']:>4} × {row['batch']:<4}{row['edges']:>7} edges"]
    for form in ("equiform", "eager", "compiled"):
        if (found := row.get(form)) is not None:
            cells.append(f"{form}: {in_words(found)} ({found.get('compile', 0):.0f} s)")
    if "difference" in row:
        cells.append(f"outputs differ by {row['difference']:.0e}")
    return "   ".join(cells)


def in_words(found: dict[str, Any] | None) -> str:
    """Forward pass / training step in milliseconds."""
    if found is None:
        return "–"
    if "forward" not in found:
        return str(found.get("error", "compiled"))
    return f"{1e3 * found['forward']:.2f} / {1e3 * found['step']:.2f}"


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    head = ["model", "nodes × graphs", "edges", "Equiform, jitted", "PyTorch, eager", "PyTorch, compiled", "difference"]
    lines = [head, ["---"] * 2 + ["---:"] * 5]
    for row in sorted(rows, key=lambda row: (list(SIZES).index(row["model"]), row["nodes"], row["batch"])):
        cells = [row["model"], f"{row['nodes']} × {row['batch']}", f"{row['edges']:,}"]
        cells += [in_words(row.get(form)) for form in ("equiform", "eager", "compiled")]
        lines.append([*cells, f"{row['difference']:.0e}" if "difference" in row else "–"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Training step and forward pass against the number of edges."""
    from equiform.report.plots import Curve, Panel, lines

    panels = []
    for model in SIZES:
        cases = sorted((row for row in rows if row["model"] == model), key=lambda row: row["edges"])
        for kind in ("forward", "step"):
            curves = []
            for form, name in NAMES.items():
                found = [(row["edges"], 1e3 * row[form][kind]) for row in cases if kind in row.get(form, {})]
                if found:
                    curves.append(Curve(name, *zip(*found), marked=True))
            title = f"{model}: {'forward pass' if kind == 'forward' else 'training step'}"
            panels.append(Panel(title, "edges of a batch", "ms", curves, log_y=True))
    lines(path, panels)


if __name__ == "__main__":
    restart_with_large_pages()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", metavar="PYTHON", help="interpreter with torch and torchmd-net")
    parser.add_argument("--quick", action="store_true", help="the small cases only, eager PyTorch only")
    parser.add_argument(
        "--eager", action="store_true", help="without compiled PyTorch, which compiles for up to a minute a case"
    )
    parser.add_argument("--json", type=Path, help="file for the results; cases already in it are skipped")
    parser.add_argument("--case", nargs=3, action="append", metavar=("MODEL", "NODES", "GRAPHS"), help="this case only")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no case later than this")
    parser.add_argument("--cache", type=Path, help="folder for compiled programs of both sides")
    parser.add_argument("--warm", action="store_true", help="compile only")
    parser.add_argument("--plot", nargs=2, type=Path, metavar=("JSON", "PNG"), help="plot saved results")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="print saved results as a table")
    arguments = parser.parse_args()
    if arguments.plot:
        plot(json.loads(arguments.plot[0].read_text()), arguments.plot[1])
    elif arguments.markdown:
        print(markdown(json.loads(arguments.markdown.read_text())))
    else:
        kept = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.is_file() else []
        run(arguments, kept, lambda line: print(line, flush=True))
