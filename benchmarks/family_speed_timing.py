"""Timing shared by both sides of benchmarks.family_speed; it imports nothing from either."""

import time
from collections.abc import Callable
from typing import Any

REPEATS, SECONDS = 5, 1.5


def best(call: Callable[[], Any]) -> float:
    """Time of a call in seconds: the minimum over repeats of several calls each."""
    call()
    start = time.perf_counter()
    call()
    number = max(1, int(SECONDS / REPEATS / max(time.perf_counter() - start, 1e-6)))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(number):
            call()
        times.append((time.perf_counter() - start) / number)
    return min(times)
