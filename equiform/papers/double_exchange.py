"""Study of self-learning Monte Carlo on the double-exchange model: the claims of a paper, one by one.

Exact chains → linear models and transformers of 0, 1, … layers fitted to them, several seeds → self-learning rounds →
acceptance of every model from many starts → the same weights on larger lattices → tables. Every stage saves its result in a
folder; an interrupted study resumes.

Source: Nagai and Tomiya (arXiv:2306.11527). Its coupling, temperature, shells, schedule and acceptance by layers are not
public: t = J = 1, T = 0.05 and the schedule are ours.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from equiform.persist.spin_model_file import EffectiveModel, load_effective, save_effective
from equiform.simulate.monte_carlo.analysis import Summary, series, summarize
from equiform.simulate.monte_carlo.chain_file import load_chain
from equiform.simulate.monte_carlo.double_exchange import DoubleExchangeConfig
from equiform.simulate.monte_carlo.estimates import Estimate
from equiform.simulate.monte_carlo.rkky import rkky
from equiform.simulate.monte_carlo.run import run_folder
from equiform.simulate.monte_carlo.simulation import SimulationConfig, Trace
from equiform.simulate.monte_carlo.training import (
    FitConfig,
    Samples,
    fit_linear,
    linear_start,
    mean_squared_error,
    samples_of,
    train,
)

Progress = Callable[[int, int, str], Any]
"""Progress callback `(done, total, note)`."""


class StudyConfig(BaseModel):
    """Sizes of the study.

    Attributes:
        temperature: T.
        train_chains: Exact chains that models are fitted to.
        test_chains: Exact chains that their errors are measured on.
        exact_sweeps: Sweeps of each.
        keep: Interval of sweeps between saved configurations.
        linear_shells: Numbers of shells of the linear models.
        num_layers: Largest number of layers of a transformer.
        seeds: Number of transformers of each depth.
        fit_steps: Steps of AdamW for each layer.
        rounds: Self-learning rounds after each layer.
        round_steps: Steps of AdamW in a round.
        round_proposals: Proposals per chain in a round.
        effective_sweeps: Sweeps of a proposal.
        chains: Starts of an acceptance, each an independent exact configuration.
        proposals: Proposals per chain.
        larger: Edges of larger lattices.
        larger_chains: Starts there.
        larger_burn_in: Proposals of 4 × 4 blocks for equilibration on 8 × 8; proportional to the sites on others.
        larger_proposals: Proposals per chain there.
        larger_sweeps: Effective sweeps there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: float = Field(0.05, gt=0)
    train_chains: int = Field(8, ge=1)
    test_chains: int = Field(4, ge=1)
    exact_sweeps: int = Field(500, ge=10)
    keep: int = Field(4, ge=1)
    linear_shells: tuple[int, ...] = (1, 2, 3, 4, 6, 9)
    num_layers: int = Field(4, ge=0)
    seeds: int = Field(2, ge=1)
    fit_steps: int = Field(5000, ge=1)
    rounds: int = Field(3, ge=0)
    round_steps: int = Field(1000, ge=1)
    round_proposals: int = Field(40, ge=5)
    effective_sweeps: int = Field(10, ge=1)
    chains: int = Field(16, ge=2)
    proposals: int = Field(150, ge=10)
    larger: tuple[int, ...] = (8, 10, 12)
    larger_chains: int = Field(8, ge=2)
    larger_burn_in: int = Field(150, ge=1)
    larger_proposals: int = Field(60, ge=2)
    larger_sweeps: int = Field(3, ge=1)

    @field_validator("linear_shells")
    @classmethod
    def _six_by_six_has_them(cls, shells: tuple[int, ...]) -> tuple[int, ...]:
        most = len(DoubleExchangeConfig().lattice.shells)
        if not all(1 <= count <= most for count in shells):
            raise ValueError(f"linear models have 1 to {most} shells on 6 × 6")
        return shells

    @field_validator("larger")
    @classmethod
    def _larger_lattices_are_larger(cls, edges: tuple[int, ...]) -> tuple[int, ...]:
        if not all(edge >= 6 for edge in edges):
            raise ValueError("larger lattices need at least 6 sites along an edge")
        return edges

    def scaled(self) -> "StudyConfig":
        """A small form of the study, of some minutes."""
        small = {"train_chains": 4, "test_chains": 4, "exact_sweeps": 200, "linear_shells": (1, 3, 6, 9), "num_layers": 2}
        small |= {"seeds": 1, "fit_steps": 1000, "rounds": 1, "round_steps": 300}
        small |= {"chains": 8, "proposals": 130, "larger": (8,), "larger_burn_in": 50, "larger_proposals": 20}
        return self.model_copy(update=small)


GROWING = ("linear_shells", "num_layers", "seeds", "proposals", "larger", "larger_burn_in", "larger_proposals")
"""Sizes that may change when a study is resumed: the finished part stays valid."""


class Row(NamedTuple):
    """One model's results.

    Attributes:
        name: Of the model.
        parameters: Number of its parameters.
        errors: MSE of β(F − H_eff) on the test chains, one per seed.
        accepted: Accepted proposals by chain, all seeds and starts, (chains, proposals).
        time: Autocorrelation time of F in proposals.
        milliseconds: Wall time of a proposal of one chain.
        observables: E/N, |m| and |m_s| with their errors.
    """

    name: str
    parameters: int
    errors: list[float]
    accepted: np.ndarray
    time: float
    milliseconds: float
    observables: list[Estimate]


class LargerRow(NamedTuple):
    """One model's acceptance on a larger lattice.

    Attributes:
        name: Of the model.
        edge: Sites along an edge.
        proposal: What a proposal may change.
        accepted: (chains, proposals), the chains of all seeds one after the other.
        seeds: Number of seeds.
    """

    name: str
    edge: int
    proposal: str
    accepted: np.ndarray
    seeds: int

    @property
    def by_seed(self) -> list[float]:
        """The acceptance of each seed."""
        return [float(chains.mean()) for chains in np.split(self.accepted, self.seeds)]


class Study:
    """The study in a folder.

    Attributes:
        folder: Folder of the results.
        config: Its sizes.
    """

    def __init__(self, folder: Path, config: StudyConfig, progress: Progress = lambda done, total, note: None):
        """Open a folder; finished parts are not repeated."""
        self.folder, self.config, self._progress = folder, config, progress
        folder.mkdir(parents=True, exist_ok=True)
        self.physics = DoubleExchangeConfig()
        self.lattice = self.physics.lattice

    def exact(self, part: str) -> tuple[SimulationConfig, Trace]:
        """An exact chain of the part `train` or `test`."""
        chains = self.config.train_chains if part == "train" else self.config.test_chains
        settings = self._settings(num_chains=chains, keep=self.config.keep, seed=1 if part == "train" else 2)
        self._run(self.folder / f"exact-{part}", settings, self.config.exact_sweeps, None, None)
        found, trace, _ = load_chain(self.folder / f"exact-{part}")
        return found, trace

    def samples(self, part: str) -> Samples:
        """Configurations of an exact chain without its burn-in."""
        return samples_of(*self.exact(part))

    def models(self) -> dict[str, list[EffectiveModel]]:
        """All effective models, by name; transformers once a seed."""
        samples = self.samples("train")
        found: dict[str, list[EffectiveModel]] = {"RKKY": [rkky(self.physics, self.config.temperature)]}
        for count in self.config.linear_shells:
            found[f"linear, {count} shells"] = [fit_linear(self.lattice, samples, self.lattice.shells[:count])]
        for seed in range(self.config.seeds):
            for layers, model in enumerate(self.transformers(seed, samples)):
                found.setdefault(f"transformer, L = {layers}", []).append(model)
        return found

    def transformers(self, seed: int, samples: Samples) -> list[EffectiveModel]:
        """Transformers of 0 … L layers of one seed, each after its self-learning rounds."""
        models: list[EffectiveModel] = []
        for layers in range(self.config.num_layers + 1):
            place = self.folder / f"transformer-{layers}-{seed}"
            if not (place / "final" / "config.json").exists():
                self._grow(place, layers, seed, samples, models)
            models.append(load_effective(place / "final")[0])
        return models

    def row(self, name: str, models: list[EffectiveModel]) -> Row:
        """Acceptance and observables of one model, all seeds together."""
        test, config = self.samples("test"), self.config
        errors = [mean_squared_error(self.lattice, model, test, config.temperature) for model in models]
        parts = [load_chain(self.folder / f"exact-{part}")[1].kept for part in ("train", "test")]
        settings = self._settings(num_chains=config.chains, effective_sweeps=config.effective_sweeps, keep=50)
        traces, seconds = [], 0.0
        for seed, model in enumerate(models):
            place = self.folder / f"slmc-{_slug(name)}-{seed}"
            # Each seed starts at other times of the exact chains, several autocorrelation times apart.
            starts = np.concatenate([kept[-1 - 20 * seed] for kept in parts])
            spins = np.resize(starts, (config.chains, *starts.shape[1:]))
            seconds += self._run(place, settings.model_copy(update={"seed": seed}), config.proposals, model, spins)
            traces.append(load_chain(place)[1].values)
        trace = Trace(np.concatenate(traces, axis=1), np.zeros((0, 1, 1, 3)))
        summary = summarize(settings, trace, 0.1)
        return Row(
            name=name,
            parameters=count_parameters(models[0]),
            errors=errors,
            accepted=series(trace, "accepted", 0.1),
            time=summary.times[0],
            milliseconds=1e3 * seconds / (len(models) * config.chains),
            observables=[summary.energy, summary.magnetization, summary.staggered],
        )

    def rows(self, models: dict[str, list[EffectiveModel]]) -> Iterator[Row]:
        """All models on 6 × 6, one after the other."""
        for name, of_seeds in models.items():
            yield self.row(name, of_seeds)

    def local(self) -> tuple[Summary, float]:
        """The exact chains together, and the milliseconds of a sweep of one chain."""
        parts = [self.exact(part) for part in ("train", "test")]
        values = np.concatenate([trace.values for _, trace in parts], axis=1)
        seconds = float((self.folder / "exact-train" / "seconds.txt").read_text())
        summary = summarize(parts[0][0], Trace(values, np.zeros((0, 1, 1, 3))), 0.1)
        return summary, 1e3 * seconds / self.config.train_chains

    def larger(self, models: dict[str, list[EffectiveModel]]) -> Iterator[LargerRow]:
        """Acceptance of the same weights on larger lattices, all seeds: of the whole lattice, and of blocks of 6 × 6 sites."""
        config = self.config
        for edge in config.larger:
            physics = DoubleExchangeConfig(size=(edge, edge))
            shared = {
                "model": physics,
                "num_chains": config.larger_chains,
                "effective_sweeps": config.larger_sweeps,
                "keep": 50,
            }
            # Block proposals are accepted often: the first model brings the starts to equilibrium for all.
            place = self.folder / f"burn-in-{edge}"
            burn = self._settings(**shared, block=4, seed=7, start="random", local_sweeps=0)
            burn_in = config.larger_burn_in * edge**2 // 64
            self._run(place, burn, burn_in, next(iter(models.values()))[0], None)
            spins = load_chain(place)[2]
            for block in (6, None):
                for name, of_seeds in models.items():
                    accepted = []
                    for seed, model in enumerate(of_seeds):
                        here = self.folder / f"larger-{edge}-{_slug(name)}-{seed}-{block or 'all'}"
                        self._run(here, self._settings(**shared, block=block, seed=seed), config.larger_proposals, model, spins)
                        accepted.append(series(load_chain(here)[1], "accepted", 0.0))
                    proposal = f"{block} × {block} block" if block else "whole lattice"
                    yield LargerRow(name, edge, proposal, np.concatenate(accepted), len(of_seeds))

    def _grow(self, place: Path, layers: int, seed: int, samples: Samples, smaller: list[EffectiveModel]) -> None:
        config = self.config
        fit = FitConfig(num_layers=layers, steps=config.fit_steps)
        key = jax.random.fold_in(jax.random.key(seed), layers)
        if layers == 0:
            model = linear_start(self.lattice, samples, fit.shells)
        else:
            with jax.enable_x64(True):
                model = smaller[-1].grown(key=jax.random.fold_in(key, 0))  # type: ignore[union-attr]
            model = train(self.lattice, samples, config.temperature, model, fit, key=key, progress=self._noted(place.name))
        save_effective(place / "fitted", model, {"seed": seed})
        refit = fit.model_copy(update={"steps": config.round_steps, "learning_rate": fit.learning_rate / 3})
        for number in range(config.rounds):
            settings = self._settings(num_chains=8, effective_sweeps=config.effective_sweeps, keep=5, seed=100 + number)
            visited = place / f"round-{number}"
            self._run(visited, settings, config.round_proposals, model, samples.spins[:: len(samples.spins) // 8][:8])
            found, trace, _ = load_chain(visited)
            samples = samples.joined(samples_of(found, trace, 0.0))
            if layers == 0:
                model = linear_start(self.lattice, samples, fit.shells)
            else:
                again = jax.random.fold_in(key, 1 + number)
                model = train(
                    self.lattice, samples, config.temperature, model, refit, key=again, progress=self._noted(visited.name)
                )
        save_effective(place / "final", model, {"seed": seed})

    def _settings(self, **changes: Any) -> SimulationConfig:
        return SimulationConfig(**{"temperature": self.config.temperature, "model": DoubleExchangeConfig(), **changes})

    def _run(
        self, place: Path, settings: SimulationConfig, steps: int, model: EffectiveModel | None, spins: np.ndarray | None
    ) -> float:
        """Run or resume; seconds per step without compilation, also of a finished run."""
        clock, times = place / "seconds.txt", [time.perf_counter()]

        def timed(done: int, total: int, note: str) -> None:
            times.append(time.perf_counter())
            self._progress(done, total, place.name)

        finished = clock.exists() and len(load_chain(place)[1].values) >= steps
        if not finished:
            run_folder(place, settings, steps, model, spins=spins, progress=timed)
            clock.write_text(f"{float(np.median(np.diff(times)))}" if len(times) > 1 else "nan")
        return float(clock.read_text())

    def _noted(self, name: str) -> Progress:
        return lambda done, total, note: self._progress(done, total, f"{name} {note}".strip())


def count_parameters(model: EffectiveModel) -> int:
    """Number of couplings, weights and the offset."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)))


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
