"""Averages of a run, accumulated on the fly."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass
class RunningFit:
    """Mean and standard deviation of the temperature, and a linear fit to the energy, over all steps so far.

    Sums are accumulated step by step, so they do not depend on how the steps were chunked, and an interrupted
    run ends with the same numbers.
    """

    count: float = 0.0
    first_energy: float = 0.0
    temperature: float = 0.0
    temperature_squared: float = 0.0
    time: float = 0.0
    time_squared: float = 0.0
    energy: float = 0.0
    energy_time: float = 0.0
    energy_squared: float = 0.0

    def add(
        self,
        time: Float[np.ndarray, "steps"],
        energy: Float[np.ndarray, "steps"],
        temperature: Float[np.ndarray, "steps"],
    ) -> None:
        """Add steps: times (ps), total energies (eV), temperatures (K)."""
        if not len(time):
            return
        if not self.count:
            self.first_energy = float(energy[0])
        energy = energy - self.first_energy
        self.count += len(time)
        self.temperature = _plus(self.temperature, temperature)
        self.temperature_squared = _plus(self.temperature_squared, temperature**2)
        self.time = _plus(self.time, time)
        self.time_squared = _plus(self.time_squared, time**2)
        self.energy = _plus(self.energy, energy)
        self.energy_time = _plus(self.energy_time, energy * time)
        self.energy_squared = _plus(self.energy_squared, energy**2)

    @property
    def mean_temperature(self) -> float:
        return self.temperature / self.count if self.count else float("nan")

    @property
    def temperature_spread(self) -> float:
        """Standard deviation, K."""
        if not self.count:
            return float("nan")
        return float(np.sqrt(max(self.temperature_squared / self.count - self.mean_temperature**2, 0)))

    @property
    def drift(self) -> float:
        """Slope of the least-squares line of the total energy, eV/ps; NaN before the second step."""
        variance = self.count * self.time_squared - self.time**2
        return (self.count * self.energy_time - self.time * self.energy) / variance if variance > 0 else float("nan")

    @property
    def energy_spread(self) -> float:
        """Standard deviation of the total energy, eV."""
        if not self.count:
            return float("nan")
        mean = self.energy / self.count
        return float(np.sqrt(max(self.energy_squared / self.count - mean**2, 0)))


def _plus(total: float, values: Float[np.ndarray, "steps"]) -> float:
    # `cumsum` adds from left to right, unlike `sum`, whose order depends on the length.
    return float(np.cumsum(np.concatenate([[total], values]))[-1])
