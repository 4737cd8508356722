"""The comment line of extended XYZ: text to values, and values to text that we and ASE read back the same.

A value is a number, numbers, a truth value or a text; what is none of these, or would be taken for another one, is JSON
(`_JSON …`, as ASE writes it). Keys are compared without case where they mean something (`Lattice`, `Properties`, `pbc`).
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

_KEY = r'(?:"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|[^\s="\'\[\]{}][^\s=]*)'
_ENTRY = re.compile(
    rf"(?P<key>{_KEY})"
    r"(?:\s*=(?:"
    r'\s*"(?P<double>(?:[^"\\]|\\.)*)"'
    r"|\s*'(?P<single>(?:[^'\\]|\\.)*)'"
    r"|\s*\{(?P<curly>[^{}]*)\}"
    r"|\s*(?P<nested>\[(?:[^\[\]]|\[[^\[\]]*\])*\])"
    r"|(?P<plain>[^\s\"']\S*)"
    r"|\s+(?P<apart>(?![^\s=\"']+\s*=)[^\s\"']\S*)"
    r"|))?"
)
_TRUTH = {"T": True, "F": False, "true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}
_INTEGER = re.compile(r"[-+]?\d{1,18}")
_BARE = re.compile(r"[A-Za-z_][\w./+-]*")
RESERVED = ("lattice", "properties", "pbc")
"""Keys of the format itself."""


def parse_comment(line: str) -> dict[str, Any]:
    """The entries of a comment line; a word alone is True."""
    found: dict[str, Any] = {}
    for match in _ENTRY.finditer(line):
        key = match["key"]
        key = _unescaped(key[1:-1]) if key[0] in "\"'" else key.rstrip(",") or key
        groups = match.groupdict()
        if "=" not in match[0][len(match["key"]) :]:
            found[key] = True
        elif groups["double"] is not None or groups["single"] is not None:
            text = groups["double"] if groups["double"] is not None else groups["single"]
            found[key] = value_of(_unescaped(text), key)
        elif groups["curly"] is not None:
            found[key] = value_of(groups["curly"], key)
        elif groups["nested"] is not None:
            found[key] = _bracketed(groups["nested"], key)
        else:
            found[key] = value_of((groups["plain"] or groups["apart"] or "").rstrip(","), key)
    return found


def value_of(text: str, key: str = "") -> Any:
    """Numbers, truth values, JSON, or the text itself."""
    if text.startswith("_JSON "):
        try:
            value = json.loads(text[6:])
        except ValueError:
            return text
        array = np.array(value) if isinstance(value, list) and not _ragged(value) else None
        return array if array is not None and array.dtype.kind in "ifb" else value
    if key.lower() == "properties":
        return text
    parts = text.replace(",", " ").split()
    if not parts:
        return text
    if parts[0][0] not in "+-.0123456789nNiItTfF":
        return text
    if all(_INTEGER.fullmatch(part) for part in parts):
        numbers = [int(part) for part in parts]
    else:
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            truths = [_TRUTH.get(part) for part in parts]
            if None in truths:
                return text
            return truths[0] if len(truths) == 1 else truths
    return numbers[0] if len(numbers) == 1 else np.array(numbers)


def format_entries(entries: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Entries as texts `key=value`.

    Returns:
        The texts, and the keys of what has no text form.
    """
    written, lost = [], []
    for key, value in entries.items():
        name = str(key)
        if name.lower() in RESERVED:
            continue
        text = _text(name, value)
        if text is None or not name:
            lost.append(name)
            continue
        written.append(f"{name if _BARE.fullmatch(name) else _quoted(name)}={text}")
    return written, lost


def _text(key: str, value: Any) -> str | None:
    if isinstance(value, (bool, np.bool_)):
        return "T" if value else "F"
    if isinstance(value, (int, np.integer)) and abs(int(value)) < 10**18:
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    if isinstance(value, str):
        if _BARE.fullmatch(value) and value_of(value) is value:
            return value
        if (
            value_of(value) is value
            and value
            and not re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]", value)
            and value == value.strip()
        ):
            return _quoted(value)
        return _json(value)
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size > 1 and value.dtype.kind in "if" and value.size != 9:
        return _quoted(" ".join(repr(number) for number in value.tolist()))
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return _json(value)


def _json(value: Any) -> str | None:
    try:
        return _quoted("_JSON " + json.dumps(value, default=_plain))
    except (TypeError, ValueError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(type(value).__name__)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text) if "\\" in text else text


def _bracketed(text: str, key: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return value_of(text[1:-1], key)
    array = np.array(value) if not _ragged(value) else None
    if array is not None and array.dtype.kind in "ifb" and array.size:
        return array if array.size > 1 else array.ravel()[0].item()
    return value_of(text[1:-1], key) if array is None else value


def _ragged(value: Any) -> bool:
    if not isinstance(value, list) or not any(isinstance(item, list) for item in value):
        return False
    return not all(isinstance(item, list) and len(item) == len(value[0]) and not _ragged(item) for item in value)
