"""The doctor's checks pass here, and each of them can fail: it is fed what it is there to find."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from ase.build import molecule

from equiform.jobs import doctor
from equiform.neighbors import graph_from_atoms
from equiform.tasks.energy import Potential
from tests.toy import ToyModel


@pytest.fixture(scope="module")
def graph():
    return graph_from_atoms(molecule("CH3CH2OH"), 4.0)


def failed(checks) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_the_compiler_is_sound_here():
    checks = doctor.check_reduction()
    assert not failed(checks)
    assert {"16,385", "32,769"} <= {word for check in checks for word in check.name.split()}


@pytest.mark.parametrize("defect", [1 + 2e-3, jnp.nan])
def test_a_compiler_that_gets_the_last_row_wrong_is_found(defect):
    # As JAX 0.10.2 does: 2e-3 off in the last row, from these sizes on.
    def compile_wrongly(function):
        return lambda points: function(points).at[-1].multiply(jnp.asarray(defect, points.dtype))

    names = failed(doctor.check_reduction(compile_wrongly))
    assert len(names) == 2 and all("compiled" in name for name in names)


def test_single_operations_are_sound_here():
    assert doctor.check_operations().passed


def test_single_operations_that_are_wrong_are_found(monkeypatch):
    monkeypatch.setattr(jnp, "sqrt", lambda x: jnp.zeros_like(x))
    assert not doctor.check_operations().passed


def test_a_sound_potential_passes(graph):
    assert not failed(doctor.check_potential(Potential(ToyModel()), graph))


def test_a_potential_that_knows_directions_is_found(graph):
    class Directed(ToyModel):
        @property
        def traits(self):
            return replace(super().traits, edges_only=False)

        def __call__(self, graph, *, key=None):
            return {"energy": super().__call__(graph)["energy"] + 1e-6 * graph.positions[:, 0] ** 2}

    assert any("rotation" in name for name in failed(doctor.check_potential(Potential(Directed()), graph)))


def test_forces_that_are_not_the_slope_are_found(graph):
    class Careless(Potential):
        def __call__(self, graph, **options):
            result = super().__call__(graph, **options)
            return {name: 1.001 * value if name == "forces" else value for name, value in result.items()}

    assert any("gradient" in name for name in failed(doctor.check_potential(Careless(ToyModel()), graph)))


def test_a_compiled_program_that_differs_is_found(graph, monkeypatch):
    def compile_wrongly(function):
        def compiled(positions):
            energy, forces = function(positions)
            return energy * (1 + 1e-6), forces

        return compiled

    monkeypatch.setattr(jax, "jit", compile_wrongly)
    assert any("eager" in name for name in failed(doctor.check_potential(Potential(ToyModel()), graph)))


def test_a_check_that_cannot_run_has_failed(monkeypatch):
    def broken():
        raise RuntimeError("no device")

    monkeypatch.setattr(doctor, "check_operations", broken)
    monkeypatch.setattr(doctor, "check_reduction", list)
    monkeypatch.setattr(doctor, "check_model", list)
    checks = doctor.diagnose()
    assert [check.passed for check in checks] == [False] and "no device" in checks[0].detail


def test_versions_name_what_decides_the_numbers():
    assert {"python", "equiform", "jax", "jaxlib", "numpy", "ase"} <= set(doctor.versions())
    assert {"devices", "cores", "compilation cache"} <= set(doctor.machine())


def test_the_command_ends_with_1_if_a_check_fails(monkeypatch):
    from typer.testing import CliRunner

    from equiform.cli import app

    for passed, status in ((True, 0), (False, 1)):
        checks = [doctor.Check("the sum", passed, "2 + 2")]
        monkeypatch.setattr(doctor, "diagnose", lambda checks=checks: checks)
        result = CliRunner().invoke(app, ["doctor"])
        assert result.exit_code == status
        assert "jaxlib" in result.stdout and "the sum" in result.stdout
        assert result.stderr.startswith("error: ") != passed


@pytest.mark.slow
def test_a_small_equiformer_is_sound_here():
    checks = doctor.check_model()
    assert len(checks) == 3 and not failed(checks)
