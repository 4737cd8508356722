"""One training step: loss, gradient, clipping, AdamW, EMA; compiled once per capacity."""

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
from equiform.training import optimizer, parallel
from equiform.training.adapters import Adaptation
from equiform.training.batches import Batch
from equiform.training.config import LossConfig, TrainingConfig
from equiform.training.frozen import free_mask, only_free
from equiform.training.loss import Mean, loss_terms, mean

NO_STEP = -1


class TrainState(eqx.Module):
    """The state that a step updates.

    Attributes:
        params: The weights that are trained: the parameters, or the adapters and what is trained with them.
        ema: Their EMA as one vector; None if it is switched off.
        optimizer: Adam's first and second moments, likewise.
        step: Number of completed steps.
        sums: Sums since the last entry of the metrics log: loss, terms, gradient norm; and under `bad_step` the
            first step whose loss or gradient was not finite.
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
        self.dtype = np.dtype(config.dtype)
        params, self.static = split(with_dtype(task, self.dtype))
        self._params, self._frozen = params, None
        self._adam = optimizer.adam(config)
        self._decays = optimizer.decay_mask(task, params)
        self.free = free_mask(task, params, config.freeze) if config.freeze else None
        self.adaptation = None
        if config.adapters is not None:
            adaptation = self.adaptation = Adaptation(task, params, config.adapters)
            self._params, self._frozen = adaptation.initial(params, config.seed), adaptation.frozen(params)
            self._decays = adaptation.spread(self._decays, self._params)
            self.free = adaptation.spread(self.free, self._params) if self.free is not None else None
        # As programs: done slice by slice it is a hundred small ones, which take seconds to compile.
        self._unflatten = jax.jit(optimizer.flattened(self._params)[1])
        self._merge = jax.jit(self._merged)
        self.mesh = parallel.mesh_of(config.devices, config.batch_size)
        self._compiled: dict[Any, Any] = {}
        self._say, self._working = say, working
        self.compile_seconds = 0.0

    @property
    def compilations(self) -> int:
        """Number of programs compiled so far."""
        return len(self._compiled)

    def initial_state(self) -> TrainState:
        """The state before the first step."""
        vector = optimizer.flattened(self._params)[0]
        state = TrainState(
            params=jax.tree.map(jnp.copy, self._params),
            ema=jnp.copy(vector) if self.config.ema is not None else None,
            optimizer=self._adam.init(vector),
            step=jnp.zeros((), jnp.int32),
            sums=self.zero_sums(),
            frozen=jax.tree.map(jnp.copy, self._frozen),
        )
        return parallel.replicated(self.mesh, state)

    def weights_to_keep(self, state: TrainState) -> Any:
        """The parameters of the model, with the EMA of the weights if it is on, as a tree on the first device."""
        trained, frozen = parallel.single(self.mesh, (state.params, state.frozen))
        if state.ema is not None:
            trained = self._unflatten(parallel.single(self.mesh, state.ema))
        return trained if self.adaptation is None else self._merge(trained, frozen)

    def _merged(self, trained: Any, frozen: Any) -> Any:
        return trained if self.adaptation is None else self.adaptation.merged(trained, frozen)

    def zero_sums(self) -> dict[str, Array]:
        """Sums over zero steps."""
        names = ["loss", "gradient_norm", *self.terms]
        # Each needs its own buffer: they are donated one by one.
        sums = {name: jnp.zeros((), self.dtype) for name in names} | {"bad_step": jnp.full((), NO_STEP, jnp.int32)}
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
        config, rate, weights = self.config, numbers[0], numbers[1:]
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def part(
            params: Any, frozen: Any, graph: Any, key: Array, weights: Array
        ) -> tuple[tuple[Array, dict[str, Array]], Any]:
            """Loss, means and gradient of one device's shard of the batch, or of all of it."""

            def loss_of(params: Any) -> tuple[Array, dict[str, Array]]:
                task = eqx.combine(self._merged(params, frozen), self.static)
                outputs = task.for_training(graph, self.terms, key=key)
                terms = loss_terms(outputs, graph, self.terms)
                means = {name: mean(Mean(term.total, everywhere(jnp.asarray(term.count)))) for name, term in terms.items()}
                total = sum((weights[i] * value for i, value in enumerate(means.values())), jnp.zeros_like(rate))
                return total, means

            def everywhere(value: Array) -> Array:
                return jax.lax.psum(value, parallel.AXIS) if self.mesh.size > 1 else value

            return jax.tree.map(everywhere, jax.value_and_grad(loss_of, has_aux=True)(params))

        if self.mesh.size == 1:
            (loss, means), gradient = part(state.params, state.frozen, graph, key, weights)
        else:

            def on_device(params: Any, frozen: Any, stacked: Any, weights: Array) -> Any:
                own = jax.random.fold_in(key, jax.lax.axis_index(parallel.AXIS))
                return part(params, frozen, jax.tree.map(lambda leaf: leaf[0], stacked), own, weights)

            specs = (PartitionSpec(), PartitionSpec(), PartitionSpec(parallel.AXIS), PartitionSpec())
            shared = jax.shard_map(on_device, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)
            (loss, means), gradient = shared(state.params, state.frozen, graph, weights)
        if self.free is not None:
            gradient = only_free(self.free, gradient, jax.tree.map(jnp.zeros_like, gradient))
        gradient, unflatten = optimizer.flattened(gradient)
        norm = jnp.linalg.norm(gradient)
        direction, moments = self._adam.update(optimizer.clipped(gradient, config.clip), state.optimizer)
        decay = {"decay": config.weight_decay, "mask": self._decays}
        params = optimizer.apply_step(state.params, unflatten(direction), rate, **decay)
        if self.free is not None:  # Frozen parameters do not decay either.
            params = only_free(self.free, params, state.params)
        ema = None
        if config.ema is not None:
            ema = optimizer.ema_updated(state.ema, optimizer.flattened(params)[0], state.step, config.ema)
        good = jnp.isfinite(loss) & jnp.isfinite(norm)
        changed = jax.tree.map(
            lambda new, old: jnp.where(good, new, old),
            (params, ema, moments),
            (state.params, state.ema, state.optimizer),
        )
        new = {"loss": loss, "gradient_norm": norm, **means}
        sums = {name: state.sums[name] + value for name, value in new.items()}
        first_bad = (state.sums["bad_step"] == NO_STEP) & ~good
        sums["bad_step"] = jnp.where(first_bad, state.step, state.sums["bad_step"])
        return TrainState(*changed, step=state.step + 1, sums=sums, frozen=state.frozen), loss


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
