"""Operations of a program before it is compiled, counted as often as they run: what makes a GPU slow, seen without one.

A GPU spends its time on small models launching kernels. The compiler fuses element-wise operations; what remains are about the
products, gathers, scatters, and the copies that slices, pads and concatenations make. In a loop over layers every slice of the
stacked weights and of the saved residuals is a copy of its own. A scatter that adds many rows into few addresses waits for each
addition. These counts need no device and no compilation, and they do not depend on the machine. They are not kernels: the
compiler also removes what is computed twice or not used.
"""

from collections import Counter
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import jax
from jax.extend.mlir.dialects.stablehlo import ScatterDimensionNumbers

CROWD = 64
"""Updates per address from which a scatter is crowded: more than the neighbours of an atom."""
_NO_WORK = ("constant", "return", "while", "case", "call")


class Scatter(NamedTuple):
    """The form of a scatter.

    Attributes:
        addresses: Number of rows that it can add to.
        updates: Number of rows that it adds.
        width: Numbers in a row.
        ordered: Whether it says that the addresses ascend.
    """

    addresses: int
    updates: int
    width: int
    ordered: bool

    @property
    def crowded(self) -> bool:
        return self.updates >= CROWD * self.addresses


@dataclass
class Counts:
    """What runs in one call of a program: calls of functions are followed, and bodies of loops multiplied by their iterations.

    Attributes:
        operations: Number of operations, by their StableHLO name.
        looped: Those of them that are inside loops.
        scatters: The scatters, by form.
        iterations: Iterations of loops.
    """

    operations: Counter[str] = field(default_factory=Counter)
    looped: Counter[str] = field(default_factory=Counter)
    scatters: Counter[Scatter] = field(default_factory=Counter)
    iterations: int = 0

    def add(self, other: "Counts", times: int = 1) -> None:
        """Add another program that runs a number of times; more than once: in a loop."""
        for name, count in other.operations.items():
            self.operations[name] += times * count
        for name, count in other.looped.items():
            self.looped[name] += times * count
        for scatter, count in other.scatters.items():
            self.scatters[scatter] += times * count
        self.iterations += times * other.iterations

    @property
    def total(self) -> int:
        """All operations."""
        return self.operations.total()

    @property
    def crowded(self) -> int:
        """Scatters that add many rows into few addresses."""
        return sum(count for scatter, count in self.scatters.items() if scatter.crowded)

    @property
    def unordered(self) -> int:
        """Scatters whose addresses may come in any order."""
        return sum(count for scatter, count in self.scatters.items() if not scatter.ordered)

    @property
    def loop_copies(self) -> int:
        """Slices out of and into stacked arrays, inside loops."""
        return self.looped["dynamic_slice"] + self.looped["dynamic_update_slice"]


def count_operations(lowered: jax.stages.Lowered) -> Counts:
    """The operations of one call of a lowered program."""
    module: Any = lowered.compiler_ir("stablehlo")
    functions = {op.attributes["sym_name"].value: op.operation for op in module.body.operations}
    return _Counter(functions).function("main")


class _Counter:
    """Counts each function once, however often it is called."""

    def __init__(self, functions: dict[str, Any]):
        self._functions = functions
        self._known: dict[str, Counts] = {}

    def function(self, name: str) -> Counts:
        if name not in self._known:
            self._known[name] = self._region(self._functions[name].regions[0])
        return self._known[name]

    def _region(self, region: Any) -> Counts:
        counts = Counts()
        for block in region.blocks:
            for view in block.operations:
                op = view.operation
                name = "reshape" if _only_reshapes(op) else op.name.rpartition(".")[2]
                if name not in _NO_WORK:
                    counts.operations[name] += 1
                if name == "call":
                    counts.add(self.function(op.attributes["callee"].value))
                elif name == "while":
                    self._add_loop(counts, op)
                elif name == "case":
                    for branch in op.regions:
                        counts.add(self._region(branch))
                elif name == "scatter":
                    counts.scatters[_form(op)] += 1
        return counts

    def _add_loop(self, counts: Counts, loop: Any) -> None:
        body, iterations = self._region(loop.regions[1]), _iterations(loop)
        body.looped = Counter(body.operations)
        counts.add(body, iterations)
        counts.iterations += iterations


def _only_reshapes(op: Any) -> bool:
    """Whether it is a reduction over axes of length one."""
    return op.name == "stablehlo.reduce" and prod(op.operands[0].type.shape) == prod(op.results[0].type.shape)


def _iterations(loop: Any) -> int:
    """The bound of a loop `while counter < bound`, which is what a scan becomes; 1 for any other loop."""
    end = list(loop.regions[0].blocks[0].operations)[-1]
    test = end.operands[0].owner
    bound = getattr(test.operands[1].owner, "attributes", {}) if test.name == "stablehlo.compare" else {}
    return int(bound["value"].get_splat_value().value) if "value" in bound else 1


def _form(scatter: Any) -> Scatter:
    """The form of a scatter of one array or of several of the same shape."""
    arrays = len(scatter.results)
    operand, indices, updates = (list(scatter.operands[i].type.shape) for i in (0, arrays, arrays + 1))
    numbers: Any = ScatterDimensionNumbers(scatter.attributes["scatter_dimension_numbers"])
    addresses = prod(operand[axis] for axis in numbers.scattered_dims_to_operand_dims)
    rows = prod(length for axis, length in enumerate(indices) if axis != numbers.index_vector_dim)
    return Scatter(addresses, rows, prod(updates) // max(rows, 1), scatter.attributes["indices_are_sorted"].value)
