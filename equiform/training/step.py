"""One training step: loss, gradient, clipping, AdamW, EMA; compiled once per capacity.

The members of a committee take their steps side by side, as one program (`vmap` over the weights): each has its own loss,
gradient norm, moments and dropout, all read the same batch.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array

from equiform.errors import UserError
from equiform.persist.parameters import split, with_dtype
from equiform.runtime.compilation import compiler_options, without_garbage_collection
from equiform.runtime.stored_programs import load_or_compile
from equiform.tasks.api import Task
from equiform.tasks.members import as_member, num_members
from equiform.training import optimizer, parallel
from equiform.training.adapters import Adaptation
from equiform.training.batches import Batch
from equiform.training.config import LossConfig, TrainingConfig
from equiform.training.frozen import free_mask, only_free
from equiform.training.loss import Mean, loss_terms, mean
from equiform.training.muon import Muon

NO_STEP = -1


class TrainState(eqx.Module):
    """The state that a step updates.

    Attributes:
        params: The weights that are trained: the parameters, or the adapters and what is trained with them.
        ema: Their EMA as one vector, of a committee one for each member; None if it is switched off.
        optimizer: Adam's first and second moments, likewise.
        step: Number of completed steps.
        sums: Sums since the last entry of the metrics log: loss, terms and gradient norm; of a committee their means over the
            members, and the loss of each; and under `bad_step` the first step whose loss or gradient was not finite.
        frozen: The old model's parameters under the adapters; None without adapters.
    """

    params: Any
    ema: Any
    optimizer: Any
    step: Array
    sums: dict[str, Array]
    frozen: Any = None


class TrainingStep:
    """`state, loss = step(state, batch, rate, weights)`; the state's buffers are donated.

    A step whose loss or gradient is not finite changes no weight and is noted in `state.sums["bad_step"]`.

    Args:
        task: The model; its weights are not touched.
        config: Training settings.
        terms: The terms of the loss.
        say: Called with a message after every compilation.
        working: Announces a compilation while it lasts.
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        terms: Mapping[str, LossConfig],
        say: Callable[[str], None],
        working: Callable[[str], AbstractContextManager[None]] = nullcontext,
    ):
        self.config, self.terms = config, dict(terms)
        self.dtype, self.members = np.dtype(config.dtype), num_members(task)
        params, self.static = split(with_dtype(task, self.dtype))
        self._params, self._frozen = params, None
        self._adam = optimizer.adam(config)
        self._muon = Muon(task) if config.optimizer == "muon" else None
        self._decays = optimizer.decay_mask(task, params)
        self.free = free_mask(task, params, config.freeze) if config.freeze else None
        self.adaptation = None
        if config.adapters is not None:
            adaptation = self.adaptation = Adaptation(task, params, config.adapters)
            self._params, self._frozen = adaptation.initial(params, config.seed), adaptation.frozen(params)
            self._decays = adaptation.spread(self._decays, self._params)
            self.free = adaptation.spread(self.free, self._params) if self.free is not None else None
        # As programs: done slice by slice it is a hundred small ones, which take seconds to compile.
        if self.members == 1:
            self._unflatten = jax.jit(optimizer.flattened(self._params)[1])
        else:
            one = jax.tree.map(lambda leaf: np.zeros(leaf.shape[1:], leaf.dtype), params)
            self._unflatten = jax.jit(jax.vmap(optimizer.flattened(one)[1]))
        self._merge = jax.jit(self._merged)
        self.mesh = parallel.mesh_of(config.devices if self.members == 1 else 1, config.batch_size)
        self._compiled: dict[Any, Any] = {}
        self._say, self._working = say, working
        self.compile_seconds = 0.0

    @property
    def compilations(self) -> int:
        """Number of programs compiled so far."""
        return len(self._compiled)

    def initial_state(self) -> TrainState:
        """The state before the first step."""
        vector, moments = self._vector_and_moments()
        state = TrainState(
            params=jax.tree.map(jnp.copy, self._params),
            ema=jnp.copy(vector) if self.config.ema is not None else None,
            optimizer=moments,
            step=jnp.zeros((), jnp.int32),
            sums=self.zero_sums(),
            frozen=jax.tree.map(jnp.copy, self._frozen),
        )
        return parallel.replicated(self.mesh, state)

    def _vector_and_moments(self) -> tuple[Array, Any]:
        if self.members == 1:
            vector = optimizer.flattened(self._params)[0]
            return vector, self._adam.init(vector)
        vectors = jax.jit(jax.vmap(lambda params: optimizer.flattened(params)[0]))(self._params)
        return vectors, jax.vmap(self._adam.init)(vectors)

    def weights_to_keep(self, state: TrainState) -> Any:
        """The parameters of the model, with the EMA of the weights if it is on, as a tree on the first device."""
        trained, frozen = parallel.single(self.mesh, (state.params, state.frozen))
        if state.ema is not None:
            trained = self._unflatten(parallel.single(self.mesh, state.ema))
        return trained if self.adaptation is None else self._merge(trained, frozen)

    def _merged(self, trained: Any, frozen: Any) -> Any:
        return trained if self.adaptation is None else self.adaptation.merged(trained, frozen)

    @property
    def summed(self) -> list[str]:
        """Names of the sums whose means go to the metrics log."""
        return ["loss", *self.terms, "gradient_norm", *(_member_loss(k) for k in range(self.members) if self.members > 1)]

    def zero_sums(self) -> dict[str, Array]:
        """Sums over zero steps."""
        # Each needs its own buffer: they are donated one by one.
        sums = {name: jnp.zeros((), self.dtype) for name in self.summed} | {"bad_step": jnp.full((), NO_STEP, jnp.int32)}
        return parallel.replicated(self.mesh, sums)

    def __call__(self, state: TrainState, batch: Batch, rate: float, weights: list[float]) -> Any:
        numbers = np.asarray([rate, *weights], self.dtype)
        program = self._compiled.get(batch.signature)
        if program is None:
            program = self._compiled[batch.signature] = self._compile(state, batch, numbers)
        return program(state, batch.graph, numbers)

    def _compile(self, state: TrainState, batch: Batch, numbers: np.ndarray) -> Any:
        size = batch.capacity
        what = f"the training step for {size.atoms} atoms, {size.edges} edges, {size.graphs} structures"
        what += f" on each of {self.mesh.size} devices" if self.mesh.size > 1 else ""
        start = time.perf_counter()
        with self._working(f"compiling {what}"):
            program = self.compiled(state, batch.graph, numbers)
        seconds = time.perf_counter() - start
        self.compile_seconds += seconds
        self._say(f"compiled it in {seconds:.1f} s")
        return program

    def lowered(self, state: TrainState, graph: Any, numbers: Array | np.ndarray) -> jax.stages.Lowered:
        """The lowered step; `numbers` are the learning rate and the weight of each term."""
        with without_garbage_collection():
            return jax.jit(self._step, donate_argnums=0).lower(state, graph, numbers)

    def compiled(self, state: TrainState, graph: Any, numbers: Array | np.ndarray) -> Any:
        """The compiled step, `state, loss = program(state, graph, numbers)`; the state is donated."""

        def compile() -> Any:
            return self.lowered(state, graph, numbers).compile(compiler_options=compiler_options())

        if self.mesh.size > 1 or jax.process_count() > 1:
            return compile()
        parts = (self.static, self.config, self.terms)
        return load_or_compile(parts, (state, graph, numbers), (state, numbers), compile)

    def _step(self, state: TrainState, graph: Any, numbers: Array) -> tuple[TrainState, Array]:
        key = jax.random.fold_in(jax.random.key(self.config.seed), state.step)
        weights = (state.params, state.ema, state.optimizer)
        if self.members == 1:
            updated, found = self._updated(weights, state.frozen, graph, key, numbers, state.step)
        else:
            side_by_side = jax.vmap(self._updated, in_axes=(0, None, None, 0, None, None))
            keys = jax.random.split(key, self.members)
            updated, found = side_by_side(weights, state.frozen, graph, keys, numbers, state.step)
        good = jnp.all(jnp.isfinite(found["loss"]) & jnp.isfinite(found["gradient_norm"]))
        changed = jax.tree.map(lambda new, old: jnp.where(good, new, old), updated, weights)
        if self.members > 1:
            each = {_member_loss(k): found["loss"][k] for k in range(self.members)}
            found = {name: value.mean() for name, value in found.items()} | each
        sums = {name: state.sums[name] + value for name, value in found.items()}
        first_bad = (state.sums["bad_step"] == NO_STEP) & ~good
        sums["bad_step"] = jnp.where(first_bad, state.step, state.sums["bad_step"])
        return TrainState(*changed, step=state.step + 1, sums=sums, frozen=state.frozen), found["loss"]

    def _updated(
        self, weights: tuple[Any, Any, Any], frozen: Any, graph: Any, key: Array, numbers: Array, step: Array
    ) -> tuple[tuple[Any, Any, Any], dict[str, Array]]:
        """Parameters, EMA and moments of one model after the step; its loss, gradient norm and terms."""
        config, rate = self.config, numbers[0]
        params, ema, moments = weights
        (loss, means), gradient = self._gradient(params, frozen, graph, key, numbers[1:])
        if self.free is not None:
            gradient = only_free(self.free, gradient, jax.tree.map(jnp.zeros_like, gradient))
        gradient, unflatten = optimizer.flattened(gradient)
        norm = jnp.linalg.norm(gradient)
        clipped = optimizer.clipped(gradient, config.clip)
        vector, moments = self._adam.update(clipped, moments)
        direction = unflatten(vector)
        if self._muon is not None:
            direction = self._muon(unflatten(optimizer.nesterov(config, moments, clipped)), direction)
        decay = {"decay": config.weight_decay, "mask": self._decays}
        new = optimizer.apply_step(params, direction, rate, **decay)
        if self.free is not None:  # Frozen parameters do not decay either.
            new = only_free(self.free, new, params)
        if config.ema is not None:
            ema = optimizer.ema_updated(ema, optimizer.flattened(new)[0], step, config.ema)
        return (new, ema, moments), {"loss": loss, "gradient_norm": norm, **means}

    def _gradient(
        self, params: Any, frozen: Any, graph: Any, key: Array, weights: Array
    ) -> tuple[tuple[Array, dict[str, Array]], Any]:
        """Loss, means and gradient of the batch, on all devices."""

        def part(
            params: Any, frozen: Any, graph: Any, key: Array, weights: Array
        ) -> tuple[tuple[Array, dict[str, Array]], Any]:
            """The same of one device's shard of the batch, or of all of it."""

            def loss_of(params: Any) -> tuple[Array, dict[str, Array]]:
                task = eqx.combine(self._merged(params, frozen), self.static)
                task = task if self.members == 1 else as_member(task)
                outputs = task.for_training(graph, self.terms, key=key)
                terms = loss_terms(outputs, graph, self.terms)
                means = {name: mean(Mean(term.total, everywhere(jnp.asarray(term.count)))) for name, term in terms.items()}
                total = sum((weights[i] * value for i, value in enumerate(means.values())), jnp.zeros_like(weights[0]))
                return total, means

            def everywhere(value: Array) -> Array:
                return jax.lax.psum(value, parallel.AXIS) if self.mesh.size > 1 else value

            return jax.tree.map(everywhere, jax.value_and_grad(loss_of, has_aux=True)(params))

        if self.mesh.size == 1:
            return part(params, frozen, graph, key, weights)

        def on_device(params: Any, frozen: Any, stacked: Any, weights: Array) -> Any:
            own = jax.random.fold_in(key, jax.lax.axis_index(parallel.AXIS))
            return part(params, frozen, jax.tree.map(lambda leaf: leaf[0], stacked), own, weights)

        specs = (PartitionSpec(), PartitionSpec(), PartitionSpec(parallel.AXIS), PartitionSpec())
        shared = jax.shard_map(on_device, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)
        return shared(params, frozen, graph, weights)


def _member_loss(index: int) -> str:
    return f"loss_member_{index + 1}"


def explain_failure(step: int, sums: Mapping[str, float], indices: np.ndarray | None, kept: str) -> UserError:
    """The error for a non-finite loss or gradient.

    Args:
        step: Number of steps before the bad one.
        sums: The accumulated sums.
        indices: Structures of that step, if known.
        kept: What was saved, as text.
    """
    bad = [name for name in sums if name not in ("loss", "gradient_norm") and not np.isfinite(sums[name])]
    if bad:
        what = f"the loss is not finite (its term {', '.join(bad)})"
    elif not np.isfinite(sums["loss"]):
        what = "the loss is not finite"
    else:
        what = "the loss is finite, but its gradient is not"
    if indices is not None:
        some = ", ".join(map(str, sorted(indices.tolist())[:12]))
        what += f"; its batch contains the training structures {some}{', ...' if len(indices) > 12 else ''}"
    return UserError(
        f"training stopped at step {step + 1}: {what}. Try a lower training.learning_rate, a longer warm-up "
        f"(training.warmup_fraction), a smaller training.clip or training.dtype=float64, and check the "
        f"data for overlapping atoms and outliers; {kept}"
    )
