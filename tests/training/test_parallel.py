"""Several devices compute what one device computes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from equiform.errors import UserError
from equiform.graph import batch
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
