"""benchmarks/gatr_speed.py: the PyTorch form is ours and the authors' function, what is refused, and the table."""

import ast
import importlib
import json
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import gatr_speed
from benchmarks.gatr_parity import load, relative, stored_model
from benchmarks.gatr_speed import Case, Row, inputs_of, markdown_table
from equiform.errors import UserError
from equiform.models.gatr import GATr
from equiform.models.gatr_presets import gatr_preset
from equiform.nn.dense_attention import DEFAULT
from equiform.persist.official.gatr import official_gatr_state, with_official_gatr_state
from equiform.runtime.policy import attention_logits

BENCHMARKS = Path(gatr_speed.__file__).parent
LOGITS = f"{attention_logits():,}"


@pytest.fixture
def torch_form(monkeypatch):
    """The PyTorch form with a configuration and parameters, in this process."""
    torch = pytest.importorskip("torch", reason="PyTorch (pip install torch==2.13.0) is not installed")
    monkeypatch.syspath_prepend(BENCHMARKS)  # a worker's own imports
    published, peer = (importlib.import_module(name) for name in ("published_gatr", "peer_in_torch"))

    def build(config, state):
        module = published.PublishedGATr(config).to(torch.float64)
        peer.load(module, state)
        return module

    return build


def in_torch(form, model, inputs, mask=None):
    """The PyTorch form with a model's parameters: itself, and its outputs."""
    import torch

    module = form(json.loads(model.config.model_dump_json()), official_gatr_state(model))
    return module, module(*(torch.tensor(part) for part in inputs), None if mask is None else torch.tensor(mask))


def loss(y, t):
    return (y**2).mean() + (t**2).mean()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["gatr-nbody", "gatr-arteries"])
def test_outputs_and_gradients_are_ours(torch_form, preset):
    inputs = inputs_of(Case(preset, 2, 5))
    config = gatr_preset(preset, num_blocks=2, scalars=16, channels=4)
    model = GATr(config, key=jax.random.key(0))
    rng = np.random.default_rng(1)
    state = {name: array + 0.1 * rng.normal(size=array.shape) for name, array in official_gatr_state(model).items()}
    model = with_official_gatr_state(model, state)

    @eqx.filter_jit
    def ours(model, x, s):
        def both(model):
            out = model(x, s)
            return loss(*out), out

        return jax.grad(both, has_aux=True)(model)

    slopes, out = ours(model, *(jnp.asarray(inputs[name]) for name in ("x", "s")))
    module, theirs = in_torch(torch_form, model, (inputs["x"], inputs["s"]))
    for one, other in zip(out, theirs):
        assert relative(one, other.detach().numpy()) < 1e-10
    loss(*theirs).backward()
    largest = max(np.abs(value).max() for value in official_gatr_state(slopes).values())
    gradients = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    for name, value in official_gatr_state(slopes).items():
        assert np.abs(value - gradients[name]).max() < 1e-10 * largest, name


@pytest.mark.slow
@pytest.mark.parametrize("case", ["scalar_small", "arteries_published"])
def test_outputs_are_the_authors(torch_form, parity_folder, case):
    folder = parity_folder / "gatr" / case
    inputs = load(folder, "inputs")
    _, (y, t) = in_torch(torch_form, stored_model(folder), (inputs["mv"], inputs["s"]), inputs.get("mask"))
    stored = load(folder, "outputs_none" if case == "scalar_small" else "outputs_f64")
    names = ("out.mv", "out.s") if case == "scalar_small" else ("out_mv", "out_s")
    for name, found in zip(names, (y, t)):
        assert relative(found.detach().numpy(), stored[name]) < 1e-12


def row(name: str, seconds: list[float]) -> Row:
    times = {"forward": seconds, "step": [2 * value for value in seconds]}
    ours = {program: [0.1 * value for value in values] for program, values in times.items()}
    return Row(name, 1234, 2, {"outputs": 3e-6, "exact": 2e-15}, times, ours)


def test_outputs_that_differ_are_refused(monkeypatch, tmp_path):
    class Stored:
        def time(self, program: str) -> None:
            np.savez(tmp_path / "outputs.npz", x=np.ones(3), s=np.ones(2))

    error = {np.float32: 1e-5, np.float64: 1e-12}
    monkeypatch.setattr(
        gatr_speed, "our_outputs", lambda model, inputs, kind, execution: [np.ones(3) + error[kind], np.ones(2)]
    )
    found = gatr_speed.differences(Stored(), tmp_path, None, {}, DEFAULT)
    assert found == pytest.approx({"outputs": 1e-5, "exact": 1e-12}, rel=1e-3)
    for kind, large in ((np.float32, 1e-3), (np.float64, 1e-9)):
        monkeypatch.setitem(error, kind, large)
        with pytest.raises(UserError, match=f"in {np.dtype(kind)}, .* differ from the published form's by {large:.1e}"):
            gatr_speed.differences(Stored(), tmp_path, None, {}, DEFAULT)
        monkeypatch.setitem(error, kind, 0.0)


def test_table_has_medians_best_times_and_ratios():
    lines = markdown_table([row("n-body", [1.0, 3.0, 2.0]), row("arteries-4000", [5.0])]).splitlines()
    times = "2,000 (1,000) | 200 (100) | 10.0 | 4,000 (2,000) | 400 (200) | 10.0"
    assert lines[2] == f"| 64 × 4 | {LOGITS} | 1,234 | {times} | 3e-06 | 2e-15 |"
    assert lines[3].startswith(f"| 4,000 | {LOGITS} | 1,234 | 5,000 (5,000) |")
    assert len({line.count("|") for line in lines}) == 1


def test_stored_cases_are_not_timed_again(monkeypatch, tmp_path, capsys):
    timed, file = [], tmp_path / "speed.json"
    monkeypatch.setattr(gatr_speed, "set_up", lambda cache, say: None)
    monkeypatch.setattr(gatr_speed, "compare", lambda name, *rest: timed.append(name) or row(name, [1.0]))
    for _ in range(2):
        gatr_speed.main(["--peer", sys.executable, "--case", "n-body", "arteries-1000", "--json", str(file)])
    assert timed == ["n-body", "arteries-1000"]
    assert capsys.readouterr().out.count(f"| 64 × 4 | {LOGITS} | 1,234 |") == 2
    assert [entry["case"] for entry in json.loads(file.read_text())] == timed


def test_command_line_says_what_is_wrong(tmp_path):
    for given, message in (
        (["--peer", str(tmp_path / "python")], "there is no such file. To create the environment: .*torch==2.13.0"),
        (["--peer", sys.executable, "--rounds", "0"], "--rounds must be at least 1, not 0"),
    ):
        with pytest.raises(SystemExit, match=f"^error: .*{message}"):
            gatr_speed.main(given)


def test_published_form_imports_nothing_of_ours():
    for worker in ("peer_gatr.py", "published_gatr.py"):
        tree = ast.parse((BENCHMARKS / worker).read_text(encoding="utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not {name.partition(".")[0] for name in imported} & {"equiform", "benchmarks", "jax"}, worker
