"""Model files: a folder with `config.json` and `weights.safetensors`.

`config.json` holds everything that is not a weight: the architecture's configuration, energy scale and
conventions, reference energies, units, provenance, and the checksum of the weights. Loading parses JSON and copies
arrays; nothing in the file is ever executed. Weights are restored bit for bit.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors, save as save_safetensors

from equiform.errors import UserError
from equiform.persist.parameters import filled, named
from equiform.runtime.files import checksum, explained, sync_folder, to_json
from equiform.tasks import TASKS
from equiform.tasks.api import Task

FORMAT = "equiform-model"
FORMAT_VERSION = 2
"""1 (0.1.0): a section `potential` for every task, and former names of configuration fields; read, not written."""
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class LoadedModel:
    """The content of a model file.

    Attributes:
        task: The model and the meaning of its outputs.
        reference_energies: Energy of an isolated atom, eV, by atomic number; to be added on the host in float64.
        metadata: Provenance of the model, as given to `save_model`.
    """

    task: Task
    reference_energies: dict[int, float]
    metadata: dict[str, Any]


def save_model(
    folder: str | Path,
    task: Task,
    reference_energies: Mapping[int, float] | None = None,
    metadata: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a model file; at every moment the folder holds the whole old model or the whole new one.

    Args:
        folder: Where to write; it must not exist or be empty.
        task: The model and the meaning of its outputs.
        reference_energies: Energy of an isolated atom, eV, by atomic number.
        metadata: Provenance of the model, as values that JSON can hold.
        overwrite: Replace an earlier model in that folder.

    Returns:
        The folder.

    Raises:
        UserError: The folder is occupied, or writing fails.
    """
    folder = Path(folder).absolute()
    _check_place(folder, overwrite)
    weights = save_safetensors({name: np.asarray(leaf) for name, leaf in _arrays(task.model).items()})
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": task.model.config.model_dump(mode="json"),
        "task": {"kind": task.kind, **task.settings()},
        "reference_energies": {str(z): float(e) for z, e in sorted((reference_energies or {}).items())},
        "units": {"length": "Å", **{target.name: target.unit for target in task.targets}},
        "weights": {"file": WEIGHTS_FILE, "sha256": checksum(weights)},
        "metadata": dict(metadata or {}),
    }
    temporary = folder.with_name(f".{folder.name}.part")
    with explained(f"cannot write the model {folder}", "free some space or choose another folder"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            for name, data in ((WEIGHTS_FILE, weights), (CONFIG_FILE, to_json(content))):
                with open(temporary / name, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            _swap(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return folder


def load_model(path: str | Path) -> LoadedModel:
    """Read a model file.

    Args:
        path: The model folder, or one of the two files in it.

    Raises:
        UserError: It is not a model file, is damaged, or has an unknown version or architecture.
    """
    from equiform.models import COMPOSED, MODELS, parse_config

    folder, config = _read_config(Path(path))
    name = config["model"].get("name")
    if name not in {**MODELS, **COMPOSED}:
        raise UserError(
            f"{folder}: it holds a model of the architecture {name!r}; this version of Equiform knows "
            f"{', '.join(sorted(MODELS))}"
        )
    try:
        model_config = parse_config(config["model"])
        reference_energies = {int(z): float(e) for z, e in config["reference_energies"].items()}
        metadata = dict(config["metadata"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / CONFIG_FILE} is damaged: {_one_line(error)}") from error
    model = _fill_model(model_config, _read_weights(folder, config), f"{folder / WEIGHTS_FILE}")
    try:
        kind, settings = config["task"]["kind"], config["task"]
        if kind not in TASKS:
            raise UserError(f"{folder}: its task is {kind!r}; this version of Equiform knows {', '.join(TASKS)}")
        task = TASKS[kind].from_settings(model, settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / CONFIG_FILE} is damaged: {_one_line(error)}") from error
    return LoadedModel(task, reference_energies, metadata)


def load_weights(path: str | Path, like: Task) -> Task:
    """Load the weights of a model file into a task whose model has the same architecture and precision.

    Raises:
        UserError: The file is damaged, or belongs to another model.
    """
    folder, config = _read_config(Path(path))
    arrays, rest = eqx.partition(like.model, _is_array)
    model = eqx.combine(filled(arrays, _read_weights(folder, config), str(folder)), rest)
    return eqx.tree_at(lambda task: task.model, like, model)


def _fill_model(model_config: Any, weights: dict[str, np.ndarray], source: str) -> Any:
    from equiform.models import build_model

    rest: Any = None

    def arrays() -> Any:
        nonlocal rest
        found, rest = eqx.partition(build_model(model_config, key=jax.random.key(0)), _is_array)
        return found

    # Only shapes are needed, so the random initial weights are never computed.
    shapes = jax.eval_shape(arrays)
    dtypes = {array.dtype for array in weights.values() if np.issubdtype(array.dtype, np.floating)}
    if len(dtypes) > 1:
        raise UserError(f"{source} mixes the precisions {', '.join(sorted(map(str, dtypes)))}")
    dtype = next(iter(dtypes), np.dtype(np.float32))

    def expected(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        floating = np.issubdtype(leaf.dtype, np.floating)
        return jax.ShapeDtypeStruct(leaf.shape, dtype if floating else leaf.dtype)

    with jax.enable_x64(True):  # Otherwise float64 weights would be truncated.
        return eqx.combine(filled(jax.tree.map(expected, shapes), weights, source), rest)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array)


def _arrays(model: Any) -> dict[str, Any]:
    return named(eqx.filter(model, _is_array))


def _read_config(path: Path) -> tuple[Path, dict[str, Any]]:
    folder = path.parent if path.name in (CONFIG_FILE, WEIGHTS_FILE) and not path.is_dir() else path
    aside = _aside(folder)
    if not folder.exists() and aside.is_dir():
        folder = aside  # The program was killed between the two renames of an overwrite.
    advice = "a model is a folder that `equiform train` or `equiform convert` has written"
    if not folder.exists():
        raise UserError(f"{folder}: there is no such model; {advice}")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a model: it is a file, and {advice}")
    file = folder / CONFIG_FILE
    if not file.is_file():
        inner = next((name for name in ("best", "last") if (folder / name / CONFIG_FILE).is_file()), None)
        hint = f"; did you mean {folder / inner}?" if inner else f"; {advice}"
        raise UserError(f"{folder} is not a model: it has no {CONFIG_FILE}{hint}")
    with explained(f"cannot read {file}", "check the path and its permissions"):
        content = file.read_bytes()
    try:
        config = json.loads(content)
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({_one_line(error)}); the file is damaged") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(f"{file} is not the configuration of an Equiform model; {advice}")
    version = config.get("format_version")
    if version == 1:
        config = _upgraded(config)
    elif version != FORMAT_VERSION:
        raise UserError(
            f"{folder}: its format version is {version!r}, this version of Equiform reads {FORMAT_VERSION}; "
            "use the version of Equiform that wrote it, or a newer one"
        )
    if not isinstance(config.get("model"), dict) or not isinstance(config.get("weights"), dict):
        raise UserError(f"{file} is damaged: the sections 'model' and 'weights' are missing")
    return folder, config


def _upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """The content of a file of format version 1, converted to version 2."""
    from equiform.models import upgraded
    from equiform.tasks.motion import VECTORS

    old, model = config.get("potential"), config.get("model")
    if not isinstance(old, dict) or not isinstance(model, dict):
        return config
    quantity, unit, scales = old.get("quantity", "energy"), old.get("unit", "eV"), old.get("scales", {})
    if quantity == "energy":
        task = {"kind": "energy", "cohesion": [], **old, "scales": scales}
    elif quantity in VECTORS:
        task = {"kind": "motion", "scales": scales}
    else:
        numbers = {name: old[name] for name in ("scale", "shift") if name in old}
        task = {"kind": "property", "name": quantity, "unit": unit, **numbers, "scales": scales}
    return {**config, "model": upgraded(model), "task": task}


def _read_weights(folder: Path, config: dict[str, Any]) -> dict[str, np.ndarray]:
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise UserError(f"{folder} is not a complete model: {WEIGHTS_FILE} is missing")
    with explained(f"cannot read {file}", "check its permissions"):
        content = file.read_bytes()
    if checksum(content) != config["weights"].get("sha256"):
        raise UserError(
            f"{file} is damaged or of another model: its checksum differs from the one in {CONFIG_FILE}; copy both files again"
        )
    try:
        return load_safetensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{file} is not a safetensors file: {_one_line(error)}") from error


def _check_place(folder: Path, overwrite: bool) -> None:
    if folder.is_file() or folder.is_symlink():
        raise UserError(f"{folder}: there is a file of that name; choose another folder for the model")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(f"{folder} holds other files; choose another folder for the model")
    if not overwrite:
        raise UserError(f"{folder} holds a model already; choose another folder, or replace it with --overwrite")


def _swap(temporary: Path, folder: Path) -> None:
    """Move a finished folder into place; between the two renames loading finds the old model in `_aside`."""
    aside = _aside(folder)
    if folder.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
    os.replace(temporary, folder)
    sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
