"""Measurements, rows and files of the benchmark, on functions and models so small that they take no time."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.benchmark import cases, report, rows, scaling
from equiform.benchmark.inputs import Inputs, make_molecules, molecules_of, qm9_like_sizes, silicon, slabs
from equiform.benchmark.machine import Roofs, measure_roofs
from equiform.benchmark.measure import Compilations, Timing, compiling, measure, memory_of
from equiform.benchmark.operations import equiformer_operations
from equiform.errors import UserError
from equiform.graph import batch
from equiform.models.presets import preset


@pytest.fixture(autouse=True)
def small_roofs(monkeypatch):
    """Roofs of small arrays: fast, and of no importance here."""
    monkeypatch.setattr("equiform.benchmark.measure.measure_roofs", lambda: Roofs(2e9, 1e9))


def test_roofs_are_rates_of_what_was_done(monkeypatch):
    monkeypatch.setattr("equiform.benchmark.machine.LEAST_SECONDS", 0.02)
    monkeypatch.setattr("equiform.benchmark.machine._best", lambda function, state, repeats: (function(state), 0.5)[1])
    roofs = measure_roofs(size=64, num_bytes=4000, repeats=1)
    assert roofs.matrix == 2 * 64**3 / 0.5  # a multiply–add is two
    assert roofs.memory == 3 * 4000 / 0.5  # two arrays read, one written


def test_program_is_compiled_once_and_its_memory_known():
    function = jax.jit(lambda x: x @ x)
    x = jnp.ones((128, 128), jnp.float32)
    timing = measure(compiling(function), (x,), repeats=4)
    assert timing.compilations == 1
    assert len(timing.seconds) == 4 and timing.cached_s is not None
    assert timing.memory == 2 * x.nbytes  # one argument, one output, nothing else
    assert 0 < timing.steady_s < timing.first_s


def test_second_shape_is_a_second_compilation():
    function = jax.jit(lambda x: jnp.sin(x) + 1)
    one, two = jnp.ones(3, jnp.float32), jnp.ones(4, jnp.float32)
    with Compilations() as counted:
        function(one), function(one), function(two)
    assert counted.count == 2
    function(jnp.ones(5, jnp.float32))
    assert counted.count == 2  # nothing counts outside


def test_donated_state_is_handed_on():
    function = jax.jit(lambda state, x: (state + x, x.sum()), donate_argnums=0)
    arguments = (jnp.zeros(8, jnp.float32), jnp.ones(8, jnp.float32))
    timing = measure(compiling(function), arguments, repeats=3, again=lambda result, old: (result[0], old[1]))
    assert len(timing.seconds) == 3 and timing.compilations == 1
    program = function.lower(jnp.zeros(8, jnp.float32), jnp.ones(8, jnp.float32)).compile()
    memory = memory_of(program)
    assert memory is not None and 2 * 32 < memory < 3 * 32  # the state is counted once, beside x and some bytes for the sum


def test_row_is_operations_over_time():
    config = preset("tiny", elements=(1, 6))
    timing = Timing(9.0, 1.0, (0.3, 0.1, 0.2), 5_000_000, 1, Roofs(1e11, 1e10))
    row = rows.make_row("name", "energy + forces step", timing, config, (10, 100), 1000, "generated")
    assert row.steady_ms == pytest.approx(200) and row.best_ms == pytest.approx(100)
    assert row.us_per_edge == pytest.approx(2000)
    assert row.gflops == pytest.approx(6 * 2 * equiformer_operations(config).total(10, 100) / 0.2 / 1e9)
    assert row.matrix_share == pytest.approx(row.gflops / 100)
    # Weights once, then 2 layers: per edge 3 + 2 numbers and 120 of the sender, per atom 4 · 120 + 2 · 120.
    assert row.memory_share == pytest.approx(6 * 4 * (1000 + 2 * (100 * 125 + 10 * 720)) / 0.2 / 1e10)
    assert len(rows.cells(row)) == len(rows.COLUMNS)
    assert rows.markdown([row]).count("\n") == 2


@pytest.mark.slow
def test_a_measured_model_becomes_a_row_a_file_and_figures(tmp_path):
    fields = scaling.config_fields(4, 1) | {"num_layers": 1, "num_heads": 1, "radial_widths": (4,), "num_basis": 4}
    potential = cases.new_potential("tiny", (1, 6, 7, 8), **fields)
    inputs = Inputs(batch(make_molecules([5, 4])), "generated")
    row = cases.inference("micro", potential, inputs, cases.Settings(repeats=2), forces=True)
    assert (row.program, row.atoms, row.compilations) == ("energy + forces", 9, 1)
    assert row.edges == len(inputs.graph.senders) and row.peak_mb and row.peak_mb > 0
    points = [scaling.Point(curve, x, 9, 40, float(x), 1.0, 0.1, 2.0) for curve in scaling.CURVES for x in (1, 2, 4, 8)]
    assert scaling.exponent(points[:4]) == pytest.approx(1)
    files = report.write(tmp_path / "all.json", tmp_path / "plots", {"processor": "any"}, Roofs(1e9, 1e9), [row], points)
    content = json.loads((tmp_path / "all.json").read_text())
    assert content["rows"] == [row.as_dict()] and len(content["scaling"]) == 20
    assert report.scaling_markdown(points).count("\n") == 21
    for path in files[1:]:
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 100_000


def test_cases_are_chosen_by_name():
    assert set(cases.choose(["all"])) == set(cases.CASES) > set(cases.choose([]))
    assert cases.choose(["md", "qm9", "md"]) == ["md", "qm9"]
    with pytest.raises(UserError, match="did you mean 'crystal-1000'"):
        cases.choose(["crystal-100"])


def test_structures_made_here_are_of_the_published_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr("equiform.benchmark.inputs._find", lambda name, folder: None)
    for name, atoms, edges in (("qm9", 599, 9698), ("aspirin", 168, 2440)):
        molecules, source = molecules_of(name, None)
        assert source == "generated"
        assert sum(len(graph.species) for graph in molecules) == atoms
        assert sum(len(graph.senders) for graph in molecules) == pytest.approx(edges, rel=0.05)
    assert silicon(1000).graph.capacity[:2] == (1000, 28_000)  # 4 + 12 + 12 neighbours within 5 Å
    slab = slabs(2).graph
    assert slab.capacity.atoms == 2 * 77 and set(slab.node_fields["tags"]) == {0, 1, 2}
    sizes = qm9_like_sizes(20_000)
    assert sizes.mean() == pytest.approx(18.03, abs=0.1) and sizes.std() == pytest.approx(2.95, abs=0.1)


def test_published_inputs_are_used_where_they_are(tmp_path):
    molecule = make_molecules([6])[0]
    arrays = {"pos": np.concatenate([molecule.positions] * 2), "z": np.concatenate([molecule.species] * 2)}
    np.savez(tmp_path / "bench_inputs_qm9_32.npz", **arrays, batch=np.repeat([0, 1], 6))
    graphs, source = molecules_of("qm9", tmp_path)
    assert source == "bench_inputs_qm9_32.npz" and [len(graph.species) for graph in graphs] == [6, 6]
    np.testing.assert_array_equal(graphs[1].senders, molecule.senders)
    with pytest.raises(UserError, match="bench_inputs_aspirin8"):
        molecules_of("aspirin", tmp_path)
