"""Occupancy from four small views: the ray transformer against baselines on the same pixels, upright and in any orientation.

    python -m benchmarks.rays FOLDER [--scenes 300 --tests 100 --steps 3000 --seed 0 --models ray-transformer,mlp-camera,…]

Scenes are those of `equiform.data.sets.rays_scenes`; models train on protocol "I" (names with `-augmented` on "SO(3)", a new
motion in every step) and are tested on both. Everything lands in FOLDER: scenes, checkpoints every 100 steps, `results.json`. A
command that was stopped resumes where it was; what is done is not done again.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.rays_models import SceneInputs, ViewMLP, WorldTransformer
from equiform.algebra.pluecker import rays_through
from equiform.data.pipeline.rotate import random_rotations
from equiform.data.sets.rays_scenes import SHIFT, RayScene, make_sample
from equiform.data.sets.sphere_tracing import visual_hull
from equiform.models.ray_transformer import PointViews, RayTokens, RayTransformer, RayTransformerConfig

PATCH, RAY_PATCH, RAYS = 5, 3, 64
BATCH, POINTS = 4, 128
SAVE_EVERY = 100

CONFIG = RayTransformerConfig(
    features=3 * RAY_PATCH**2,
    view_features=3 * PATCH**2 + 3,
    degrees=(0, 1),
    channels=16,
    num_heads=4,
    num_ray_layers=1,
    num_point_layers=2,
    radial_hidden=6,
    readout_hidden=64,
    posed=True,
)


def ray_model(config: RayTransformerConfig, key: Any) -> Any:
    """The ray transformer as a function of `SceneInputs`."""
    return RayTransformer(config, key=key)


MODELS: dict[str, Callable[[Any], Any]] = {
    "mlp-camera": lambda key: ViewMLP(3 * PATCH**2, "camera", key=key),
    "mlp-world": lambda key: ViewMLP(3 * PATCH**2, "world", key=key),
    "mlp-world-augmented": lambda key: ViewMLP(3 * PATCH**2, "world", key=key),
    "ray-transformer": lambda key: ray_model(CONFIG, key),
    "transformer-world": lambda key: WorldTransformer(3 * RAY_PATCH**2, 3 * PATCH**2, key=key),
    "transformer-world-augmented": lambda key: WorldTransformer(3 * RAY_PATCH**2, 3 * PATCH**2, key=key),
    "ray-transformer-unposed": lambda key: ray_model(CONFIG.model_copy(update={"posed": False}), key),
}


def logits(model: Any, scene: SceneInputs) -> jax.Array:
    """The logit of occupancy at each point, from any of the models."""
    if not isinstance(model, RayTransformer):
        return model(scene)
    depth, place = scene.view_depth, scene.view_place
    if not model.config.posed:
        depth, place = jnp.zeros_like(depth), jnp.zeros_like(place)
    features = jnp.concatenate([scene.view_patch, depth[..., None] - 3 * (depth[..., None] > 0), place], axis=-1)
    views = PointViews(scene.view_direction, depth - 3, features, scene.view_mask)
    mask = jnp.ones(scene.direction.shape[0], bool)
    tokens = RayTokens(rays_through(scene.centre, scene.direction), scene.patch, mask, scene.centre)
    return model(tokens, scene.points, views)


def patches(image: np.ndarray, row: np.ndarray, column: np.ndarray, size: int) -> np.ndarray:
    """Colours of the size × size pixels about the given ones, white outside, as values − 1."""
    half = size // 2
    padded = np.pad(image, ((half, half), (half, half), (0, 0)), constant_values=1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))
    return (windows[row, column] - 1).reshape(*row.shape, -1)


def inputs(scene: RayScene, chosen: np.ndarray, rng: np.random.Generator) -> SceneInputs:
    """Tokens of a scene: rays drawn with three quarters on the object, and the views of the chosen points."""
    pixels = scene.images.shape[1]
    hit, miss = (np.flatnonzero(mask.ravel()) for mask in (scene.silhouettes, ~scene.silhouettes))
    on = min(3 * RAYS // 4, len(hit))
    picked = np.concatenate([rng.choice(hit, on, replace=False), rng.choice(miss, RAYS - on, replace=False)])
    view, row, column = np.unravel_index(picked, scene.silhouettes.shape)
    focal = scene.intrinsics[0, 0]
    local = np.stack([(column + 0.5 - pixels / 2) / focal, (row + 0.5 - pixels / 2) / focal, np.ones(RAYS)], axis=-1)
    direction = np.einsum("rij,rj->ri", scene.rotation[view], local / np.linalg.norm(local, axis=-1, keepdims=True))
    patch = np.stack([patches(scene.images[v], r, c, RAY_PATCH) for v, r, c in zip(view, row, column)])

    points = scene.points[chosen]
    between = points[:, None] - scene.centre[None]
    depth = np.linalg.norm(between, axis=-1)
    seen = np.einsum("vji,pvj->pvi", scene.rotation, between)
    place = seen[..., :2] / seen[..., 2:]
    pixel = np.floor(focal * place + pixels / 2).astype(int)
    mask = (seen[..., 2] > 0) & ((pixel >= 0) & (pixel < pixels)).all(-1)
    inside = np.clip(pixel, 0, pixels - 1)
    views = range(len(scene.centre))
    view_patch = np.stack([patches(scene.images[v], inside[:, v, 1], inside[:, v, 0], PATCH) for v in views], axis=1)
    arrays = direction, scene.centre[view], patch, points, between / depth[..., None], depth, place, scene.centre, view_patch
    return SceneInputs(*(array.astype(np.float32) for array in arrays), mask)


def stacked(parts: list[SceneInputs]) -> SceneInputs:
    """Scenes along a first axis."""
    return SceneInputs(*(np.stack(arrays) for arrays in zip(*parts)))


def scenes_of(folder: Path, split: str, count: int) -> list[RayScene]:
    """The first scenes of a split, made once (protocol I)."""
    file = folder / f"{split}-{count}.npz"
    if not file.exists():
        made = [make_sample(split, number) for number in range(count)]
        np.savez_compressed(file, **{name: np.stack([getattr(s, name) for s in made]) for name in RayScene._fields})
    with np.load(file) as stored:
        arrays = [stored[name] for name in RayScene._fields]
    return [RayScene(*values) for values in zip(*arrays)]


def measured(predict: Callable[[RayScene, int], np.ndarray], scenes: list[RayScene]) -> dict[str, float]:
    """Intersection over union on the uniform points, the mean over scenes, and accuracy on all points."""
    hits, ratios = [], []
    for number, scene in enumerate(scenes):
        said, true = predict(scene, number), scene.signed_distance < 0
        uniform = np.arange(len(true)) < len(true) - len(true) // 2
        both, either = (said & true & uniform).sum(), ((said | true) & uniform).sum()
        ratios.append((both, either))
        hits.append((said == true).mean())
    both, either = np.array(ratios).T
    kept = either > 0
    per_scene = both[kept] / either[kept]
    return {
        "iou": float(both.sum() / either.sum()),
        "iou_per_scene": float(per_scene.mean()),
        "iou_standard_error": float(per_scene.std(ddof=1) / np.sqrt(kept.sum())),
        "accuracy": float(np.mean(hits)),
    }


def moved(scene: RayScene, rng: np.random.Generator) -> RayScene:
    """The scene after a motion of protocol SO(3)."""
    return scene.moved(random_rotations(1, rng)[0], rng.normal(scale=SHIFT, size=3))


@eqx.filter_jit
def step(model: Any, state: Any, scenes: SceneInputs, labels: jax.Array, optimizer: Any) -> tuple[Any, Any, jax.Array]:
    """One step of Adam on the mean cross-entropy."""

    def loss(model: Any) -> jax.Array:
        out = jax.vmap(lambda scene: logits(model, scene))(scenes)
        return optax.sigmoid_binary_cross_entropy(out, labels).mean()

    value, gradient = eqx.filter_value_and_grad(loss)(model)
    updates, state = optimizer.update(gradient, state)
    return eqx.apply_updates(model, updates), state, value


def save(file: Path, tree: Any, **numbers: Any) -> None:
    """All arrays of a tree, written completely or not at all."""
    leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(eqx.filter(tree, eqx.is_array)))}
    with open(part := file.with_suffix(".part"), "wb") as stream:
        np.savez(stream, **leaves, **{name: np.asarray(value) for name, value in numbers.items()})
    part.replace(file)


def load(file: Path, like: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """What `save` wrote, in a tree of the same form, and the numbers beside it."""
    arrays, static = eqx.partition(like, eqx.is_array)
    leaves, form = jax.tree.flatten(arrays)
    with np.load(file) as stored:
        values = {name: stored[name] for name in stored.files}
    found = [jnp.asarray(values.pop(f"leaf{i}")) for i in range(len(leaves))]
    return eqx.combine(jax.tree.unflatten(form, found), static), values


def train(name: str, scenes: list[RayScene], steps: int, seed: int, folder: Path) -> Any:
    """Train one model, from its last checkpoint if there is one."""
    model = MODELS[name](jax.random.key(seed))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(2e-3, steps, 0.01)))
    state = optimizer.init(eqx.filter(model, eqx.is_array))
    file, first, seconds, losses = folder / f"{name}-{steps}-{seed}.npz", 0, 0.0, []
    if file.exists():
        (model, state), numbers = load(file, (model, state))
        first, seconds = int(numbers["step"]), float(numbers["seconds"])
    for number in range(first, steps):
        begun, rng = time.perf_counter(), np.random.default_rng([seed, number])
        batch = [scenes[i] for i in rng.integers(0, len(scenes), BATCH)]
        chosen = [rng.choice(len(scene.points), POINTS, replace=False) for scene in batch]
        if name.endswith("-augmented"):
            batch = [moved(scene, rng) for scene in batch]
        labels = np.stack([scene.signed_distance[c] < 0 for scene, c in zip(batch, chosen)]).astype(np.float32)
        given = stacked([inputs(scene, c, rng) for scene, c in zip(batch, chosen)])
        model, state, value = step(model, state, given, labels, optimizer)
        losses.append(float(value))
        seconds += time.perf_counter() - begun
        if (number + 1) % SAVE_EVERY == 0 or number + 1 == steps:
            save(file, (model, state), step=number + 1, seconds=seconds)
            print(f"{name} seed {seed} step {number + 1}: loss {np.mean(losses):.4f}, {seconds:.0f} s", flush=True)
            losses = []
    return model, seconds


def predictor(model: Any) -> Callable[[RayScene, int], np.ndarray]:
    """Occupied or not at all points of a scene; the drawn rays depend on the number of the scene alone."""
    run = eqx.filter_jit(logits)

    def predict(scene: RayScene, number: int) -> np.ndarray:
        given = inputs(scene, np.arange(len(scene.points)), np.random.default_rng([7, number]))
        return np.asarray(run(model, SceneInputs(*map(jnp.asarray, given)))) > 0

    return predict


def hull(scene: RayScene, number: int) -> np.ndarray:
    """The visual hull from the true silhouettes; it has no parameters."""
    intrinsics = np.broadcast_to(scene.intrinsics, (len(scene.centre), 3, 3))
    return visual_hull(scene.points, scene.rotation, scene.centre, intrinsics, scene.silhouettes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=300, help="training scenes")
    parser.add_argument("--tests", type=int, default=100, help="test scenes")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", default=",".join(["hull", *MODELS]))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    train_scenes = scenes_of(options.folder, "train", options.scenes)
    upright = scenes_of(options.folder, "test", options.tests)
    turned = [moved(scene, np.random.default_rng([11, number])) for number, scene in enumerate(upright)]
    file = options.folder / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in options.models.split(","):
        row = f"{name} steps={options.steps} scenes={options.scenes} tests={options.tests} seed={options.seed}"
        if row in results:
            continue
        if name == "hull":
            predict, about = hull, {"parameters": 0, "seconds": 0.0}
        else:
            model, seconds = train(name, train_scenes, options.steps, options.seed, options.folder)
            count = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)))
            predict, about = predictor(model), {"parameters": count, "seconds": round(seconds)}
        results[row] = {**about, "I": measured(predict, upright), "SO(3)": measured(predict, turned)}
        file.write_text(json.dumps(results, indent=1))
        print(row, json.dumps(results[row]), flush=True)


if __name__ == "__main__":
    main()
