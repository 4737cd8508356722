"""Imports point one way: the order of the folders stands in CONTRIBUTING.md, and the source is held to it.

Lazy imports count, imports under `TYPE_CHECKING` do not.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
Sources = Mapping[str, str]
"""Text of each module by its dotted name."""


def test_imports_point_one_way():
    assert violations(sources(), order()) == []


def test_no_module_reaches_itself():
    assert cycle(sources()) is None


def test_each_module_has_a_place_in_the_order():
    modules = {name for name, text in sources().items() if text.strip()} - {"equiform"}
    assert {name for name in modules if place(name, order()) is None} == set()


def test_a_wrong_direction_is_seen():
    for planted in (
        "from equiform.cli import app",
        "import equiform.training.fit",
        "def later():\n    from equiform.tasks.energy import Potential",
        "from equiform import recipes",
    ):
        house = {**sources(), "equiform.nn.planted": planted}
        assert [module for module, _, _ in violations(house, order())] == ["equiform.nn.planted"], planted
    beside = {**sources(), "equiform.papers.planted": "from equiform.benchmark.cases import CASES"}
    assert [module for module, _, _ in violations(beside, order())] == ["equiform.papers.planted"]


def test_imports_for_types_only_are_left_out():
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from equiform.cli import app\n"
    assert violations({**sources(), "equiform.nn.planted": text}, order()) == []


def test_a_cycle_is_seen_even_a_lazy_one():
    one = "def f():\n    from equiform.nn.two import g"
    two = "from equiform.nn.one import f"
    found = cycle({**sources(), "equiform.nn.one": one, "equiform.nn.two": two})
    assert found is not None
    assert {"equiform.nn.one", "equiform.nn.two"} == set(found)


@cache
def order() -> list[list[str]]:
    """Folders and modules from low to high; those of one step do not import each other."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"```imports\n(.*?)```", text, flags=re.DOTALL)
    assert block is not None, "CONTRIBUTING.md has no order of imports"
    return [step.split() for step in block[1].split("<")]


@cache
def sources() -> dict[str, str]:
    """The package as it is."""
    found = {}
    for path in sorted((ROOT / "equiform").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


def violations(house: Sources, steps: list[list[str]]) -> list[tuple[str, int, str]]:
    """Module, line and what it imports, of every import that points up or sideways."""
    return [
        (module, line, target)
        for module, text in house.items()
        for line, target in imports(text, house)
        if not _allowed(module, target, steps)
    ]


def cycle(house: Sources) -> list[str] | None:
    """Modules that import each other in a ring, if there are any."""
    graph = {module: {target for _, target in imports(text, house)} - {module} for module, text in house.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def imports(text: str, house: Sources) -> Iterator[tuple[int, str]]:
    """Line and name of each module of ours that a text imports."""
    for node in _nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if name.name.split(".")[0] == "equiform")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "equiform":
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield node.lineno, inner if inner in house else node.module


def place(module: str, steps: list[list[str]]) -> tuple[int, str] | None:
    """The step of a module and the name that it stands under; the longest name that fits."""
    names = [(len(name), number, name) for number, step in enumerate(steps) for name in step]
    inside = module.removeprefix("equiform.")
    fitting = [entry for entry in names if f"{inside}.".startswith(f"{entry[2]}.")]
    return max(fitting)[1:] if fitting else None


def _allowed(module: str, target: str, steps: list[list[str]]) -> bool:
    if "equiform" in (module, target):  # the version and the entry points, which are found on first use
        return True
    here, there = place(module, steps), place(target, steps)
    return here is not None and there is not None and (here == there or there[0] < here[0])


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from _nodes(other)
            continue
        yield child
        yield from _nodes(child)
