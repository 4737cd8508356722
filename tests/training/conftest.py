from collections.abc import Iterator

import jax
import pytest

from tests.training import toys


@pytest.fixture(autouse=True)
def _learner_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    toys.register(monkeypatch)


@pytest.fixture(autouse=True, scope="package")
def _compile_each_program_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Many tests train the same toy; with a compilation cache, as the command line has one, they are quick."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.05,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
