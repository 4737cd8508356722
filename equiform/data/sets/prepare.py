"""From a `SetConfig` to data sets ready for training, and the facts for `equiform data info`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from equiform.data.formats.labels import LabelKeys
from equiform.data.pipeline.dataset import Dataset
from equiform.data.pipeline.inspect import DataReport
from equiform.data.pipeline.prepared import PreparedData
from equiform.data.sets import oc20, protocols, qm9
from equiform.data.sets.arteries import prepare_arteries
from equiform.data.sets.catalogue import check_name, open_store
from equiform.data.sets.config import SetConfig
from equiform.data.sets.nbody_prepare import prepare_nbody
from equiform.data.sets.polymers_prepare import prepare_polymers
from equiform.data.sets.protocols import Split
from equiform.data.store.files import Store
from equiform.data.store.graphs import Noise, StoredGraphs
from equiform.data.store.neighborhood import Neighborhood, oc20_neighborhood
from equiform.data.units import HARTREE, KCAL_MOL
from equiform.errors import UserError
from equiform.fields import Field

_MOST_STORED_EDGES = 500_000_000
_QM9_SIZES, _MD17_SIZES = (110_000, 10_000), (950, 50)

Progress = Callable[[int, int], None]


def prepare_set(config: SetConfig, cutoff: float | None, *, progress: Progress | None = None) -> PreparedData:
    """Open the store of a data set, divide it as published, and attach the labels.

    Args:
        config: Which set, target and split.
        cutoff: Å; None for models without a cutoff, which take simulated particles only.
        progress: Progress callback `(done, total)`, in structures done while a store or set is made.

    Raises:
        UserError: The set is not available, or the target, molecule or split does not exist or does not fit.
    """
    _check_keys(config)
    if config.set.startswith("nbody-"):
        return prepare_nbody(config, cutoff, progress=progress)
    if config.set in ("arteries", "tubes"):
        return prepare_arteries(config, cutoff)
    if cutoff is None:
        raise UserError(f"this model has no cutoff: it is for simulated particles (nbody-…), not for {config.set}")
    if config.set == "polymers":
        return prepare_polymers(config, cutoff, progress=progress)
    if config.set == "qm9":
        return _qm9(config, cutoff, progress)
    if config.set in ("md17", "rmd17"):
        return _md17(config, cutoff, progress)
    return _oc20(config, cutoff, progress)


def target_values(store: Store, target: qm9.Target) -> tuple[np.ndarray, dict[int, float]]:
    """A QM9 target of every molecule in the unit that it is learnt in, and the atomic energies that were subtracted, eV."""
    values = target.factor * np.asarray(store[target.name])
    if target.atomref is None:
        return values, {}
    atomref = {int(z): HARTREE * value for z, value in store.about["atomref"][target.atomref].items()}
    table = np.zeros(128)
    table[list(atomref)] = list(atomref.values())
    starts = np.concatenate([[0], np.cumsum(store["num_atoms"], dtype=np.int64)[:-1]])
    return values - np.add.reduceat(table[store["species"]], starts), atomref


def qm9_split(config: SetConfig, count: int) -> Split:
    """The split of a configuration.

    Raises:
        UserError: There is no such split, or its parts do not fit.
    """
    if config.split == "published":
        return protocols.permuted(count, *_QM9_SIZES, seed=config.seed)
    if config.split == "egnn":
        return protocols.cormorant(count)
    raise UserError(f"QM9 has no split {config.split!r}; there are: published (Equiformer, TorchMD-NET), egnn (Cormorant)")


def md17_split(config: SetConfig, store: Store) -> Split:
    """The split of a configuration.

    Raises:
        UserError: There is no such split, or its parts do not fit.
    """
    revised = config.set == "rmd17"
    requested = "official-01" if revised and config.split == "published" else config.split
    if requested.startswith("official-") and revised:
        have = store.about.get("splits", {})
        number = requested.removeprefix("official-")
        if number not in have:
            raise UserError(f"there is no official split {number!r} here; there are: {', '.join(have) or 'none'}")
        train, test = (np.array(rows, np.int64) for rows in have[number])
        return protocols.official_md17(train, test, _MD17_SIZES[1], number=int(number), num_structures=len(store))
    if requested == "published" or (requested == "random" and revised):
        return protocols.permuted(len(store), *_MD17_SIZES, seed=config.seed)
    names = "official-01 … official-05, random" if revised else "published (950 / 50 / rest)"
    raise UserError(f"{config.set} has no split {config.split!r}; there are: {names}")


def system_split(store: Store, seed: int) -> Split:
    """Whole relaxations for training, one for validation and a quarter, rounded up, for testing.

    Raises:
        UserError: There are fewer than three relaxations.
    """
    systems = np.unique(store["system"])
    if len(systems) < 3:
        raise UserError(f"{len(systems)} relaxations cannot be divided into training, validation and test systems")
    order = np.random.default_rng(seed).permutation(systems)
    held = -(-len(systems) // 4)
    parts = (order[held + 1 :], order[held : held + 1], order[:held])
    shuffle = np.random.default_rng([seed, 1]).permutation
    rows = [shuffle(np.flatnonzero(np.isin(store["system"], part))) for part in parts]
    names = [", ".join(map(str, sorted(part.tolist()))) for part in parts]
    return Split(*rows, about=f"by system, seed {seed}: train {names[0]}; validation {names[1]}; test {names[2]}")


def _qm9(config: SetConfig, cutoff: float, progress: Progress | None) -> PreparedData:
    target = qm9.find_target(config.target or "")
    store = open_store("qm9", folder=config.folder, progress=progress)
    split = qm9_split(config, len(store)).first(config.train_size, config.validation_size, config.test_size)
    values, atomref = target_values(store, target)
    edges = store.edges(Neighborhood(cutoff), progress=progress)

    def part(rows: np.ndarray) -> Dataset:
        graphs = StoredGraphs(store, rows, edges, graph_labels={target.name: values[rows]})
        return Dataset(graphs, cutoff, fields=[Field(target.name, "graphs", "invariant", target.unit)], quantity=target.name)

    facts = [
        ("data", f"QM9, {len(store):,} molecules, {store.path}"),
        ("split", split.about),
        ("target", f"{target.symbol} ({target.name}), {target.unit}" + (", atomic energies subtracted" if atomref else "")),
        ("training part", _statistics(values[split.train], target.unit)),
    ]
    return _prepared(part, split, facts, atomref)


def _md17(config: SetConfig, cutoff: float, progress: Progress | None) -> PreparedData:
    molecule = check_name(config.set, config.molecule)
    store = open_store(config.set, molecule, config.folder, progress=progress)
    split = md17_split(config, store).first(config.train_size, config.validation_size, config.test_size)
    edges = store.edges(Neighborhood(cutoff), progress=progress)
    energies = np.asarray(store["energy"])

    def part(rows: np.ndarray) -> Dataset:
        labels = {"energy": energies[rows]}
        return Dataset(StoredGraphs(store, rows, edges, graph_labels=labels, node_labels={"forces": "forces"}), cutoff)

    deviation = energies[split.train].std(ddof=1)
    facts = [
        ("data", f"{config.set} {molecule}, {len(store):,} frames ({store.about['labels']}), {store.path}"),
        ("split", split.about),
        ("energies", f"{_statistics(energies[split.train], 'eV')} (std {deviation / KCAL_MOL:.4f} kcal/mol)"),
    ]
    return _prepared(part, split, facts, {})


def _oc20(config: SetConfig, cutoff: float, progress: Progress | None) -> PreparedData:
    neighborhood = oc20_neighborhood(cutoff)

    def graphs(store: Store, rows: np.ndarray, *, drawn: bool) -> Dataset:
        few = int(store["num_atoms"].sum(dtype=np.int64)) * 40 < _MOST_STORED_EDGES and not config.noise
        edges = store.edges(neighborhood, keep=few, progress=progress)
        related = bool(len(rows)) and bool(np.isfinite(store.rows("relaxed", int(rows[0]))).all())
        if config.noise and not related:
            raise UserError(f"{store.path} has no relaxed positions, which data.noise=true needs")
        labels = {"displacement": lambda row: oc20.displacement(store, row)} if related else {}
        noise = Noise(lambda row, rng: oc20.draw_positions(store, row, rng), neighborhood) if drawn and config.noise else None
        stored = StoredGraphs(
            store,
            rows,
            edges,
            graph_labels={"energy": _relaxation_energies(store)[rows]},
            node_labels={"tags": "tags"},
            node_values=labels,
            noise=noise,
        )
        return Dataset(stored, cutoff)

    if config.split == "systems":
        store = open_store("oc20-is2re", oc20.SAMPLE, config.folder, progress=progress)
        split = system_split(store, config.seed).first(config.train_size, config.validation_size, config.test_size)
        tests = {"test": graphs(store, split.test, drawn=False)}
        train, validation = graphs(store, split.train, drawn=True), graphs(store, split.validation, drawn=False)
        facts = [("data", f"OC20 relaxations, {len(store)} frames, {store.path}"), ("split", split.about)]
        facts.append(("energies", f"what the rest of the relaxation gains, {_statistics(train.energy, 'eV')}"))
        return PreparedData(train, validation, tests, train.elements, {}, DataReport(tuple(facts)), LabelKeys(energy="energy"))
    if config.split != "published":
        raise UserError(f"oc20-is2re has no split {config.split!r}; there are: published (the publishers' parts), systems")
    name = "train" if config.part == "all" else f"train-{config.part}"
    store = open_store("oc20-is2re", name, config.folder, progress=progress)
    train = graphs(store, np.arange(len(store))[: config.train_size], drawn=True)
    tests = {}
    for part in ("val_id", "val_ood_ads", "val_ood_cat", "val_ood_both"):
        try:
            held = open_store("oc20-is2re", part, config.folder, progress=progress)
        except UserError:
            if part == "val_id":
                raise
            continue
        tests[part] = graphs(held, np.arange(len(held))[: config.test_size], drawn=False)
    facts = [("data", f"OC20 IS2RE {name}, {len(train):,} structures, {store.path}")]
    facts.append(("energies", f"{store.about['energies']}, {_statistics(train.energy, 'eV')}"))
    validation = tests["val_id"][: config.validation_size]
    return PreparedData(train, validation, tests, train.elements, {}, DataReport(tuple(facts)), LabelKeys(energy="energy"))


def _relaxation_energies(store: Store) -> np.ndarray:
    """Adsorption energies of the relaxed state; of trajectories, which have total energies, what the relaxation still gains."""
    final = np.asarray(store["energy"])
    return final - np.asarray(store["current_energy"]) if "current_energy" in store.fields else final


def _prepared(
    part: Callable[[np.ndarray], Dataset], split: Split, facts: list[tuple[str, str]], reference_energies: dict[int, float]
) -> PreparedData:
    train = part(split.train)
    counts = " / ".join(f"{len(rows):,}" for rows in (split.train, split.validation, split.test))
    facts.append(("data", f"{counts} structures to train on, for validation and for testing"))
    return PreparedData(
        train=train,
        validation=part(split.validation),
        tests={"test": part(split.test)},
        elements=train.elements,
        reference_energies=reference_energies,
        report=DataReport(tuple(facts)),
        keys=LabelKeys(energy="energy"),
    )


def _statistics(values: np.ndarray, unit: str) -> str:
    """Mean and (unbiased, as PyTorch's) standard deviation."""
    return f"mean {values.mean():.6g}, std {values.std(ddof=1):.6g} {unit}"


def _check_keys(config: SetConfig) -> None:
    requested: dict[str, tuple[str, ...]] = {"qm9": ("target",), "md17": ("molecule",), "rmd17": ("molecule",)}
    for key in ("target", "molecule"):
        value: Any = getattr(config, key)
        needed = key in requested.get(config.set, ())
        if needed and value is None:
            options = ", ".join(qm9.TARGETS) if key == "target" else "aspirin, ethanol, …"
            raise UserError(f"data.{key} is missing: {config.set} needs one ({options})")
        if not needed and value is not None and not (config.set == "polymers" and key == "molecule"):
            raise UserError(f"data.{key}={value} does not go with data.set={config.set}")
    if config.tests is not None and config.set != "nbody-gatr":
        raise UserError(f"data.tests goes with data.set=nbody-gatr, not {config.set}")
    if config.noise and config.set != "oc20-is2re":
        raise UserError(f"data.noise=true goes with data.set=oc20-is2re, not {config.set}")
