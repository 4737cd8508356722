"""Human-readable configuration errors: the place, the key, the value given and the one probably meant."""

import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from equiform.errors import suggest
from equiform.recipes.yaml_lines import KeyPath


def explain(
    error: ValidationError,
    tree: Any,
    model: type[BaseModel],
    prefix: KeyPath,
    origin: Callable[[KeyPath], str],
    known_paths: Sequence[str],
) -> str:
    """One line per mistake.

    Args:
        error: The pydantic error.
        tree: The values that were validated.
        model: The type they were validated against.
        prefix: Key path of `tree` in the whole configuration.
        origin: Returns where a key was given (`file.yaml:3`).
        known_paths: Every valid `section.key`, to find the right section of a misplaced key.
    """
    mistakes: dict[KeyPath, list[str]] = {}
    for entry in error.errors():
        path = prefix + _path_in(tree, entry)
        mistakes.setdefault(path, []).append(_message(entry, path, model, known_paths))
    # Of a union, the member whose errors lie deepest is the one that was meant.
    inner = [path for path in mistakes if not any(other[: len(path)] == path != other for other in mistakes)]
    return "\n".join(f"{origin(path)}: {_joined(mistakes[path])}" for path in inner)


def _message(entry: Any, path: KeyPath, model: type[BaseModel], known_paths: Sequence[str]) -> str:
    if entry["type"] == "extra_forbidden":
        key, section = str(path[-1]), ".".join(map(str, path[:-1]))
        parent = _model_at(entry["loc"][:-1], model)
        known = list(parent.model_fields) if parent else []
        elsewhere = [other for other in known_paths if other.split(".")[-1] == key]
        hint = suggest(key, known) or (f"; did you mean '{elsewhere[0]}'?" if elsewhere else "")
        hint = hint or suggest(key, [other.split(".")[-1] for other in known_paths])
        where = f" in {section}" if section else ""
        return f"unknown key '{key}'{where}{hint or '; valid keys: ' + ', '.join(known)}"
    name = ".".join(map(str, path))
    if entry["type"] == "missing":
        return f"{name} is missing"
    text = str(entry["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    given = repr(entry["input"])
    given = given if len(given) <= 60 else given[:57] + "..."
    options = re.findall(r"'([^']+)'", text) if entry["type"] in ("literal_error", "enum") else []
    hint = suggest(str(entry["input"]), options)
    if text.startswith("should"):
        return f"{name} {text.split(', unable')[0]}, but {given} was given{hint}"
    return f"{name}: {text} ({given} was given){hint}"


def _joined(messages: Sequence[str]) -> str:
    """The messages about one key (a union yields one per member) as one sentence."""
    messages = list(dict.fromkeys(messages))
    parts = [re.fullmatch(r"(\S+ )should (.*)(, but .* was given.*)", message) for message in messages]
    if len(messages) > 1 and all(parts):
        expected = " or ".join(dict.fromkeys(part[2] for part in parts if part))
        return f"{parts[0][1]}should {expected}{parts[0][3]}" if parts[0] else ""
    return " or ".join(messages)


def _path_in(tree: Any, entry: Any) -> KeyPath:
    """The keys of a pydantic location, without the parts that name members of a union."""
    path: list[str | int] = []
    for depth, part in enumerate(entry["loc"]):
        inside = (isinstance(tree, dict) and part in tree) or (
            isinstance(tree, (list, tuple)) and isinstance(part, int) and part < len(tree)
        )
        if inside:
            path.append(part)
            tree = tree[part]
        elif entry["type"] == "missing" and depth == len(entry["loc"]) - 1:
            path.append(part)
    return tuple(path)


def _model_at(location: Sequence[str | int], model: type[BaseModel]) -> type[BaseModel] | None:
    here: type[BaseModel] | None = model
    for part in location:
        field = here.model_fields.get(str(part)) if here else None
        if field is not None:
            here = _first_model(field.annotation)
    return here


def _first_model(annotation: Any) -> type[BaseModel] | None:
    """The first configuration type in an annotation: itself, a union's member, an entry's type."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    inner = (_first_model(member) for member in typing.get_args(annotation))
    return next((found for found in inner if found), None)
