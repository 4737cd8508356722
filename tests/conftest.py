"""float64, strict promotion, and run-time shape checks for every test."""

import gc
import os
from itertools import count
from pathlib import Path

# LLVM's optimisations cost a third of the suite's time. Flags that are given come later and win.
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}".strip()

import jax
import pytest
from jaxtyping import install_import_hook

install_import_hook("equiform", "beartype.beartype")
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_MAPS, _MAPPINGS = Path("/proc/self/maps"), 25_000
_tests = count()


def pytest_runtest_teardown() -> None:
    """Drop compiled programs before there are too many of them.

    Each takes some memory mappings, and Linux allows a process 65,530: beyond, XLA ends it by a segmentation fault.
    """
    if next(_tests) % 10 == 0 and _MAPS.exists() and len(_MAPS.read_bytes().splitlines()) > _MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    """The stored outputs of the official models; not part of the product."""
    folder = Path(__file__).parents[2] / "shared" / "parity"
    if not folder.is_dir():
        pytest.skip("the official reference outputs (shared/parity) are not beside this clone")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Published data in the publishers' formats; not part of the product."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the published data (shared/data) are not beside this clone")
    return folder
