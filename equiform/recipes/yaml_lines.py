"""YAML with line numbers, for the location in configuration errors.

Scalars follow the YAML 1.2 core schema, as users expect: `1e-3` is a float, `no` and `No` (nobelium) are
strings, `2024-01-01` is a string, `010` is ten.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from equiform.errors import UserError

KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalar rules of YAML 1.2."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own class attribute


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value.replace("_", ""))


def _boolean(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return node.value.lower() == "true"


_FLOAT = (
    r"[-+]?(?:(?:[0-9][0-9_]*)?\.[0-9]+|[0-9][0-9_]*\.?)(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
# Kind of scalar: its pattern and possible first characters. The first match wins, so int comes before float.
_SCALARS = {
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "int": (r"[-+]?[0-9][0-9_]*$", "-+0123456789"),
    "float": (_FLOAT, "-+.0123456789"),
    "null": (r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    "merge": (r"<<$", "<"),
}
for _kind, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:bool", _boolean)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what `_Loader` would not read back as a string."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def dump(tree: dict[str, Any]) -> str:
    """YAML that `load_with_lines` reads back as the same tree."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def parse_value(text: str) -> Any:
    """The value of a YAML fragment from the command line (`4`, `1e-3`, `[a, b]`, `{hot: x.xyz}`).

    Raises:
        UserError: It is not YAML; the caller adds the argument it came from.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{text!r} cannot be parsed as a value ({problem}); does it need quotes?") from error


def load_with_lines(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Read a YAML file whose top level is a mapping.

    Args:
        path: The file.

    Returns:
        The content, and the line number (from 1) of every key and list entry.

    Raises:
        UserError: The file cannot be read, is not YAML, has a duplicate key, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    loader = _Loader(text)
    lines: dict[KeyPath, int] = {}
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, lines
        if not isinstance(node, yaml.MappingNode):
            kind = "list" if isinstance(node, yaml.SequenceNode) else "single value"
            raise UserError(f"{path}:1: a recipe is a mapping of sections (data:, model:, training:), not a {kind}")
        _collect(loader, node, (), lines, path, ())
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}:1: not valid YAML: {str(error).splitlines()[0]}") from error
    finally:
        loader.dispose()


def _collect(
    loader: _Loader,
    node: yaml.Node,
    path: KeyPath,
    lines: dict[KeyPath, int],
    file: Path,
    above: tuple[yaml.Node, ...],
) -> None:
    """Fill `lines` for everything below a node, and reject what construction would silently accept."""
    line = node.start_mark.line + 1
    if any(node is parent for parent in above):
        raise UserError(f"{file}:{line}: an alias refers to itself")
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[(*path, index)] = child.start_mark.line + 1
            _collect(loader, child, (*path, index), lines, file, (*above, node))
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
            raise UserError(
                f"{file}:{key_node.start_mark.line + 1}: the key {key_node.value!r} was already given on "
                f"line {seen[key_node.value]}; keep one of them"
            )
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{file}:{key_node.start_mark.line + 1}: a key must be a plain word")
        seen[key_node.value] = key_node.start_mark.line + 1
    loader.flatten_mapping(node)
    for key_node, child in node.value:
        key = loader.construct_object(key_node)
        lines[(*path, key)] = key_node.start_mark.line + 1
        _collect(loader, child, (*path, key), lines, file, (*above, node))
