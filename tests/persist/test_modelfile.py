"""Model files: every bit comes back, and everything that is not a whole model file is one clear error."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from equiform.errors import UserError
from equiform.models import build_model
from equiform.models.presets import preset
from equiform.persist import modelfile
from equiform.persist.modelfile import load_model, load_weights, save_model
from equiform.persist.parameters import named, split, with_dtype
from equiform.runtime.files import checksum
from equiform.tasks.energy import Potential
from equiform.tasks.motion import Motion
from equiform.tasks.property import Property
from tests.training.toys import Learner, LearnerConfig, register

REFERENCE = {1: -13.587222780835477, 8: -2041.8396277138045}


@pytest.fixture(autouse=True)
def _learner_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


def potential(dtype: str = "float32", seed: int = 0) -> Potential:
    model = Learner(LearnerConfig(width=5, cutoff=3.5), key=jax.random.key(seed))
    return with_dtype(Potential(model, scale=0.1 + 0.2, shift=-1 / 3, elements=(1, 6, 8), anchored=True), dtype)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", potential(), REFERENCE, {"data": "ethanol", "errors": {"mae": 0.1}})


def rewrite(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite_weights(folder: Path, change: Any) -> None:
    """Change the tensors and make the checksum fit again."""
    file = folder / "weights.safetensors"
    save_file(change(load_file(file)), file)
    config = json.loads((folder / "config.json").read_text())
    rewrite(folder, weights=config["weights"] | {"sha256": checksum(file.read_bytes())})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_comes_back(tmp_path: Path, dtype: str) -> None:
    before = potential(dtype)
    # Values that a text format or a cast would lose.
    odd = jnp.asarray([-0.0, 1e-40, np.pi, 1 / 3, np.nextafter(1, 2)], dtype)
    before = eqx.tree_at(lambda p: p.model.bias, before, odd)
    save_model(tmp_path / "model", before, REFERENCE, {"step": 3})
    loaded = load_model(tmp_path / "model")
    old, new = named(split(before)[0]), named(split(loaded.task)[0])
    assert old.keys() == new.keys()
    for name, leaf in old.items():
        assert new[name].dtype == leaf.dtype == jnp.dtype(dtype)
        assert np.asarray(new[name]).tobytes() == np.asarray(leaf).tobytes()
    assert jax.tree.structure(before) == jax.tree.structure(loaded.task)
    assert (loaded.task.scale, loaded.task.shift) == (before.scale, before.shift)
    assert loaded.reference_energies == REFERENCE
    assert loaded.metadata == {"step": 3}


def test_loading_computes_no_initial_weights(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.zeros(shape) + 0 * _traced(key))
    load_model(saved)


def _traced(key: Any) -> Any:
    assert isinstance(key, jax.core.Tracer), "initial weights are computed"
    return 0


def test_a_float64_model_loads_where_64_bits_are_off(tmp_path: Path) -> None:
    save_model(tmp_path / "model", potential("float64"))
    with jax.enable_x64(False):
        loaded = load_model(tmp_path / "model")
    assert loaded.task.model.out.dtype == np.float64


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
def test_a_file_of_the_folder_stands_for_it(saved: Path, name: str) -> None:
    assert load_model(saved / name).reference_energies == REFERENCE


def test_an_existing_model_is_replaced_only_on_request(saved: Path) -> None:
    with pytest.raises(UserError, match="holds a model already"):
        save_model(saved, potential(seed=1))
    save_model(saved, potential(seed=1), overwrite=True)
    assert load_model(saved).reference_energies == {}
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_other_files_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds other files"):
            save_model(tmp_path, potential(), overwrite=overwrite)
    with pytest.raises(UserError, match="there is a file of that name"):
        save_model(tmp_path / "thesis.tex", potential(), overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("moment", range(6))
def test_a_kill_while_overwriting_leaves_a_whole_model(saved: Path, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies at one of the system calls: the old or the new model is found; saving works again."""
    calls = iter(range(100))

    class Killed(BaseException):
        pass

    def dying(call: Any) -> Any:
        def wrapper(*args: Any, **keywords: Any) -> Any:
            if next(calls) == moment:
                raise Killed
            return call(*args, **keywords)

        return wrapper

    with monkeypatch.context() as patch:
        for module, name in (
            (modelfile.os, "fsync"),
            (modelfile.os, "replace"),
            (modelfile.shutil, "rmtree"),
        ):
            patch.setattr(module, name, dying(getattr(module, name)))
        with suppress(Killed):
            save_model(saved, potential(seed=1), {8: -1.0}, overwrite=True)
    assert load_model(saved).reference_energies in (REFERENCE, {8: -1.0})
    save_model(saved, potential(seed=2), {6: -2.0}, overwrite=True)
    assert load_model(saved).reference_energies == {6: -2.0}
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_disk_full_is_one_line_and_the_old_model_stays(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(modelfile.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_model(saved, potential(seed=1), overwrite=True)
    assert load_model(saved).reference_energies == REFERENCE
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def _truncate(folder: Path) -> None:
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def _flip(folder: Path) -> None:
    file = folder / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))


DAMAGES: dict[str, tuple[Any, str]] = {
    "newer version": (lambda f: rewrite(f, format_version=3), "format version is 3"),
    "no version": (lambda f: rewrite(f, format_version=None), "format version is None"),
    "other JSON": (lambda f: rewrite(f, format="something"), "not the configuration of an Equiform model"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), "not JSON"),
    "binary": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "not JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "not the configuration"),
    "no config": (lambda f: (f / "config.json").unlink(), "it has no config.json"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors is missing"),
    "truncated": (_truncate, "checksum"),
    "one bit flipped": (_flip, "checksum"),
    "unknown model": (lambda f: rewrite(f, model={"name": "pony"}), "architecture 'pony'"),
    "unknown field": (lambda f: rewrite(f, model={"name": "learner", "hair": 1}), "damaged: .*hair"),
    "no task": (lambda f: rewrite(f, task={}), "damaged: KeyError: 'kind'"),
    "unknown task": (lambda f: rewrite(f, task={"kind": "taste"}), "task is 'taste'; .* knows energy, property, motion"),
    "no scale": (lambda f: rewrite(f, task={"kind": "energy"}), "damaged: KeyError: 'scale'"),
    "bad energies": (lambda f: rewrite(f, reference_energies={"H": 1}), "damaged"),
    "missing tensor": (
        lambda f: rewrite_weights(f, lambda w: {k: w[k] for k in w if k != "out"}),
        "out is missing",
    ),
    "surplus tensor": (lambda f: rewrite_weights(f, lambda w: w | {"x": w["out"]}), "x is unknown"),
    "wrong shape": (
        lambda f: rewrite_weights(f, lambda w: w | {"out": w["out"][:3]}),
        r"out is float32\[3\], exp",
    ),
    "mixed types": (lambda f: rewrite_weights(f, lambda w: w | {"out": w["out"].astype(float)}), "mixes"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_one_clear_line(saved: Path, damage: str) -> None:
    act, message = DAMAGES[damage]
    act(saved)
    with pytest.raises(UserError, match=message) as error:
        load_model(saved)
    assert "\n" not in str(error.value)


def test_paths_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match="is a file, and a model is a folder"):
        load_model(tmp_path / "weights.pt")
    with pytest.raises(UserError, match="there is no such model"):
        load_model(tmp_path / "nothing")
    save_model(tmp_path / "run" / "best", potential())
    with pytest.raises(UserError, match=r"did you mean .*run/best"):
        load_model(tmp_path / "run")


def test_weights_into_an_existing_potential(saved: Path) -> None:
    filled = load_weights(saved, potential(seed=3))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), split(filled), split(potential())))
    other = Potential(Learner(LearnerConfig(width=4), key=jax.random.key(0)))
    with pytest.raises(UserError, match="does not belong to this model"):
        load_weights(saved, other)


def test_nothing_is_pickled(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "weights.safetensors"]
    assert json.loads((saved / "config.json").read_text())["units"]["stress"] == "eV/Å³"


VERSION_1 = {"scale": 2.0, "shift": 0.5, "elements": [1, 6, 8], "anchored": False, "cohesion": [], "scales": {}}


def test_a_model_file_of_the_first_version_is_read(saved: Path, tmp_path: Path) -> None:
    rewrite(saved, format_version=1, potential={**VERSION_1, "quantity": "energy", "unit": "eV"}, task=None)
    task = load_model(saved).task
    assert isinstance(task, Potential) and (task.scale, task.shift, task.elements) == (2.0, 0.5, (1, 6, 8))
    rewrite(saved, potential={**VERSION_1, "quantity": "alpha", "unit": "a0³"})
    task = load_model(saved).task
    assert isinstance(task, Property) and (task.quantity, task.unit, task.scale, task.shift) == ("alpha", "a0³", 2.0, 0.5)


def test_former_names_of_settings_are_read(tmp_path: Path) -> None:
    model = build_model(preset("egnn-nbody", channels=4, num_layers=1), key=jax.random.key(0))
    folder = save_model(tmp_path / "nbody", Motion(model))
    now = json.loads((folder / "config.json").read_text())["model"]
    former = {name: value for name, value in now.items() if name != "vector_readouts"} | {"displacement": "displacement"}
    rewrite(folder, format_version=1, model=former, potential={**VERSION_1, "quantity": "displacement", "unit": ""}, task=None)
    task = load_model(folder).task
    assert isinstance(task, Motion) and task.model.config == model.config
    baseline = build_model(preset("deep-sets-nbody", channels=4, num_layers=1), key=jax.random.key(0))
    folder = save_model(tmp_path / "baseline", Motion(baseline))
    former = json.loads((folder / "config.json").read_text())["model"] | {"cutoff": 1000.0}
    rewrite(folder, format_version=1, model=former, potential={**VERSION_1, "quantity": "displacement", "unit": ""}, task=None)
    assert load_model(folder).task.model.config == baseline.config
