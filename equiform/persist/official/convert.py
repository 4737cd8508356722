"""Official Equiformer checkpoints ↔ our model folders.

A checkpoint is a set of named arrays, without the configuration. Message kind, heads, layers, irreps, basis, radial widths and
element table are inferred from names and shapes; the rest (average degree, dropouts) comes from the preset that it matches, or
from the data set that its element table belongs to.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.errors import UserError
from equiform.models.equiformer import Equiformer, EquiformerConfig
from equiform.models.presets import OWN, PRESETS, preset
from equiform.persist.official.inference import infer_fields
from equiform.persist.official.names import official_shapes, official_state, with_official_state
from equiform.tasks.energy import Potential

# Buffers that official state dicts hold in addition to the parameters.
_BUFFERS = ("output_mask", "_w3j", "rbf.means", "rbf.betas", "rbf.offset", "rbf.norm_factor", "mean_shift")


@dataclass(frozen=True)
class ConversionReport:
    """The result of reading a checkpoint.

    Attributes:
        config: The configuration that fits it.
        matched: Name of the preset it equals; None if it matches none.
        num_parameters: Number of parameters read.
        ignored: Names in the file that are not parameters.
        notes: Ambiguities and how they were resolved.
        scale: eV per unit of the output.
        shift: eV added per structure.
    """

    config: EquiformerConfig
    matched: str | None
    num_parameters: int
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    scale: float = 1.0
    shift: float = 0.0

    def lines(self) -> list[str]:
        """The report, human-readable."""
        c = self.config
        found = f"preset {self.matched}" if self.matched else "matching no preset"
        lines = [
            f"{self.num_parameters:,} parameters, {found}",
            f"{c.num_layers} layers, {c.num_heads} heads of {c.irreps_head}, features {c.irreps}",
            f"{c.message} messages, {c.attention} attention, {c.basis} basis of {c.num_basis}, {len(c.elements)} atom types",
        ]
        if self.ignored:
            lines.append(f"ignored (not parameters): {', '.join(self.ignored[:5])}{' …' if len(self.ignored) > 5 else ''}")
        lines += [f"note: {note}" for note in self.notes]
        if (self.scale, self.shift) == (1.0, 0.0):
            lines.append("outputs are in the model's own units: set --scale and --shift to the training set's std and mean")
        else:
            lines.append(f"energy = {self.scale:g} eV × output + {self.shift:g} eV per structure")
        return lines


def convert(
    path: str | Path, output: str | Path, *, scale: float = 1.0, shift: float = 0.0, overwrite: bool = False
) -> ConversionReport:
    """Import an official checkpoint as a model folder.

    Args:
        path: `.npz` of named arrays, or a PyTorch file (needs torch; loaded without executing anything).
        output: The model folder to write.
        scale: eV per unit of the model's output (the training set's standard deviation).
        shift: eV per structure to add (the training set's mean).
        overwrite: Replace an earlier model there.

    Raises:
        UserError: The file is not such a checkpoint; the message names the part that does not fit.
    """
    from equiform.persist.modelfile import save_model

    state = read_state(path)
    model, report = model_from_state(state)
    metadata = {"source": "official checkpoint", "file": Path(path).name, "preset": report.matched}
    save_model(output, Potential(model, scale=scale, shift=shift), {}, metadata, overwrite=overwrite)
    return replace(report, scale=scale, shift=shift)


def export(model_path: str | Path, output: str | Path) -> None:
    """Write a model's parameters under their official names, as `.npz` or (with torch) `.pt`.

    Raises:
        UserError: It is not an Equiformer, or has options that the official code does not support.
    """
    from equiform.persist.modelfile import load_model

    model, output = load_model(model_path).task.model, Path(output)
    if not isinstance(model, Equiformer):
        raise UserError(f"{model_path} is not an Equiformer, so the official code cannot load it")
    if model.config.norm != "per_degree" or model.config.cutoff_kind != "sharp":
        raise UserError(
            f"{model_path} has cutoff_kind={model.config.cutoff_kind!r} and norm={model.config.norm!r}; the official code "
            "supports only 'sharp' and 'per_degree', so it would compute something else"
        )
    if output.suffix not in (".npz", ".pt", ".pth"):
        raise UserError(f"{output}: the name must end in .npz or .pt")
    if output.exists():
        raise UserError(f"{output} exists; give another name or remove it")
    state = official_state(model)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".npz":
        np.savez(output, **state)  # type: ignore[arg-type]
        return
    torch = _torch(output)
    torch.save({"state_dict": {name: torch.from_numpy(array.copy()) for name, array in state.items()}}, output)


def model_from_state(
    state: dict[str, np.ndarray], dtype: Any = jnp.float32, **fields: Any
) -> tuple[Equiformer, ConversionReport]:
    """The model that a set of official parameters belongs to.

    Args:
        state: Arrays by official name.
        dtype: Precision of our parameters.
        fields: Configuration fields to set instead of inferring them.

    Raises:
        UserError: The names or shapes match no Equiformer.
    """
    parameters = {name: array for name, array in state.items() if not any(part in name for part in _BUFFERS)}
    ignored = tuple(name for name in state if name not in parameters)
    notes: list[str] = []
    matched, config = _matching_preset(parameters)
    if config is None:
        inferred, notes = infer_fields(parameters)
        config = EquiformerConfig(**inferred)
        _require_fit(config, parameters)
    config = EquiformerConfig(**(config.model_dump() | fields))
    model = with_official_state(Equiformer(config, key=jax.random.key(0)), parameters, dtype)
    size = sum(array.size for array in parameters.values())
    return model, ConversionReport(config, matched, size, ignored, tuple(notes))


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by official name from `.npz` or a PyTorch file; nothing in the file is executed.

    Raises:
        UserError: It cannot be read, or holds no parameters.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                state = {name: archive[name] for name in archive.files}
        except (ValueError, OSError, EOFError, KeyError) as error:
            raise UserError(f"{path} is not a readable .npz of plain arrays: {error}") from error
    else:
        state = _torch_state(path)
    state = {name.removeprefix("module."): array for name, array in state.items()}
    if not any(name.startswith("blocks.0.") for name in state):
        found = ", ".join(list(state)[:4]) or "nothing"
        raise UserError(f"{path} holds no Equiformer parameters (blocks.0.…); it holds {found}")
    return state


def _torch_state(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"PK" and start[:1] != b"\x80":  # a zip archive, or the pickle of PyTorch before 1.6
        raise UserError(f"{path} is not a checkpoint: neither an .npz of named arrays nor a PyTorch file")
    torch = _torch(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are not its own
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be loaded as plain tensors without executing code from it: {first}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a set of named tensors")
    return {str(name): value.numpy() for name, value in content.items() if hasattr(value, "numpy")}


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: PyTorch files need torch (pip install 'equiform[convert]'); a .npz of named arrays works without"
        ) from error
    return torch


def _matching_preset(state: dict[str, np.ndarray]) -> tuple[str | None, EquiformerConfig | None]:
    shapes = {name: array.shape for name, array in state.items()}
    for name in PRESETS:
        if name not in OWN and _shapes_of_preset(name) == shapes:
            return name, preset(name)
    return None, None


@cache
def _shapes_of_preset(name: str) -> dict[str, tuple[int, ...]]:
    return _shapes(preset(name))


def _require_fit(config: EquiformerConfig, state: dict[str, np.ndarray]) -> None:
    expected = _shapes(config)
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or extra:
        raise UserError(
            "the checkpoint does not fit: " + "; ".join(filter(None, (_some("missing", missing), _some("unknown", extra))))
        )
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise UserError(f"{name} has shape {state[name].shape}, but the other shapes imply {shape}")


def _some(what: str, names: Iterable[str]) -> str:
    names = list(names)
    return f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" if names else ""


def _shapes(config: EquiformerConfig) -> dict[str, tuple[int, ...]]:
    return official_shapes(eqx.filter_eval_shape(lambda: Equiformer(config, key=jax.random.key(0))))
