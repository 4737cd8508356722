"""benchmarks/reference.py: the same weights on both sides, what is refused, and the table; a stand-in is the published form."""

import ast
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import peer_turns, reference
from benchmarks.peer_process import PeerKind
from benchmarks.peer_turns import Code
from benchmarks.reference_table import AIMS, Row, markdown_table, terminal_table
from equiform.benchmark.inputs import make_molecules
from equiform.errors import UserError
from equiform.models.equiformer import Equiformer
from equiform.models.presets import preset
from equiform.persist.official.names import official_shapes, official_state, with_official_state
from equiform.tasks.energy import Potential

BENCHMARKS = Path(reference.__file__).parent
# Its "energy" is the number of atoms plus that of the parameters, its "force" the position.
STAND_IN = """
import json, sys
sys.path.insert(0, {folder!r})
import numpy as np
from peer_protocol import read_task, serve
task = read_task()
model = dict(np.load(task.folder / "model.npz"))
config, dtype = json.loads(str(model.pop("config"))), str(model.pop("dtype"))
size = sum(array.size for array in model.values())
def outputs():
    energy = [len(numbers) + size for numbers, _ in task.molecules]
    forces = np.concatenate([positions for _, positions in task.molecules])
    np.savez(task.folder / "outputs.npz", energy=energy, forces=forces)
    return 0.0
about = dict(code=f"stand-in {{config['irreps']}} {{dtype}} {{task.forces}}", parameters=size + {more}, edges={edges})
serve(task, about | {{"threads": 1, "warm_up": 1}}, {{"inference": lambda: 1.0, "step": lambda: 2.0, "outputs": outputs}})
"""


@pytest.fixture
def molecules():
    return make_molecules([4, 6])


@pytest.fixture(scope="module")
def model():
    irreps = dict.fromkeys(("irreps", "irreps_mlp"), "2x0e+1x1e") | dict.fromkeys(("irreps_sh", "irreps_head"), "1x0e+1x1e")
    sizes = {"num_layers": 1, "num_heads": 1, "num_basis": 3, "radial_widths": (2, 2), "irreps_feature": "2x0e"}
    config = preset("md17-l2", elements=(1, 6, 7, 8), **irreps, **sizes)
    return Equiformer(config, key=jax.random.key(0))


@pytest.fixture
def stand_in(monkeypatch, tmp_path, molecules):
    """Puts a stand-in in the place of the published form."""

    num_edges = sum(len(graph.senders) for graph in molecules)

    def put(code=STAND_IN, more=0, edges=num_edges) -> None:
        worker = tmp_path / "worker.py"
        worker.write_text(code.format(folder=str(BENCHMARKS), more=more, edges=edges), encoding="utf-8")
        monkeypatch.setattr(reference, "PUBLISHED", PeerKind(str(worker), ("some packages",)))

    return put


@pytest.fixture
def ours(monkeypatch, molecules, model):
    """Our side without compilers: its outputs are those of the stand-in, and it takes a second or four."""
    size = sum(int(np.prod(shape)) for shape in official_shapes(model).values())
    outputs = {
        "energy": np.asarray([len(graph.species) + size for graph in molecules], float),
        "forces": np.concatenate([graph.positions for graph in molecules]),
    }
    edges = sum(len(graph.senders) for graph in molecules)
    used = {}

    def our_code(name, molecules, *, forces, potential):
        used.update(name=name, model=potential.model)
        return Code("ours", size, edges, 1, reference.PROGRAMS, {"inference": 1.0, "step": 4.0}.__getitem__)

    monkeypatch.setattr(peer_turns, "PAUSE", 0.0)
    monkeypatch.setattr(reference, "molecules_of", lambda kind, inputs: (molecules, kind))
    monkeypatch.setattr(reference, "random_potential", lambda name, molecules: Potential(model))
    monkeypatch.setattr(reference, "our_code", our_code)
    monkeypatch.setattr(reference, "our_outputs", lambda potential, molecules: outputs)
    return outputs, used


def compare(case="md17-l2", say=lambda line: None):
    return reference.compare(case, Path(sys.executable), None, 2, say)


def row(program="energy", published=(2.0, 4.0, 30.0), ours=(1.0, 1.0, 3.0)) -> Row:
    return Row("qm9", "here", 9698, 1000, program, published, ours, 3e-6)


def test_both_sides_have_the_same_weights_and_are_timed(ours, stand_in, model):
    stand_in()
    said = []
    rows = compare(say=said.append)
    assert [row.program for row in rows] == ["energy + forces", "energy + forces step"]
    assert all(row.case == "md17-l2" and row.inputs == "aspirin" and row.difference == 0.0 for row in rows)
    assert [row.our_seconds for row in rows] == [(1.0, 1.0), (4.0, 4.0)]
    assert all(len(row.published_seconds) == 2 and 0 < row.ratio < 1 for row in rows)
    assert said[0].startswith("md17-l2: stand-in 2x0e+1x1e float32 True, ")
    # What the stand-in counted is our model's weights, moved so that none of them is as at the start.
    used = official_state(ours[1]["model"])
    sent = reference.weights(model)
    assert ours[1]["name"] == "md17-l2" and all(np.array_equal(used[name], sent[name]) for name in sent)
    assert [row.program for row in compare("qm9")] == ["energy", "energy step"]


def test_weights_that_start_as_zeros_or_ones_are_moved(model):
    before, after = official_state(model), reference.weights(model)
    assert {name: array.shape for name, array in after.items()} == official_shapes(model)
    bias, scale = "blocks.0.ga.proj.bias.0", "norm.affine_weight"
    assert not before[bias].any() and after[bias].all()
    assert (before[scale] == 1).all() and (after[scale] != 1).all() and np.abs(after[scale] - 1).max() < 0.5
    assert np.allclose(after["head.0.tp.weight"], before["head.0.tp.weight"], rtol=1e-6)
    read = official_state(with_official_state(model, after, np.float32))
    assert all(np.array_equal(read[name], after[name]) for name in after)


def test_outputs_that_differ_are_refused(ours, stand_in):
    stand_in()
    forces = ours[0]["forces"]
    forces[3, 1] += 0.9e-4 * np.abs(forces).max()
    assert compare()[0].difference == pytest.approx(0.9e-4, rel=1e-3)
    forces[3, 1] += 0.3e-4 * np.abs(forces).max()
    with pytest.raises(UserError, match=r"forces: Equiform differs from the published form by 1\.2e-04 \(limit 1e-04\)"):
        compare()
    forces[3, 1] = np.nan
    with pytest.raises(UserError, match="differs from the published form by nan"):
        compare()


def test_other_sizes_are_refused(ours, stand_in):
    stand_in(more=1)
    with pytest.raises(UserError, match=r"md17-l2: the published form has [\d,]+ parameters, Equiform has"):
        compare()
    stand_in(edges=7)
    with pytest.raises(UserError, match="the published form has 7 edges, Equiform has"):
        compare()


def test_form_that_does_not_run_is_told_with_its_recipe(ours, stand_in):
    stand_in(code="import no_such_peer")
    with pytest.raises(UserError, match=r"No module named 'no_such_peer'.*PEER/bin/pip install some packages"):
        compare()


def test_form_that_ends_while_it_is_timed_has_no_row(ours, stand_in):
    stand_in(code=STAND_IN.replace("lambda: 2.0", 'lambda: sys.exit("out of memory")'))
    said = []
    assert [row.program for row in compare(say=said.append)] == ["energy + forces"]
    assert any("is left out: its process ended with status 1: out of memory" in line for line in said)


def test_stored_outputs_are_compared_in_float64(monkeypatch, tmp_path, stand_in, model, molecules):
    stand_in()
    state = official_state(model)
    for name in ("config_of", "state_of"):
        monkeypatch.setattr(reference, name, lambda folder, answer={"config_of": model.config, "state_of": state}[name]: answer)
    with pytest.raises(UserError, match="has none of qm9_small_nonlinear, md17_small_l2"):
        reference.check(Path(sys.executable), tmp_path, lambda line: None)
    folder = tmp_path / "md17_full_l2"
    folder.mkdir()
    positions = np.concatenate([graph.positions for graph in molecules])
    numbers, index = np.concatenate([graph.species for graph in molecules]), np.repeat([0, 1], [4, 6])
    np.savez(folder / "inputs.npz", pos=positions, z=numbers, batch=index)
    energy = np.asarray([[4.0], [6.0]]) + sum(array.size for array in state.values())
    said = []
    for factor in (1.0, 1 + 1e-8):
        np.savez(folder / "outputs_f64.npz", **{"out.energy": energy, "out.forces": factor * positions})
        if factor == 1.0:
            assert reference.check(Path(sys.executable), tmp_path, said.append) == 0.0
            assert said[0].startswith("md17_full_l2, ") and said[0].endswith("edges: energy 0.0e+00, forces 0.0e+00")
        else:
            with pytest.raises(UserError, match=r"not exact: largest error 1\.0e-08 \(limit 1e-09\)"):
                reference.check(Path(sys.executable), tmp_path, said.append)


def test_ratio_is_taken_round_by_round():
    assert row().ratio == 4.0 and row().to_json()["aim"] == AIMS["energy"] == 10
    assert row(published=(2.0, 2.0, 80.0)).ratio == 2.0  # one disturbed round changes nothing


def test_tables():
    lines = markdown_table([row(), row("energy step", (16.0,), (2.0,))]).splitlines()
    assert lines[1] == "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2] == "| qm9 | here | 9,698 | energy | 4,000 | 1,000 | 4.0 | 10 | 3e-06 |"
    assert lines[3] == "| qm9 | here | 9,698 | energy step | 16,000 | 2,000 | 8.0 | 8 | 3e-06 |"
    assert {line.count("|") for line in lines} == {10}
    ratios = list(terminal_table([row(), row("energy step", (16.0,), (2.0,))]).columns[6].cells)
    assert ratios == ["[red]4.0[/red]", "8.0"]


def test_command_line_says_what_is_wrong(tmp_path):
    for given, message in (
        (["--peer", str(tmp_path / "python")], "there is no such file. To create the environment: .*e3nn==0.4.4"),
        (["--peer", sys.executable, "--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["--peer", sys.executable, "--check", str(tmp_path)], "has none of"),
    ):
        with pytest.raises(SystemExit, match=f"^error: .*{message}"):
            reference.main(given)


def test_published_form_imports_nothing_of_ours():
    for worker in ("peer_equiformer.py", "published_equiformer.py", "published_parts.py"):
        tree = ast.parse((BENCHMARKS / worker).read_text(encoding="utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not {name.partition(".")[0] for name in imported} & {"equiform", "benchmarks", "jax"}, worker
