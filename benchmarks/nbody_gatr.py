"""GATr and its relatives on GATr's n-body task, in small: mean and median errors by model and number of samples.

    equiform data make nbody-gatr -o DATA
    python -m benchmarks.nbody_gatr DATA RESULTS.jsonl                    every model, 100 and 1,000 samples, one seed
    python -m benchmarks.nbody_gatr DATA RESULTS.jsonl --models gatr e-gatr --samples 1000 --steps 5000 --seeds 1 2 3
    python -m benchmarks.nbody_gatr DATA RESULTS.jsonl --table            the table in Markdown
    python -m benchmarks.nbody_gatr DATA RESULTS.jsonl --plot curve.png   error over samples

Same functions and data as the recipes `nbody-gatr …`, on dense arrays and with many steps in one program, for machines with
little time.
Results are added to the file one by one; what is there is not run again, so an interrupted study resumes.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from equiform.data.sets.nbody_samples import NBodySamples
from equiform.models.gatr import AlgebraName
from equiform.models.gatr_motion import MotionGATr, MotionGATrConfig
from equiform.models.token_baselines import TokenTransformer
from equiform.models.token_motion import TokenMotion, TokenMotionConfig
from equiform.persist.parameters import num_parameters

_AT_ONCE = 10  # steps in one call of the program
_EVALUATED = 250  # simulations in one call


class Setting(NamedTuple):
    """Sizes and training of a study.

    Attributes:
        blocks: Blocks of every network.
        steps: Steps of Adam, cosine to a hundredth of the rate.
        batch: Samples of a step.
        rate: Learning rate.
        tested: Simulations of every test set.
    """

    blocks: int
    steps: int
    batch: int
    rate: float
    tested: int


def gatr(setting: Setting, key: Any, *, algebra: AlgebraName, channels: int) -> Any:
    """A GATr of moving particles, centred."""
    sizes = {"channels": channels, "scalars": 32, "num_blocks": setting.blocks, "num_heads": 4}
    return MotionGATr(MotionGATrConfig.model_validate({"algebra": algebra, **sizes}), key=key)


def transformer(setting: Setting, key: Any, *, centred: bool) -> Any:
    """The paper's transformer, or the same with positions from the mean in and displacements out."""
    sizes = {"channels": 128, "num_blocks": setting.blocks}
    kind = {"centred": centred, "output": "displacement" if centred else "position"}
    return TokenMotion(TokenMotionConfig.model_validate(sizes | kind), key=key)


MODELS: dict[str, Callable[[Setting, Any], Any]] = {
    "gatr": partial(gatr, algebra="improved-projective", channels=8),
    "transformer-centred": partial(transformer, centred=True),
    "transformer": partial(transformer, centred=False),
    "transformer-augmented": partial(transformer, centred=False),
    "e-gatr": partial(gatr, algebra="euclidean", channels=16),
    "p-gatr": partial(gatr, algebra="projective", channels=8),
    "c-gatr": partial(gatr, algebra="conformal", channels=4),
}


def arrays_of(folder: Path, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (samples, bodies, 7), as positions, velocities and masses, and displacements (samples, bodies, 3)."""
    samples = NBodySamples.read(folder / f"{split}.npz")[:count]
    x, v, m = (np.asarray(array, np.float32) for array in samples.trajectories)
    return np.concatenate([x[:, 0], v[:, 0], m[..., None]], axis=-1), x[:, samples.horizon] - x[:, 0]


def displacements(model: Any, inputs: jax.Array) -> jax.Array:
    """The model's displacements of sets of equal size."""
    centre = inputs[..., :3].mean(1, keepdims=True) if model.config.centred else jnp.zeros_like(inputs[:, :1, :3])
    local = jnp.concatenate([inputs[..., :3] - centre, inputs[..., 3:]], axis=-1)
    segments = jnp.zeros(inputs.shape[:2], jnp.int32)
    if isinstance(model, TokenMotion) and isinstance(model.network, TokenTransformer):
        out = model.network(local, segments=segments)
        return out if model.config.output == "displacement" else out - local[..., :3]
    return model.positions_after(local, segments) - local[..., :3]


def run(folder: Path, name: str, samples: int, seed: int, setting: Setting) -> dict[str, Any]:
    """Train one model and evaluate it on the three sets."""
    key = jax.random.key(seed)
    params, static = eqx.partition(MODELS[name](setting, key), eqx.is_inexact_array)
    schedule = optax.cosine_decay_schedule(setting.rate, setting.steps, 0.01)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))
    state = optimizer.init(params)

    def loss(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        return ((displacements(eqx.combine(params, static), inputs) - targets) ** 2).mean()

    @jax.jit
    def train(params: Any, state: Any, inputs: jax.Array, targets: jax.Array) -> tuple[Any, Any, jax.Array]:
        def step(carry: Any, batch: Any) -> Any:
            params, state = carry
            value, slopes = jax.value_and_grad(loss)(params, *batch)
            updates, state = optimizer.update(slopes, state, params)
            return (optax.apply_updates(params, updates), state), value

        (params, state), values = jax.lax.scan(step, (params, state), (inputs, targets))
        return params, state, values.mean()

    predict = jax.jit(lambda params, inputs: displacements(eqx.combine(params, static), inputs))
    inputs, targets = arrays_of(folder, "train", samples)
    rng, start, last = np.random.default_rng(seed), time.process_time(), np.inf
    for _ in range(setting.steps // _AT_ONCE):
        rows = rng.integers(samples, size=(_AT_ONCE, setting.batch))
        batch, wanted = inputs[rows], targets[rows]
        if name.endswith("augmented"):
            batch, wanted = rotated(batch, wanted, rng)
        params, state, last = train(params, state, batch, wanted)
    errors: dict[str, Any] = {}
    for label, split in (("eval", "test"), ("e3", "e3"), ("object", "object")):
        x, y = arrays_of(folder, split, setting.tested)
        found = np.concatenate([predict(params, x[k : k + _EVALUATED]) for k in range(0, len(x), _EVALUATED)])
        each = ((found.astype(float) - y) ** 2).mean(axis=(1, 2))
        errors[label] = [float(each.mean()), float(np.median(each))]
    return {
        "model": name,
        "samples": samples,
        "seed": seed,
        **setting._asdict(),
        "parameters": num_parameters(eqx.combine(params, static)),
        "train": float(last),
        "errors": errors,
        "seconds": round(time.process_time() - start, 1),
    }


def rotated(inputs: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples with a random rotation about the origin each."""
    matrices, r = np.linalg.qr(rng.normal(size=(*inputs.shape[:2], 3, 3)))
    matrices *= np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
    matrices[..., 0] *= np.linalg.det(matrices)[..., None]
    by = np.swapaxes(matrices, -1, -2).astype(np.float32)
    parts = [part @ by for part in (inputs[..., :3], inputs[..., 3:6], targets)]
    return np.concatenate([*parts[:2], inputs[..., 6:]], axis=-1), parts[2]


def table(results: list[dict[str, Any]]) -> str:
    """Mean and median errors by model and samples, averaged over seeds, with the spread of the mean errors."""
    sets = ("eval", "e3", "object")
    heads = ["model", "parameters", "samples", "seeds", "train", *(f"{name}, mean (median)" for name in sets)]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["model"], result["samples"]), []).append(result)
    for (name, samples), members in sorted(groups.items(), key=lambda group: (list(MODELS).index(group[0][0]), -group[0][1])):
        cells = []
        for label in sets:
            each, medians = np.transpose([member["errors"][label] for member in members])
            spread = f" ± {each.std(ddof=1):.1g}" if len(members) > 1 else ""
            cells.append(f"{each.mean():.2g}{spread} ({medians.mean():.2g})")
        train = np.mean([member["train"] for member in members])
        cells = [name, f"{members[0]['parameters']:,}", f"{samples:,}", str(len(members)), f"{train:.2g}", *cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Median error on the eval set over the number of samples: each seed as a dot, lines through the geometric means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name in dict.fromkeys(result["model"] for result in results):
        points: dict[int, list[float]] = {}
        for result in results:
            if result["model"] == name:
                points.setdefault(result["samples"], []).append(result["errors"]["eval"][1])
        counts = sorted(points)
        (line,) = axes.plot(counts, [np.exp(np.mean(np.log(points[count]))) for count in counts], label=name)
        for count in counts:
            axes.plot([count] * len(points[count]), points[count], "o", color=line.get_color(), markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="training samples", ylabel="median of the squared error, eval set")
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is missing, or show what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of nbody-gatr")
    parser.add_argument("results", type=Path, help="JSON lines")
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=tuple(MODELS))
    parser.add_argument("--samples", nargs="+", type=int, default=(1000, 100))
    parser.add_argument("--seeds", nargs="+", type=int, default=(1,))
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--tested", type=int, default=1000)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    results = [json.loads(line) for line in lines]
    if options.table or options.plot:
        print(table(results))
        if options.plot:
            plot(results, options.plot)
        return
    setting = Setting(options.blocks, options.steps, options.batch, options.rate, options.tested)
    done = {tuple(result[key] for key in ("model", "samples", "seed", *Setting._fields)) for result in results}
    for seed in options.seeds:
        for name in options.models:
            for samples in options.samples:
                if (name, samples, seed, *setting) not in done:
                    result = run(options.data, name, samples, seed, setting)
                    with options.results.open("a") as file:
                        file.write(json.dumps(result) + "\n")
                    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
