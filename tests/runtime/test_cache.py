"""The compilation cache: where it is, that it works, and that a refusal costs nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from equiform.runtime.cache import default_folder, user_cache_folder

PROGRAM = """
import jax, jax.numpy as jnp, sys
from equiform.runtime.cache import enable_compilation_cache
print(enable_compilation_cache())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((4, 4))).block_until_ready()
"""


def _run(**environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=clean | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is another one elsewhere")
def test_programs_are_kept_in_the_users_cache_folder(tmp_path):
    folder = Path(_run(XDG_CACHE_HOME=str(tmp_path)))
    assert folder.parent == tmp_path / "equiform"
    assert any(folder.iterdir())


def test_a_cache_that_was_chosen_stays(tmp_path):
    assert _run(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine")) == str(tmp_path / "mine")


def test_a_cache_that_cannot_be_written_or_is_switched_off_is_none(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    assert _run(XDG_CACHE_HOME=str(blocked)) == "None"
    assert _run(XDG_CACHE_HOME=str(tmp_path), JAX_ENABLE_COMPILATION_CACHE="false") == "None"


def test_a_relative_cache_home_is_ignored(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert user_cache_folder().is_absolute()
    assert default_folder().is_relative_to(user_cache_folder())


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is another one elsewhere")
def test_the_users_cache_folder_is_that_of_the_xdg_standard(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folder() == tmp_path
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache_folder() == Path.home() / ".cache"
