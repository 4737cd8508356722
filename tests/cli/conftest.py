"""The toy model as an architecture, and a finished run of it."""

from pathlib import Path

import ase.io
import pytest

from tests.cli.commands import Result, structures
from tests.toy import ToyConfig, ToyModel


@pytest.fixture(autouse=True)
def _toy_model(monkeypatch, tmp_path):
    from equiform.models import MODELS

    monkeypatch.setitem(MODELS, "toy", (ToyConfig, ToyModel))
    monkeypatch.chdir(tmp_path)
    # A terminal of that width would break the lines of usage errors.
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "water.xyz"
    ase.io.write(path, structures(12), format="extxyz")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run of the toy model; shared, so nothing may be written into it."""
    from equiform.models import MODELS

    folder = tmp_path_factory.mktemp("trained")
    data = folder / "water.xyz"
    ase.io.write(data, structures(12), format="extxyz")
    before = dict(MODELS)
    MODELS["toy"] = (ToyConfig, ToyModel)
    try:
        settings = ["model.name=toy", "training.epochs=3", "training.batch_size=4"]
        result = Result("train", data, *settings, "-o", folder / "run")
    finally:
        MODELS.clear()
        MODELS.update(before)
    assert result.status == 0, result.err
    return folder / "run", result
