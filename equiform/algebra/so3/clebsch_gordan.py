"""Wigner 3j symbols in the real basis: the one invariant of three degrees.

Computed exactly from Racah's formula in the complex basis, transformed to real spherical harmonics (component order
m = −l … l; for l = 1 this is x, y, z with y as the polar axis), normalised to Frobenius norm 1. The overall sign is
e3nn's: for l1 ≤ l2 ≤ l3 the central element is positive, or if it vanishes the first non-zero one; other orders follow
by permuting the axes, an odd permutation giving a factor (−1)^(l1+l2+l3).
"""

from fractions import Fraction
from functools import cache
from math import factorial, sqrt

import numpy as np


@cache
def wigner_3j(l1: int, l2: int, l3: int) -> np.ndarray:
    """Real Wigner 3j symbol of shape (2 l1 + 1, 2 l2 + 1, 2 l3 + 1), float64, read-only.

    Raises:
        ValueError: The degrees violate |l1 − l2| ≤ l3 ≤ l1 + l2.
    """
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        raise ValueError(f"degrees {l1}, {l2}, {l3} violate the triangle inequality")
    degrees = (l1, l2, l3)
    order = sorted(range(3), key=lambda axis: degrees[axis])
    table = _sorted_3j(*(degrees[axis] for axis in order))
    table = np.transpose(table, np.argsort(order))
    odd = (order[0] > order[1]) ^ (order[0] > order[2]) ^ (order[1] > order[2])
    if odd and sum(degrees) % 2:
        table = -table
    table = np.ascontiguousarray(table)
    table.flags.writeable = False
    return table


@cache
def _sorted_3j(l1: int, l2: int, l3: int) -> np.ndarray:
    complex_table = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(max(-l2, -l3 - m1), min(l2, l3 - m1) + 1):
            complex_table[m1 + l1, m2 + l2, l3 - m1 - m2] = _racah(l1, l2, l3, m1, m2)
    bases = [_real_basis(l).conj() for l in (l1, l2, l3)]
    rotated = np.einsum("abc,ia,jb,kc->ijk", complex_table, *bases)
    # The result is real or imaginary as a whole, by the parity of l1 + l2 + l3.
    table = rotated.imag if (l1 + l2 + l3) % 2 else rotated.real
    table = np.where(np.abs(table) < 1e-14, 0.0, table)
    table = table / np.sqrt((table**2).sum())
    lead = table[l1, l2, l3] or table[np.unravel_index(np.argmax(table != 0), table.shape)]
    return table * np.sign(lead)


def _racah(l1: int, l2: int, l3: int, m1: int, m2: int) -> float:
    """The complex 3j symbol (l1 l2 l3; m1 m2 −m1−m2), exact up to one final rounding of the square root."""
    m3 = -m1 - m2
    f = factorial
    delta = Fraction(f(l1 + l2 - l3) * f(l1 - l2 + l3) * f(-l1 + l2 + l3), f(l1 + l2 + l3 + 1))
    states = f(l1 + m1) * f(l1 - m1) * f(l2 + m2) * f(l2 - m2) * f(l3 + m3) * f(l3 - m3)
    total = Fraction(0)
    for k in range(max(0, l2 - l3 - m1, l1 - l3 + m2), min(l1 + l2 - l3, l1 - m1, l2 + m2) + 1):
        denominator = f(k) * f(l3 - l2 + m1 + k) * f(l3 - l1 - m2 + k)
        denominator *= f(l1 + l2 - l3 - k) * f(l1 - m1 - k) * f(l2 + m2 - k)
        total += Fraction((-1) ** k, denominator)
    square = delta * states * total * total
    sign = (-1) ** (l1 - l2 - m3) * (1 if total > 0 else -1)
    return sign * sqrt(square)


def _real_basis(l: int) -> np.ndarray:
    """Rows: real harmonics of degree l, m = −l … l; columns: complex ones (with the Condon–Shortley phase)."""
    basis = np.zeros((2 * l + 1, 2 * l + 1), np.complex128)
    basis[l, l] = 1
    for m in range(1, l + 1):
        basis[l + m, l + m], basis[l + m, l - m] = (-1) ** m / sqrt(2), 1 / sqrt(2)
        basis[l - m, l + m], basis[l - m, l - m] = -1j * (-1) ** m / sqrt(2), 1j / sqrt(2)
    return basis
