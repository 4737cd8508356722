"""Clifford algebras G(p, q, r) of any signature as tables of their products; NumPy, computed once.

A multivector is an array whose last axis holds the coefficients of the basis blades, ordered by grade and, within a grade,
lexicographically. With orthogonal generators e_i² ∈ {0, 1, −1}, the product of two basis blades is one basis blade or zero:

    e_A e_B = sign(A, B) Π_{i ∈ A ∩ B} e_i² · e_{A Δ B}

where the sign is that of the permutation that sorts the concatenated index list. Another basis of the same algebra (the null
basis of the conformal model) is the same algebra after a change of frame: its blades are outer products of its generators.

Generators stand in the order null, positive, negative: G(3, 0, 1) has e0 e1 e2 e3, G(4, 1) has e1 e2 e3 e+ e-.

Source: Dorst, Fontijne & Mann, Geometric Algebra for Computer Science (2007), chapters 2–6 and 19.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

Table = Float[np.ndarray, "components components components"]
"""A bilinear product: (x ∘ y)_o = Σ table[o, l, r] x_l y_r."""


@dataclass(frozen=True, eq=False)
class Algebra:
    """An algebra in one of its bases; instances come from `clifford` and `rebased` and compare by identity.

    Attributes:
        squares: e_i² of the orthogonal generators.
        labels: One character for each generator of this basis, for names of blades.
        frame: This basis's generators in the columns, in terms of the orthogonal ones.
    """

    squares: tuple[int, ...]
    labels: str
    frame: Float[np.ndarray, "generators generators"]

    @property
    def num_generators(self) -> int:
        return len(self.squares)

    @property
    def num_components(self) -> int:
        return 2**self.num_generators

    @property
    def num_grades(self) -> int:
        return self.num_generators + 1

    @cached_property
    def blades(self) -> tuple[tuple[int, ...], ...]:
        """Generators of each basis blade."""
        numbers = range(self.num_generators)
        return tuple(blade for grade in range(self.num_grades) for blade in combinations(numbers, grade))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the basis blades: 1, e0, …, e01, …"""
        return tuple("e" + "".join(self.labels[i] for i in blade) if blade else "1" for blade in self.blades)

    @cached_property
    def grade(self) -> Int[np.ndarray, " components"]:
        """Grade of each component."""
        return np.array([len(blade) for blade in self.blades])

    @cached_property
    def involution(self) -> Float[np.ndarray, " components"]:
        """Signs of the grade involution, (−1)^k."""
        return (-1.0) ** self.grade

    @cached_property
    def reversal(self) -> Float[np.ndarray, " components"]:
        """Signs of the reversal, (−1)^{k(k−1)/2}."""
        return (-1.0) ** (self.grade * (self.grade - 1) // 2)

    @cached_property
    def outermorphism(self) -> Float[np.ndarray, "components components"]:
        """This basis's blades in the columns, in terms of the blades of the orthogonal basis."""
        return _outermorphism(self.frame)

    @cached_property
    def to_frame(self) -> Float[np.ndarray, "components components"]:
        """Components in this basis = to_frame @ components in the orthogonal basis."""
        return _outermorphism(np.linalg.inv(self.frame))

    @cached_property
    def geometric(self) -> Table:
        """The geometric product x y."""
        table = _product_table(self.squares)
        return np.einsum("ao,olr,lb,rc->abc", self.to_frame, table, self.outermorphism, self.outermorphism, optimize=True)

    @cached_property
    def outer(self) -> Table:
        """The outer product x ∧ y: of the geometric product the part with grade(x) + grade(y)."""
        left, right = self.grade[None, :, None], self.grade[None, None, :]
        return np.where(self.grade[:, None, None] == left + right, self.geometric, 0)

    @cached_property
    def contraction(self) -> Table:
        """The left contraction x ⌋ y: of the geometric product the part with grade(y) − grade(x)."""
        left, right = self.grade[None, :, None], self.grade[None, None, :]
        return np.where(self.grade[:, None, None] == right - left, self.geometric, 0)

    @cached_property
    def join(self) -> Table:
        """The join x ∨ y = (x* ∧ y*)*, with the same dual again in place of its inverse.

        A table of the volume element alone: it needs no metric, and changes sign with it under mirrors.
        """
        return np.einsum("ao,olr,lb,rc->abc", self.dual, self.outer, self.dual, self.dual, optimize=True)

    @cached_property
    def dual(self) -> Float[np.ndarray, "components components"]:
        """The right complement as a matrix, e_A ∧ e_A* = pseudoscalar. Not equivariant; depends on the basis."""
        return self.outer[-1].T.copy()

    @cached_property
    def form(self) -> Float[np.ndarray, "components components"]:
        """The symmetric bilinear form ⟨x̃ y⟩₀; diagonal in an orthogonal basis, zero where a null generator is involved."""
        return self.reversal[:, None] * self.geometric[0]

    @cached_property
    def grade_projections(self) -> Float[np.ndarray, "grades components components"]:
        """The projection on each grade."""
        return np.stack([np.diag((self.grade == k).astype(float)) for k in range(self.num_grades)])

    def index(self, name: str) -> int:
        """Position of a basis blade by its name.

        Raises:
            ValueError: If the algebra has no such blade.
        """
        if name not in self.names:
            raise ValueError(f"no basis blade {name!r}; the blades are {', '.join(self.names)}")
        return self.names.index(name)

    def rebased(self, labels: str, frame: Float[np.ndarray, "generators generators"]) -> "Algebra":
        """The same algebra in the basis whose generators are the columns of `frame`, in terms of this one's."""
        return Algebra(self.squares, labels, self.frame @ frame)


@cache
def clifford(p: int, q: int = 0, r: int = 0, labels: str | None = None) -> Algebra:
    """G(p, q, r) in its orthogonal basis; the same arguments give the same object.

    Args:
        p: Generators with square 1.
        q: Generators with square −1.
        r: Generators with square 0.
        labels: A character for each generator; None: digits, from 0 if there is a null generator, else from 1.

    Raises:
        ValueError: If a count is negative, or the number of labels is not that of the generators.
    """
    number = p + q + r
    if min(p, q, r) < 0:
        raise ValueError(f"the signature ({p}, {q}, {r}) has a negative count; give three counts of generators")
    if labels is None:
        labels = "".join(chr(ord("0" if r else "1") + i) for i in range(number))
    if len(labels) != number or len(set(labels)) != number:
        raise ValueError(f"{number} generators need {number} different labels, not {labels!r}")
    return Algebra((0,) * r + (1,) * p + (-1,) * q, labels, np.eye(number))


def _product_table(squares: tuple[int, ...]) -> Table:
    """Geometric product of the orthogonal basis, from the rule in the head of this file."""
    number = len(squares)
    blades = [blade for grade in range(number + 1) for blade in combinations(range(number), grade)]
    position = {blade: i for i, blade in enumerate(blades)}
    table = np.zeros((len(blades),) * 3)
    for left, a in enumerate(blades):
        for right, b in enumerate(blades):
            swaps = sum(i > j for i in a for j in b)
            square = np.prod([squares[i] for i in set(a) & set(b)], dtype=float)
            table[position[tuple(sorted(set(a) ^ set(b)))], left, right] = (-1) ** swaps * square
    return table


def _outermorphism(matrix: Float[np.ndarray, "generators generators"]) -> Float[np.ndarray, "components components"]:
    """How a linear map of vectors acts on blades: f(a ∧ b) = f(a) ∧ f(b)."""
    number = len(matrix)
    wedge = _product_table((0,) * number)[:, :, 1 : number + 1] @ matrix  # y ∧ (image of generator i): wedge[:, :, i] @ y
    out = np.zeros(wedge.shape[:1] * 2)
    for column, blade in enumerate(blade for grade in range(number + 1) for blade in combinations(range(number), grade)):
        value = np.eye(len(out))[0]
        for i in blade:
            value = wedge[:, :, i] @ value
        out[:, column] = value
    return out
