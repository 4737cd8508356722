"""A recipe: everything that defines a training run, in one YAML file of typed sections.

`data:` gives the structures and labels, `model:` the architecture, `training:` the optimisation, `run:` the
output folder. Every key is checked before anything is read or computed; an error names the file, the line
and the key that was probably meant. The effective recipe is written to the run folder and can be run again
as it is.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from glob import glob
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from equiform.data.config import DataConfig
from equiform.data.formats.shipped import SHIPPED, on_disk
from equiform.data.sets.config import SetConfig
from equiform.errors import UserError, suggest
from equiform.recipes import yaml_lines
from equiform.recipes.benchmark import Benchmark
from equiform.recipes.errors import explain
from equiform.recipes.yaml_lines import KeyPath
from equiform.training.config import TrainingConfig

SHORT = {"from": "finetune.model", "freeze": "training.freeze", "adapters": "training.adapters"}
"""Keys that may be given without their section on the command line."""


class ModelChoice(BaseModel):
    """Which model: a preset or an architecture's name, and any of the architecture's own fields.

    Attributes:
        preset: A named set of fields; "auto" picks one by the amount of data and the machine.
        name: The architecture, with its own defaults, instead of a preset.
        width: Factor on the preset's channels, head channels and hidden sizes; fields given explicitly are not scaled.
            An effective recipe has the widened fields instead.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    preset: str | None = None
    name: str | None = None
    width: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def fields(self) -> dict[str, Any]:
        """The architecture's fields that were set."""
        return dict(self.model_extra or {})


class RunConfig(BaseModel):
    """The output of a run.

    Attributes:
        folder: The run folder; None means `runs/<data>-<n>` with the next free number.
        wandb: Project of Weights & Biases that the metrics also go to (extra `wandb`); None: none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str | None = None
    wandb: str | None = None


def _kind_of_data(section: Any) -> str:
    named = "set" in section if isinstance(section, Mapping) else isinstance(section, SetConfig)
    return "named set" if named else "files"


class FineTuning(BaseModel):
    """Start from a trained model instead of random weights; `from=MODEL`, `freeze=PARTS` and `adapters=RANK`
    are short forms.

    Attributes:
        model: The model: its folder, a run folder, or its name. Architecture and weights are its own.
        replay: A file of the old data, labelled at the old level of theory, that is mixed into the training data against
            forgetting; the model's own reference energies are subtracted from its energies.
        replay_structures: Most structures of it, evenly spaced.
        replay_labels: "file", or "model": the energies and forces that the old model predicts.
        keep_head: Keep the old readout for the replayed structures beside a new one for the new data, both on one model; a run
            ends with a model of each.
        old_test: A file of old data; errors on it are reported before and after.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    replay: str | None = None
    replay_structures: int = Field(default=100, ge=1)
    replay_labels: Literal["file", "model"] = "file"
    keep_head: bool = False
    old_test: str | None = None


class Recipe(BaseModel):
    """The effective configuration of a training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Annotated[Annotated[DataConfig, Tag("files")] | Annotated[SetConfig, Tag("named set")], Discriminator(_kind_of_data)]
    model: ModelChoice = Field(default_factory=ModelChoice)
    finetune: FineTuning | None = None
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    run: RunConfig = Field(default_factory=RunConfig)
    benchmark: Benchmark | None = None

    def to_yaml(self) -> str:
        """The whole recipe as YAML, defaults included."""
        return yaml_lines.dump(self.model_dump(mode="json"))


class Source:
    """A recipe as given: a tree of plain values, and the origin of each."""

    def __init__(self, tree: dict[str, Any], origins: Mapping[KeyPath, str], name: str):
        self.tree = tree
        self.origins = dict(origins)
        self.name = name

    def origin(self, path: KeyPath) -> str:
        """Where a key was given: its own place, or that of the nearest key above it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return self.name


def read_source(path: Path | None, overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None) -> Source:
    """Read a recipe file, if there is one, and apply `key=value` overrides.

    Data paths in a file are relative to that file (or, if nothing is there, to the current folder); paths
    in overrides are relative to the current folder.

    Args:
        path: The recipe file, or None for the default recipe.
        overrides: `section.key=value`, the value in YAML.
        base: Values from other command-line arguments, such as the data file.

    Raises:
        UserError: The file is not a recipe, or an override is not `key=value`.
    """
    tree: dict[str, Any] = {}
    origins: dict[KeyPath, str] = {}
    if path is not None:
        tree, origins = _load(path)
    source = Source(tree, origins, str(path) if path else "command line")
    for section, values in (base or {}).items():
        for key, value in values.items():
            _set(source, (section, key), value, "command line")
    for text in overrides:
        name, equals, value = text.partition("=")
        if equals and name in SHORT:
            name = SHORT[name]
        if name == "model" and equals:  # A single word selects an architecture or a preset.
            name = "model.name" if value in _architectures() else "model.preset"
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[\w-]+)+", name):
            hint = suggest(name, known_paths()) if equals else ""
            raise UserError(f"'{text}' is not section.key=value, such as training.max_minutes=5{hint}")
        try:
            # `embedding,blocks[:4]` is not YAML's to read: a bracket opens a list there.
            parsed = value if name == "training.freeze" and not value.startswith("[") else yaml_lines.parse_value(value)
        except UserError as error:
            raise UserError(f"'{text}': {error}") from error
        keys = tuple(name.split("."))
        _set(source, keys, parsed, f"'{text}'")
    _resolve_paths(source.tree, Path.cwd())
    return source


def validate(source: Source) -> Recipe:
    """Check every key and value of a recipe, including the model section.

    Raises:
        UserError: One line per mistake: where it is, what is wrong, and the key that was probably meant.
    """
    try:
        recipe = Recipe.model_validate(source.tree)
    except ValidationError as error:
        raise UserError(_explain(error, source, Recipe, ())) from error
    model_config(recipe.model, elements=(1,), preset_if_auto=None, source=source)
    return recipe


def load_recipe(
    path: Path | None, overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None
) -> tuple[Recipe, Source]:
    """`read_source` and `validate` in one, for the commands."""
    source = read_source(path, overrides, base)
    return validate(source), source


def data_settings(settings: Sequence[str], path: str) -> DataConfig:
    """How to read a data file, for commands that do not train: `data.KEY=VALUE` as in a recipe.

    Raises:
        UserError: A setting is of another section, is not known, or has a wrong value.
    """
    other = [text for text in settings if not text.startswith("data.")]
    if other:
        raise UserError(f"{other[0]!r}: only settings of the data are of use here, such as data.energy_key=REF_energy")
    config = load_recipe(None, settings, {"data": {"train": path}})[0].data
    assert isinstance(config, DataConfig)  # there is a file
    return config


def model_config(
    choice: ModelChoice,
    elements: tuple[int, ...],
    preset_if_auto: str | None,
    source: Source | None = None,
) -> Any:
    """The architecture's configuration for a model section.

    Args:
        choice: The model section.
        elements: Atomic numbers found in the data; a section that lists its own keeps them.
        preset_if_auto: The preset for "auto"; None while only the keys are checked.
        source: Origin of the section, for error messages.

    Raises:
        UserError: Unknown model or preset, or an unknown or invalid field of the architecture.
    """
    from equiform.models import MODELS, parse_config
    from equiform.models.presets import ALL_PRESETS, OWN, preset
    from equiform.models.width import widened

    source = source or Source({"model": choice.model_dump()}, {}, "recipe")
    fields = choice.fields
    if choice.name is not None and choice.preset is not None:
        raise UserError(
            f"{source.origin(('model', 'preset'))}: model.name={choice.name} and "
            f"model.preset={choice.preset} were both given; keep one of them"
        )
    if choice.name is not None:
        if choice.name not in MODELS:
            raise UserError(
                f"{source.origin(('model', 'name'))}: there is no model {choice.name!r}"
                f"{suggest(choice.name, MODELS)}; available: {', '.join(MODELS)}"
            )
        start: dict[str, Any] = {"name": choice.name, "elements": elements}
    else:
        requested = choice.preset or "auto"
        if requested != "auto" and requested not in ALL_PRESETS:
            raise UserError(
                f"{source.origin(('model', 'preset'))}: there is no preset {requested!r}"
                f"{suggest(requested, ALL_PRESETS)}; for your own data: auto, {', '.join(OWN)}; those of papers: "
                f"{', '.join(name for name in ALL_PRESETS if name not in OWN)}"
            )
        start = preset((preset_if_auto or "small") if requested == "auto" else requested, elements=elements).model_dump()
    renamed = MODELS[start["name"]][0].renamed_fields
    for old in renamed.keys() & fields.keys():
        new = f"renamed to {renamed[old]} (a list of names)" if renamed[old] else "dropped: the model has no such setting"
        raise UserError(f"{source.origin(('model', old))}: model.{old} was {new}")
    if choice.width is not None and choice.width != 1:
        place = source.origin(("model", "width"))
        architecture: Any = MODELS[start["name"]][0]
        scaled = architecture.width_fields
        if scaled and set(scaled) <= set(fields):
            raise UserError(f"{place}: model.width={choice.width:g} has nothing to scale: {', '.join(scaled)} are given too")
        try:
            start = widened(parse_config(start), choice.width).model_dump()
        except UserError as error:
            raise UserError(f"{place}: model.width={choice.width:g}: {error}") from error
    try:
        return parse_config(_merge(start, fields))
    except ValidationError as error:
        raise UserError(_explain(error, source, MODELS[start["name"]][0], ("model",))) from error


def data_on_disk(config: DataConfig | SetConfig) -> DataConfig | SetConfig:
    """The data section with `equiform:` names replaced by paths."""
    if isinstance(config, SetConfig):
        return config

    tree = config.model_dump()
    _map_paths(tree, on_disk)
    return DataConfig.model_validate(tree)


def builtin_recipes() -> dict[str, Path]:
    """The recipes of the package by name."""
    return {path.stem: path for path in sorted(_recipe_folder().glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """A recipe file by its path or by its built-in name.

    Raises:
        UserError: Neither exists.
    """
    path, builtin = Path(name), builtin_recipes()
    if path.is_file():
        return path
    if name in builtin:
        return builtin[name]
    some = ", ".join(list(builtin)[:6]) + (", …" if len(builtin) > 6 else "")
    raise UserError(f"{name}: no such recipe{suggest(name, builtin)}; built-in ones: {some} (equiform recipe list)")


def json_schema() -> dict[str, Any]:
    """JSON schema of a recipe, for completion and validation in editors."""
    from equiform.models import MODELS
    from equiform.models.presets import ALL_PRESETS

    schema = Recipe.model_json_schema()
    section: dict[str, Any] = {
        "preset": {"enum": ["auto", *ALL_PRESETS], "description": "A named set of fields."},
        "name": {"enum": list(MODELS), "description": "The architecture, instead of a preset."},
        "width": {"type": "number", "exclusiveMinimum": 0, "description": "Factor on channels and hidden sizes."},
    }
    for config, _ in MODELS.values():
        model = config.model_json_schema()
        schema["$defs"] |= model.pop("$defs", {})
        for key, entry in model["properties"].items():
            if key in section and section[key] != entry and key != "name":
                section[key] = {"anyOf": [*section[key].get("anyOf", [section[key]]), entry]}  # Differs between architectures.
            section.setdefault(key, entry)
    schema["$defs"]["ModelChoice"] = {"type": "object", "properties": section, "additionalProperties": False}
    for definition in schema["$defs"].values():
        _describe(definition)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Equiform recipe"}


def _describe(definition: dict[str, Any]) -> None:
    """Move the description of each attribute from the docstring to the attribute, where editors show it."""
    summary, _, attributes = definition.get("description", "").partition("\n\nAttributes:\n")
    for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", attributes, flags=re.MULTILINE):
        if name in definition["properties"]:
            definition["properties"][name].setdefault("description", " ".join(text.split()))
    if summary:
        definition["description"] = summary


def _load(path: Path, depth: int = 0) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """A recipe file merged over the one named as its `base`: a built-in base, or a file in the same folder."""
    tree, lines = yaml_lines.load_with_lines(path)
    origins = {key: f"{path}:{line}" for key, line in lines.items()}
    _resolve_paths(tree, path.parent)
    base = tree.pop("base", None)
    if base is None:
        return tree, origins
    known = {entry.stem: entry for entry in sorted((_recipe_folder() / "base").glob("*.yaml"))}
    sibling = path.parent / str(base)
    place = sibling if sibling.is_file() else known.get(str(base))
    if place is None or depth > 5:
        raise UserError(f"{origins.get(('base',), path)}: there is no base {base!r}{suggest(str(base), known)}")
    below, below_origins = _load(place, depth + 1)
    model = tree.get("model") or {}
    if "preset" in model or "name" in model:
        below.get("model", {}).pop("name" if "preset" in model else "preset", None)
    return _merge(below, tree), {**below_origins, **origins}


def _recipe_folder() -> Path:
    return Path(str(resources.files("equiform"))) / "recipes" / "builtin"


def _architectures() -> Collection[str]:
    from equiform.models import MODELS

    return MODELS


def _set(source: Source, keys: KeyPath, value: Any, origin: str) -> None:
    tree: Any = source.tree
    for depth, key in enumerate(keys[:-1]):
        if tree.get(key) is None:
            tree[key] = {}
        tree = tree[key]
        if not isinstance(tree, dict):
            raise UserError(f"{origin}: {'.'.join(map(str, keys[: depth + 1]))} is a value, not a section")
    tree[keys[-1]] = value
    if keys == ("model", "preset") or keys == ("model", "name"):
        # An override takes precedence over the choice in the file.
        tree.pop("name" if keys[-1] == "preset" else "preset", None)
    source.origins = {path: place for path, place in source.origins.items() if path[: len(keys)] != keys}
    source.origins[keys] = origin


def _merge(start: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(start)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _resolve_paths(tree: Mapping[str, Any], folder: Path) -> None:
    """Make the data paths absolute: relative to `folder`, or else to the current one."""

    def resolve(text: str) -> str:
        if text.startswith(SHIPPED) or Path(text).is_absolute():
            return text
        pattern = text.partition("@")[0]  # FILE@:100 selects a slice, *.xyz several files
        elsewhere = not glob(str(folder / pattern)) and glob(pattern)
        return str((Path(text) if elsewhere else folder / text).absolute())

    if isinstance(tree.get("data"), dict):
        _map_paths(tree["data"], resolve)
    tuning = tree.get("finetune")
    if isinstance(tuning, dict):
        for key in ("model", "replay", "old_test"):
            # A model may also be given by its name.
            if isinstance(text := tuning.get(key), str) and (key != "model" or Path(text).exists() or (folder / text).exists()):
                tuning[key] = resolve(text)


def _map_paths(data: dict[str, Any], change: Callable[[str], str]) -> None:
    for key in ("train", "validation", "test"):
        value = data.get(key)
        if isinstance(value, str):
            data[key] = change(value)
        elif isinstance(value, (list, tuple)):
            data[key] = [change(entry) if isinstance(entry, str) else entry for entry in value]
        elif isinstance(value, dict):
            data[key] = {name: change(path) if isinstance(path, str) else path for name, path in value.items()}


def _explain(error: ValidationError, source: Source, model: type[BaseModel], prefix: KeyPath) -> str:
    tree: Any = source.tree
    for key in prefix:
        tree = tree.get(key, {})
    return explain(error, tree, model, prefix, source.origin, known_paths())


def known_paths() -> list[str]:
    """Every `section.key` of a recipe, including the fields of the architectures."""
    from equiform.models import MODELS

    sections = [("data", DataConfig), ("data", SetConfig), ("training", TrainingConfig), ("run", RunConfig)]
    sections += [("finetune", FineTuning)]
    paths = [f"{section}.{key}" for section, config in (*sections, ("benchmark", Benchmark)) for key in config.model_fields]
    own = [key for config, _ in MODELS.values() for key in config.model_fields]
    return [*paths, *(f"model.{key}" for key in dict.fromkeys(["preset", "name", "width", *own]))]
