"""The training loop in one process."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.data.pipeline.dataset import Dataset
from equiform.errors import UserError
from equiform.models.egnn import EGNNConfig
from equiform.persist.modelfile import load_model
from equiform.persist.parameters import named, split
from equiform.runtime import files
from equiform.training import session as sessions
from equiform.training.batches import BatchStream
from equiform.training.config import TrainingConfig
from equiform.training.evaluate import evaluate
from equiform.training.fingerprint import check_resumable
from equiform.training.fit import FitResult, fit
from equiform.training.metrics import read_metrics
from equiform.training.run_folder import RunFolder
from equiform.training.signals import TrainingInterrupted
from equiform.training.step import TrainingStep
from tests.training.toys import learner, molecule, molecules

NAN = float("nan")


def train(folder: Path, data: Dataset | None = None, potential: Any = None, **settings: Any) -> FitResult:
    quick = {"batch_size": 8, "learning_rate": 1e-2, "log_every": 5, "max_steps": 20}
    run = RunFolder.create(folder, reference_energies={1: -13.6})
    data = molecules(32) if data is None else data
    config = TrainingConfig.model_validate(quick | settings)
    return fit(potential or learner(), data, molecules(8, seed=1), config, run, progress=False)


def test_it_learns_and_the_model_file_is_the_best_model(tmp_path: Path) -> None:
    before = evaluate(learner(), molecules(8, seed=1), batch_size=8)
    result = train(tmp_path / "run", epochs=50, max_steps=None)
    assert result.steps == result.total_steps == 200
    assert result.errors["forces"]["mae"] < 0.1 * before["forces"]["mae"]
    loaded = load_model(tmp_path / "run" / "best")
    assert loaded.reference_energies == {1: -13.6}
    assert loaded.metadata["training"]["step"] == result.best_step
    for name, leaf in named(split(loaded.task)[0]).items():
        assert (np.asarray(leaf) == np.asarray(named(split(result.task)[0])[name])).all()
    # The error that was reported is the error of the file.
    again = evaluate(loaded.task, molecules(8, seed=1), batch_size=8)
    np.testing.assert_allclose(again["forces"]["mae"], result.errors["forces"]["mae"], rtol=1e-4)
    record = read_metrics(tmp_path / "run")
    losses = [line["loss"] for line in record if line["kind"] == "validation"]
    best = [line["step"] for line in record if line["kind"] == "validation" and line["best"]][-1]
    assert (min(losses), best) == (result.best_loss, result.best_step)
    assert [line["step"] for line in record if line["kind"] == "train"] == list(range(5, 201, 5))


def adam_by_hand(steps: int, rate: float, ema: float) -> tuple[Any, Any]:
    """Full-batch training written out: no batches, no padding, no session."""
    from equiform.graph import batch, to_device

    data = molecules(6)
    graph = to_device(batch(list(data)), jnp.float64)
    params, static = split(jax.tree.map(lambda x: x, learner()))
    forces = jnp.asarray(np.concatenate([g.node_fields["forces"] for g in data]))
    energy = jnp.asarray([float(g.graph_fields["energy"][0]) for g in data])
    atoms = jnp.asarray(data.num_atoms, jnp.float64)

    @jax.jit
    def gradient_of(params: Any) -> Any:
        def loss(params: Any) -> Any:
            out = eqx.combine(params, static)(graph)
            length = jnp.sqrt(((out["forces"] - forces) ** 2).sum(1))
            return jnp.abs((out["energy"] - energy) / atoms).mean() + 10 * length.mean()

        return jax.grad(loss)(params)

    mean, m, v = params, jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params)
    for t in range(1, steps + 1):
        g = gradient_of(params)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, v, g)
        params = jax.tree.map(
            lambda p, m, v, t=t: p - rate * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8),
            params,
            m,
            v,
        )
        d = min(ema, t / (9 + t))
        mean = jax.tree.map(lambda e, p, d=d: d * e + (1 - d) * p, mean, params)
    return params, mean


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_steps_are_those_of_adam_and_the_mean_is_what_is_saved(tmp_path: Path, ema: float | None) -> None:
    # A flat schedule, no decay, no clipping: everything else of a step is there.
    config = TrainingConfig(
        batch_size=6, max_steps=7, dtype="float64", weight_decay=0.0, clip=None, ema=ema, learning_rate=3e-3
    )
    flat = config.model_copy(update={"warmup_fraction": 0.0, "final_learning_rate": 3e-3})
    run = RunFolder.create(tmp_path / "run")
    fit(learner(), molecules(6), None, flat, run, progress=False)
    params, mean = adam_by_hand(7, 3e-3, ema or 0.5)
    have = named(split(load_model(run.last).task)[0])
    for name, expected in named(params if ema is None else mean).items():
        np.testing.assert_allclose(have[name], expected, rtol=1e-9, atol=1e-12)


def test_without_validation_the_last_model_is_the_best(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    result = fit(learner(), molecules(8), None, TrainingConfig(max_steps=3), run, progress=False)
    assert (result.best_step, result.best_loss) == (3, None)
    best, last = (named(split(load_model(path).task)[0]) for path in (run.best, run.last))
    assert all((best[name] == last[name]).all() for name in best)


def test_the_given_potential_is_not_touched(tmp_path: Path) -> None:
    potential = learner()
    before = jax.tree.map(np.array, split(potential)[0])
    train(tmp_path / "run", potential=potential, max_steps=3, dtype="float64")
    after = split(potential)[0]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == np.asarray(b)).all()), before, after))


def test_patience_ends_the_run(tmp_path: Path) -> None:
    still = {"learning_rate": 1e-30, "initial_learning_rate": 0.0, "final_learning_rate": 0.0, "ema": None}
    result = train(tmp_path / "run", early_stopping=2, validate_every=2, **still)
    # Weights that do not move: the first validation is the best, two more are as good but not better.
    assert result.stopped_early and result.steps == 6 and result.best_step == 2


def test_a_loss_that_is_not_finite_is_explained_and_the_checkpoint_stays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graphs = [molecule(rng, 3) for _ in range(12)]
    graphs[7] = graphs[7].replace(positions=np.zeros((3, 3)))  # Distance zero: the derivative of √ is infinite.
    with pytest.raises(UserError) as error:
        train(tmp_path / "run", Dataset(graphs, 4.0), batch_size=4, max_steps=30, validate_every=30)
    text = str(error.value)
    assert "training stopped at step" in text and "learning_rate" in text and "\n" not in text
    assert "7" in text.split("training structures")[1].split(".")[0]
    assert "checkpoint of step 0 is kept" in text
    assert RunFolder.open(tmp_path / "run").checkpoints.steps() == [0]


def test_a_bad_step_changes_no_weight_and_is_noted() -> None:
    """So the sums tell which term was bad first, not which ones the spoilt weights make bad later."""
    rng = np.random.default_rng(0)
    good = molecule(rng, 3)
    bad = good.replace(positions=np.zeros((3, 3)))
    config = TrainingConfig(dtype="float64", batch_size=1)
    step = TrainingStep(learner(), config, config.losses.terms(), lambda _: None)
    with BatchStream(Dataset([bad, good, good], 4.0), batch_size=1, shuffle=False, dtype="float64") as stream:
        batches = list(stream)
    batches.sort(key=lambda batch: int(batch.indices[0]))
    state = step.initial_state()
    before = jax.tree.map(np.array, (state.params, state.ema, state.optimizer))
    state, _ = step(state, batches[0], 0.1, [1.0, 1.0])
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, (state.params, state.ema, state.optimizer)))
    for batch in batches[1:]:
        state, loss = step(state, batch, 0.1, [1.0, 1.0])
        assert np.isfinite(float(loss))
    assert (int(state.sums["bad_step"]), int(state.step)) == (0, 3)
    assert (np.asarray(state.params.model.out) != before[0].model.out).any()


def test_missing_labels_are_allowed_and_missing_targets_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    graphs = [molecule(rng, 3, energy=NAN if i % 2 else 0.5, forces=np.full((3, 3), NAN)) for i in range(8)]
    run = RunFolder.create(tmp_path / "run")
    config = TrainingConfig(max_steps=5, batch_size=3, log_every=5)
    fit(learner(), Dataset(graphs, 4.0), None, config, run, progress=True)
    assert "no structure has forces: the loss term is dropped" in capsys.readouterr().err
    line = read_metrics(run.path)[-1]
    assert np.isfinite(line["energy"]) and "forces" not in line


def test_without_any_label_it_is_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bare = Dataset([molecule(rng, 3, energy=NAN, forces=np.full((3, 3), NAN))], 4.0)
    with pytest.raises(UserError, match="no training structure has a label for energy or forces"):
        train(tmp_path / "run", bare)
    with pytest.raises(UserError, match="no structure to train on"):
        train(tmp_path / "empty", Dataset([], 4.0))


def test_any_named_readout_can_be_learned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graphs = []
    for graph in (molecule(rng, 3) for _ in range(12)):
        dipole = (graph.species - graph.species.mean()) @ graph.positions
        graphs.append(graph.replace(graph_fields=graph.graph_fields | {"dipole": dipole[None]}))
    losses = {"energy": None, "forces": None, "other": {"dipole": {"kind": "l2norm"}}}
    train(tmp_path / "run", Dataset(graphs, 4.0), losses=losses, max_steps=60)
    lines = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "train"]
    assert lines[-1]["dipole"] < 0.8 * lines[0]["dipole"]
    losses["other"] = {"dipol": {}}
    with pytest.raises(UserError, match=r"losses\.other\.dipol: no structure has a label 'dipol'; available: dipole"):
        train(tmp_path / "other", Dataset(graphs, 4.0), losses=losses)


def test_weights_of_terms_go_linearly_to_their_end() -> None:
    term = TrainingConfig.model_validate({"losses": {"energy": {"weight": 15, "final_weight": 1}}}).losses.terms()["energy"]
    assert [sessions._weight_at(term, share) for share in (0.0, 0.5, 1.0)] == [15, 8, 1]


def test_one_program_per_capacity(tmp_path: Path) -> None:
    result = train(tmp_path / "run", max_steps=20)
    assert result.compilations == 2  # One for the step, one for the validation.
    assert result.compile_seconds > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_politely(tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    original = sessions.Session.log_training

    def send(session: sessions.Session) -> None:
        original(session)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(sessions.Session, "log_training", send)
    handler = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted, match=f"stopped by {number.name} after step 5 of 20.*--resume") as error:
        train(tmp_path / "run")
    assert error.value.exit_code == 128 + number
    run = RunFolder.open(tmp_path / "run")
    assert run.checkpoints.steps()[0] == 5
    load_model(run.last)
    assert signal.getsignal(number) == handler


def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.os.replace

    def full(source: Any, target: Any) -> None:
        if "step-00000010" in str(target):
            raise OSError(28, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(UserError, match=r"No space left.*step 5 is safe; free some"):
            train(tmp_path / "run", checkpoint_every=5)
    run = RunFolder.open(tmp_path / "run")
    config = TrainingConfig(batch_size=8, learning_rate=1e-2, log_every=5, max_steps=20)
    result = fit(learner(), molecules(32), molecules(8, seed=1), config, run, progress=False, resume=True)
    assert result.steps == 20


def test_what_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    train(tmp_path / "run", max_steps=2)
    run = RunFolder.open(tmp_path / "run")

    def resumed(data: Dataset, potential: Any, **settings: Any) -> None:
        base = {"batch_size": 8, "learning_rate": 1e-2, "log_every": 5, "max_steps": 2}
        config = TrainingConfig.model_validate(base | settings)
        fit(potential, data, molecules(8, seed=1), config, run, progress=False, resume=True)

    resumed(molecules(32), learner(), checkpoint_minutes=5.0)
    with pytest.raises(UserError, match=r"training\.learning_rate was 0\.01 and is 0\.1"):
        resumed(molecules(32), learner(), learning_rate=0.1)
    with pytest.raises(UserError, match=r"data\.train was"):
        resumed(molecules(32, seed=5), learner())
    with pytest.raises(UserError, match=r"model\.width was 8 and is 4"):
        resumed(molecules(32), learner(width=4))


def test_a_setting_that_a_run_did_not_have_yet_stands_at_its_default() -> None:
    now = {"training": TrainingConfig().model_dump(mode="json"), "model": {}, "data": {}}
    before = {**now, "training": {name: value for name, value in now["training"].items() if name != "random_rotations"}}
    check_resumable(before, now)
    now["training"]["random_rotations"] = True
    with pytest.raises(UserError, match=r"training\.random_rotations was False and is True"):
        check_resumable(before, now)


def test_a_field_that_a_models_version_did_not_have_yet_stands_at_its_default() -> None:
    fields = EGNNConfig(elements=(1, 6)).model_dump(mode="json")
    now = {"training": {}, "model": fields, "data": {}}
    check_resumable({**now, "model": {name: value for name, value in fields.items() if name != "gate"}}, now)
    with pytest.raises(UserError, match=r"model\.gate was True and is False"):
        check_resumable({**now, "model": fields | {"gate": True}}, {**now, "model": fields | {"gate": False}})


def test_a_time_budget_fixes_the_number_of_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder.create(tmp_path / "run")
    config = TrainingConfig(batch_size=8, max_minutes=0.01, log_every=1000)
    first = fit(learner(), molecules(32), None, config, run, progress=True)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{first.total_steps} steps" in said and "a step takes" in said
    stored = json.loads(next((run.path / "checkpoints").glob("*.json")).read_text())
    assert stored["progress"]["duration"]["total_steps"] == first.total_steps == first.steps
    # Measuring has left no trace: as many steps asked for directly give the same weights.
    other = RunFolder.create(tmp_path / "other")
    again = config.model_copy(update={"max_minutes": None, "max_steps": first.total_steps})
    fit(learner(), molecules(32), None, again, other, progress=False)
    assert (run.last / "weights.safetensors").read_bytes() == (other.last / "weights.safetensors").read_bytes()


def test_dropout_is_on_in_training_only(tmp_path: Path) -> None:
    quiet = train(tmp_path / "quiet", max_steps=3)
    noisy = train(tmp_path / "noisy", max_steps=3, potential=learner(dropout=0.5))
    assert (np.asarray(quiet.task.model.out) != np.asarray(noisy.task.model.out)).any()
    again = evaluate(noisy.task, molecules(8, seed=1), batch_size=8)
    np.testing.assert_allclose(again["forces"]["mae"], noisy.errors["forces"]["mae"], rtol=1e-4)
