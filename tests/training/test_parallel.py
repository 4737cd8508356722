"""Several devices compute what one device computes."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equiform.errors import UserError
from equiform.graph import batch
from equiform.training.checkpoint import CheckpointFolder
from equiform.training.parallel import divided, mesh_of, stacked_parts
from tests.training.toys import molecule

ROOT = Path(__file__).parents[2]


def test_three_devices_train_as_one_does(tmp_path: Path) -> None:
    """31 structures in batches of 7 on 3 devices: parts differ in size."""
    flags = "--xla_force_host_platform_device_count=3"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.training.run_devices", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    one, three = json.loads(done.stdout.splitlines()[-1]).values()
    # Rounding only, carried on for 24 steps of Adam.
    np.testing.assert_allclose(three["losses"], one["losses"], rtol=1e-8)
    np.testing.assert_allclose(three["gradient_norms"], one["gradient_norms"], rtol=1e-7)
    for name, weights in one["weights"].items():
        np.testing.assert_allclose(three["weights"][name], weights, rtol=0, atol=1e-8, err_msg=name)


def test_parts_have_equal_work_and_hold_everything() -> None:
    num_edges = np.random.default_rng(0).integers(1, 100, 40)
    groups = divided(num_edges, 4)
    assert sorted(index for group in groups for index in group) == list(range(40))
    loads = [int(num_edges[group].sum()) for group in groups]
    assert max(loads) - min(loads) <= num_edges.min() + 5


def test_a_device_without_structures_counts_nothing() -> None:
    rng = np.random.default_rng(0)
    graphs = [molecule(rng, 4), molecule(rng, 3)]
    stacked = stacked_parts(graphs, batch(graphs).capacity, 3)
    assert stacked.positions.shape[0] == 3
    assert stacked.graph_mask.sum(axis=1).tolist() == [1, 1, 0]
    assert not stacked.atom_mask[2].any() and not stacked.edge_mask[2].any()


def test_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"training\.devices=64, but there"):
        mesh_of(64, 128)


def processes(folder: Path, count: int, *options: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    environment = os.environ | {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "tests.training.run_processes", str(folder), str(port), str(count)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, str(i), *options], cwd=ROOT, env=environment, **pipes) for i in range(count)]


def finished(started: list[subprocess.Popen[str]]) -> dict[str, Any]:
    """What the first process printed, once all have ended well."""
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return json.loads(said[0][0].splitlines()[-1])


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-8)
    for name, weights in one["weights"].items():
        np.testing.assert_allclose(other["weights"][name], weights, rtol=0, atol=1e-8, err_msg=name)


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_a_dead_one_ends_the_other(tmp_path: Path) -> None:
    one = finished(processes(tmp_path / "one", 1))
    assert_same(one, finished(processes(tmp_path / "two", 2)))
    # Killed in the middle; the other one says so, and all go on from the last checkpoint.
    broken = tmp_path / "broken"
    started = processes(broken, 2, "--pause", "0.2")
    deadline = time.monotonic() + 200
    while not any(step >= 10 for step in CheckpointFolder(broken / "checkpoints").steps()):
        assert time.monotonic() < deadline and all(process.poll() is None for process in started)
        time.sleep(0.1)
    started[1].kill()
    errors = started[0].communicate(timeout=200)[1]
    assert started[0].returncode != 0
    assert "another process of the run has exited" in errors, errors[-2000:]
    started[1].communicate()
    assert_same(one, finished(processes(broken, 2, "--resume")))
