"""Our GATr against the authors' form in PyTorch: the same function, weights and inputs, interleaved in one run.

    python -m venv PEER && PEER/bin/pip install torch==2.13.0 numpy
    python -m benchmarks.gatr_speed --peer PEER/bin/python                       all cases
    python -m benchmarks.gatr_speed --peer PEER/bin/python --json speed.json     cases in the file are not timed again
    python -m benchmarks.gatr_speed --peer PEER/bin/python --check               is it the same function? No timing

The authors' form (benchmarks/published_gatr.py, PyTorch eager) runs in a separate process. Before anything is timed, its
outputs must agree with ours: to 1e-4 of the largest in float32, to 1e-10 in float64. Rounds alternate, so that machine drift
affects both; only one process works at a time. A step is loss, gradient and Adam. `--cache FOLDER` caches what we compile.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from benchmarks.gatr_parity import relative
from benchmarks.peer_process import TORCH, Peer, PeerFailed, PeerKind, temporary_folder
from benchmarks.peer_turns import Code, check_rounds, set_up, speaker, take_turns
from equiform.__main__ import restart_with_large_pages
from equiform.algebra.clifford import projective
from equiform.algebra.clifford.assemble import scalar
from equiform.benchmark.machine import describe
from equiform.errors import UserError
from equiform.models.gatr import GATr
from equiform.models.gatr_motion import embedded
from equiform.models.gatr_presets import gatr_preset
from equiform.nn.dense_attention import DEFAULT, Execution
from equiform.persist.official.gatr import official_gatr_state, with_official_gatr_state
from equiform.persist.parameters import num_parameters
from equiform.runtime.compilation import jit
from equiform.runtime.policy import attention_logits


class Case(NamedTuple):
    """A comparison: a preset, how many sets of how many tokens, and how ours runs."""

    preset: str
    batch: int
    tokens: int
    execution: Execution = DEFAULT


CASES = {
    "n-body": Case("gatr-nbody", 64, 4),
    "arteries-1000": Case("gatr-arteries", 1, 1000),
    "arteries-1000-whole": Case("gatr-arteries", 1, 1000, Execution(max_logits=2**22)),
    "arteries-4000": Case("gatr-arteries", 1, 4000),
}
PROGRAMS = ("forward", "step")
LIMITS = {"outputs": 1e-4, "exact": 1e-10}
"""Maximum relative differences of outputs in float32 and in float64."""
LEARNING_RATE = 1e-4
PUBLISHED = PeerKind("peer_gatr.py", (f"{TORCH} numpy",))

Inputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """A case in both forms.

    Attributes:
        case: Its name.
        parameters: Number of parameters of both.
        threads: Threads of PyTorch; as many cores are ours.
        differences: Maximum relative differences of outputs, by the names of `LIMITS`.
        published: Seconds of every round of the published form, by program.
        ours: Of Equiform, in the same rounds.
    """

    case: str
    parameters: int
    threads: int
    differences: dict[str, float]
    published: dict[str, list[float]]
    ours: dict[str, list[float]]


def inputs_of(case: Case) -> Inputs:
    """Random moving bodies, or vertices of a surface, in float64."""
    rng = np.random.default_rng(0)
    shape = (case.batch, case.tokens)
    positions, vectors = (jnp.asarray(rng.normal(size=(*shape, 3)), jnp.float32) for _ in range(2))
    numbers = jnp.asarray(rng.uniform(0.5, 1.5, shape), jnp.float32)
    if case.preset.startswith("gatr-nbody"):
        x = embedded("improved-projective", positions, vectors, numbers)
    else:
        normals = vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
        planes = projective.plane_through(normals, positions)
        x = jnp.stack([projective.point(positions), planes, scalar(projective.projective().algebra, numbers)], axis=-2)
    return {"x": np.asarray(x, float), "s": rng.normal(size=(*shape, 1))}


def weighted(preset: str) -> tuple[GATr, dict[str, np.ndarray]]:
    """A model, and its parameters under their published names; constant ones are perturbed, so that each has an effect."""
    rng = np.random.default_rng(0)
    model = GATr(gatr_preset(preset), key=jax.random.key(0))
    state = official_gatr_state(model)
    moved = {name: array + 0.1 * rng.standard_normal(array.shape) * (np.ptp(array) == 0) for name, array in state.items()}
    moved = {name: array.astype(np.float32) for name, array in moved.items()}
    perturbed = with_official_gatr_state(model, moved)
    assert isinstance(perturbed, GATr)
    return perturbed, moved


@contextmanager
def published(python: Path, model: GATr, state: dict[str, np.ndarray], inputs: Inputs) -> Iterator[tuple[Peer, Path]]:
    """Start the published form with given weights and inputs; gives its process and the folder of its files.

    Raises:
        UserError: It did not start, or exited.
    """
    with temporary_folder() as name:
        folder = Path(name)
        arrays: dict[str, Any] = {"config": model.config.model_dump_json(), **state}
        arrays |= {f"input:{key}": value for key, value in inputs.items()}
        np.savez(folder / "task.npz", allow_pickle=False, **arrays)
        worker = Path(__file__).parent / PUBLISHED.worker
        peer = Peer("published", python, worker=worker, task=folder / "task.npz", log=folder / "log")
        try:
            yield peer, folder
        except PeerFailed as error:
            raise UserError(f"the published form does not run: {error}. Its environment: {PUBLISHED.recipe()}") from error
        finally:
            peer.close()


def our_outputs(model: GATr, inputs: Inputs, dtype: type, execution: Execution) -> list[np.ndarray]:
    """Multivectors and scalars in this precision."""
    with jax.enable_x64(dtype is np.float64):
        arrays, static = eqx.partition(model, eqx.is_array)
        arrays = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), dtype), arrays)
        x, s = (jnp.asarray(inputs[name], dtype) for name in ("x", "s"))
        found = jit(lambda arrays, x, s: eqx.combine(arrays, static)(x, s, execution=execution))(arrays, x, s)
        return [np.asarray(part) for part in found]


def differences(peer: Peer, folder: Path, model: GATr, inputs: Inputs, execution: Execution) -> dict[str, float]:
    """Maximum relative differences of outputs, by the names of `LIMITS`.

    Raises:
        UserError: One is too large for two codes that compute the same.
    """
    found = {}
    for program, dtype in (("outputs", np.float32), ("exact", np.float64)):
        peer.time(program)
        with np.load(folder / "outputs.npz") as arrays:
            pairs = zip(our_outputs(model, inputs, dtype, execution), (arrays["x"], arrays["s"]))
            found[program] = max(relative(ours, theirs) for ours, theirs in pairs)
        if not found[program] <= LIMITS[program]:
            raise UserError(
                f"in {np.dtype(dtype)}, Equiform's outputs differ from the published form's by {found[program]:.1e} "
                f"(limit {LIMITS[program]:.0e}): this would not compare the same function"
            )
    return found


def our_code(model: GATr, case: Case, inputs: Inputs) -> Code:
    """Our jitted forward pass and training step, compiled at their first call."""
    arrays, static = eqx.partition(model, eqx.is_array)
    x, s = (jnp.asarray(inputs[name], jnp.float32) for name in ("x", "s"))
    optimizer: Any = optax.adam(LEARNING_RATE)
    training = {"state": (arrays, optimizer.init(ravel_pytree(arrays)[0]))}

    def outputs(arrays: Any, x: Any, s: Any) -> Any:
        return eqx.combine(arrays, static)(x, s, execution=case.execution)

    forward = jit(outputs)

    @jit
    def step(state: Any, x: Any, s: Any) -> Any:
        def loss(arrays: Any) -> Any:
            return sum((part**2).mean() for part in outputs(arrays, x, s))

        arrays, moments = state
        value, gradient = jax.value_and_grad(loss)(arrays)
        vector, as_tree = ravel_pytree(gradient)
        update, moments = optimizer.update(vector, moments)
        return (optax.apply_updates(arrays, as_tree(update)), moments), value

    def run(program: str) -> float:
        start = time.perf_counter()
        if program == "step":
            training["state"], value = jax.block_until_ready(step(training["state"], x, s))
        else:
            value = jax.block_until_ready(forward(arrays, x, s))
        seconds = time.perf_counter() - start
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(value)):
            raise UserError(f"our {program} is not finite")
        return seconds

    return Code("Equiform, jitted", num_parameters(model), case.batch * case.tokens**2, 1, PROGRAMS, run)


def compare(name: str, python: Path, rounds: int, say: Callable[[str], None]) -> Row:
    """A case; without rounds only outputs are compared."""
    case = CASES[name]
    model, state = weighted(case.preset)
    inputs = inputs_of(case)
    ours = our_code(model, case, inputs)
    with published(python, model, state, inputs) as (peer, folder):
        about = peer.about
        if about["parameters"] != ours.parameters:
            raise UserError(f"{name}: the published form has {about['parameters']:,} parameters, ours {ours.parameters:,}")
        found = differences(peer, folder, model, inputs, case.execution)
        say(
            f"{name}: {about['code']}, {about['threads']} threads; outputs differ by "
            + ", ".join(f"{v:.1e}" for v in found.values())
        )
        theirs = Code(about["code"], about["parameters"], about["edges"], about["warm_up"], PROGRAMS, peer.time)
        seconds = {program: take_turns([theirs, ours], program, rounds, say) for program in PROGRAMS if rounds}
    times = [{program: pair[code.name] for program, pair in seconds.items()} for code in (theirs, ours)]
    return Row(name, ours.parameters, about["threads"], found, *times)


TITLES = (
    "tokens",
    "logits at once",
    "parameters",
    *(f"{program}: {what}" for program in PROGRAMS for what in ("PyTorch eager, ms", "Equiform, ms", "times faster")),
    "outputs differ by: float32",
    "float64",
)


def markdown_table(rows: Sequence[Row]) -> str:
    """Medians over the rounds, the best in brackets; *times faster* is the median of the rounds' ratios."""
    lines = [TITLES, ("---:",) * len(TITLES)]
    for row in rows:
        case, cells = CASES[row.case], []
        for program in PROGRAMS:
            pair = [np.asarray(side[program]) for side in (row.published, row.ours)]
            cells += [f"{1e3 * np.median(t):,.0f} ({1e3 * t.min():,.0f})" for t in pair]
            cells.append(f"{np.median(pair[0] / pair[1]):.1f}")
        tokens = f"{case.batch} × {case.tokens:,}" if case.batch > 1 else f"{case.tokens:,}"
        logits = f"{attention_logits(case.execution.max_logits):,}"
        lines.append((tokens, logits, f"{row.parameters:,}", *cells, *(f"{row.differences[name]:.0e}" for name in LIMITS)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, metavar="PYTHON", help="Python of the environment with PyTorch")
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="folder for our compiled programs")
    parser.add_argument("--check", action="store_true", help="compare outputs only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="results; cases already in it are not timed again")
    return parser


def stored_rows(path: Path | None) -> dict[str, Row]:
    """Rows of an earlier run by case, if there was one."""
    if path is None or not path.is_file():
        return {}
    return {row["case"]: Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))}


def main(given: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(given)
    say = speaker()
    try:
        check_rounds(options.rounds)
        python = PUBLISHED.interpreter(options.peer)
        set_up(options.cache, say)
        if options.check:
            for name in options.case:
                print(f"{name}: largest relative difference {compare(name, python, 0, say).differences}")
            return
        rows = stored_rows(options.json)
        for name in options.case:
            if name not in rows:
                rows[name] = compare(name, python, options.rounds, say)
            if options.json:
                content = json.dumps([asdict(row) for row in rows.values()], indent=1)
                options.json.write_text(content + "\n", encoding="utf-8")
        chosen = [rows[name] for name in options.case]
        print(f"{describe()['processor']}, JAX {jax.__version__}, {TORCH}, {chosen[0].threads} threads, float32\n")
        print(markdown_table(chosen))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    restart_with_large_pages()
    main()
