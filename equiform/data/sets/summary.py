"""Content of a store: counts, fields, statistics, the published splits, histograms."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equiform.data.sets import oc20, protocols, qm9
from equiform.data.sets.config import SetConfig
from equiform.data.sets.prepare import md17_split, system_split, target_values
from equiform.data.store.files import Store
from equiform.data.units import KCAL_MOL
from equiform.errors import UserError

_SAMPLE = 200_000  # rows of a column that its statistics are taken from, evenly spread
_BINS = 60
_NOISE = 0.01  # eV
_HIDDEN = ("num_atoms", "positions", "species", "cell", "number", "system", "frame")


class Summary(NamedTuple):
    """What `equiform data info` prints.

    Attributes:
        facts: Names and values.
        fields: Rows: name, unit, per what, mean, standard deviation, least, most, meaning.
        tables: Titles, heads and rows.
    """

    facts: list[tuple[str, str]]
    fields: list[tuple[str, ...]]
    tables: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]

    def as_dict(self) -> dict[str, Any]:
        """The same for programs."""
        heads = ("name", "unit", "per", "mean", "std", "least", "most", "about")
        return {
            "facts": dict(self.facts),
            "fields": [dict(zip(heads, row)) for row in self.fields],
            "tables": [
                {"title": title, "rows": [dict(zip(columns, row)) for row in rows]} for title, columns, rows in self.tables
            ],
        }


def summarize(store: Store, name: str) -> Summary:
    """Summary of the store of a data set.

    Args:
        store: The store.
        name: The data set.
    """
    from ase.data import chemical_symbols

    counts = np.bincount(store["species"], minlength=1)
    atoms = np.asarray(store["num_atoms"])
    facts = [
        ("data set", str(store.about.get("about", name)) + (f", {part}" if (part := store.about.get("part")) else "")),
        ("licence", str(store.about.get("licence", ""))),
        ("source", str(store.about.get("source", ""))),
        ("store", str(store.path)),
        ("structures", f"{len(store):,}"),
        ("atoms", f"{atoms.sum():,}; {atoms.min()} to {atoms.max()} in a structure, mean {atoms.mean():.3f}"),
        ("elements", ", ".join(f"{chemical_symbols[z]} {counts[z]:,}" for z in np.flatnonzero(counts))),
    ]
    facts += [(key, str(store.about[key])) for key in ("labels", "published unit", "energies") if key in store.about]
    fields = [_field_row(store, key) for key in store.fields if key not in _HIDDEN]
    tables = []
    if name == "qm9":
        known = "as published" if store.about.get("content") == qm9.CONTENT else "NOT that of the published archive"
        facts.append(("content", f"{str(store.about.get('content'))[:16]}…, {known}"))
        tables.append(_targets(store))
        facts += _splits(store)
    elif name in ("md17", "rmd17"):
        facts += _md17_facts(store, name)
    else:
        facts += _oc20_facts(store)
    return Summary(facts, fields, tables)


def force_slope(store: Store) -> tuple[float, float] | None:
    """ΔE against the work of the forces over pairs of like frames of one system: slope and correlation; None without pairs.

    ΔE = −½ (F₁ + F₂)·Δx up to third order in Δx, so the slope is 1 where energies and forces belong together.
    """
    energy = "current_energy" if "current_energy" in store.fields else "energy"
    if "forces" not in store.fields or len(store) < 3:
        return None
    groups = np.asarray(store["system"]) if "system" in store.fields else np.zeros(len(store), int)
    work, change, apart = [], [], []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)[:1500]
        if len(rows) < 2:
            continue
        positions = np.array([store.rows("positions", k) for k in rows.tolist()])
        forces = np.array([store.rows("forces", k) for k in rows.tolist()])
        square = (positions.reshape(len(rows), -1) ** 2).sum(axis=1)
        flat = positions.reshape(len(rows), -1)
        distance = square[:, None] + square[None] - 2 * flat @ flat.T
        np.fill_diagonal(distance, np.inf)
        near = distance.argmin(axis=1)
        moved = positions[near] - positions
        work.append(-0.5 * ((forces + forces[near]) * moved).sum(axis=(1, 2)))
        values = np.asarray(store[energy])[rows]
        change.append(values[near] - values)
        apart.append(np.linalg.norm(moved, axis=2).max(axis=1))
    if not work:
        return None
    # The rule is of third order in the displacement, so pairs must be near; and their energies must differ by more than the
    # calculations' own noise (a meV or two).
    x, y, distance = np.concatenate(work), np.concatenate(change), np.concatenate(apart)
    near = np.flatnonzero(np.abs(x) > _NOISE)
    near = near[np.argsort(distance[near])][: max(20, len(near) // 20)]
    x, y = x[near], y[near]
    scale = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return (float((x * y).sum() / (x**2).sum()), float((x * y).sum()) / scale) if scale else None


def write_histograms(store: Store, folder: Path) -> list[Path]:
    """Histograms of all numbers per structure, and of force components, as one PNG.

    Returns:
        The files.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from equiform.runtime.files import explained

    names = [key for key, field in store.fields.items() if key in ("num_atoms", "forces") or _plottable(key, field)]
    columns = min(4, len(names))
    figure = Figure(figsize=(4 * columns, 3 * -(-len(names) // columns)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, key in enumerate(names):
        values = _sampled(store, key)
        values = values[np.isfinite(values)]
        axes = figure.add_subplot(-(-len(names) // columns), columns, place + 1)
        axes.hist(values, bins=_BINS, color="#4477aa")
        unit = store.fields[key].unit
        axes.set_xlabel(f"{key} ({unit})" if unit else key)
        axes.set_ylabel("count")
    path = folder / "histograms.png"
    with explained(f"cannot write {path}", "free some space or fix the permissions"):
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)
    return [path]


def _plottable(key: str, field: Any) -> bool:
    return field.per == "graph" and key not in _HIDDEN and not field.shape


def _sampled(store: Store, key: str) -> np.ndarray:
    column = store[key]
    step = max(len(column) // _SAMPLE, 1)
    return np.asarray(column[::step], np.float64).reshape(-1)


def _field_row(store: Store, key: str) -> tuple[str, ...]:
    field, values = store.fields[key], _sampled(store, key)
    values = values[np.isfinite(values)]
    if not len(values):
        return (key, field.unit, field.per, "–", "–", "–", "–", field.about)
    numbers = (values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0, values.min(), values.max())
    return (key, field.unit, field.per, *(f"{number:.6g}" for number in numbers), field.about)


def _targets(store: Store) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """The 12 targets, as they are learnt, over the training parts of both splits."""
    rows = []
    for target in qm9.TARGETS.values():
        values, _ = target_values(store, target)
        cells: list[str] = []
        for split in _both(len(store)).values():
            part = values[split.train]
            cells += [f"{part.mean():.6f}", f"{part.std(ddof=1):.6f}"]
        if not cells:
            cells = [f"{values.mean():.6f}", f"{values.std(ddof=1):.6f}"]
        rows.append((target.name, target.unit, *cells))
    heads = [f"{what}, {name}" for name in _both(len(store)) or ("all",) for what in ("mean", "std")]
    title = "Targets as they are learnt (atomic energies subtracted from U0, U, H, G), training parts"
    return title, ("target", "unit", *heads), rows


def _both(count: int) -> dict[str, protocols.Split]:
    found = {}
    for name, make in (
        ("Equiformer", lambda: protocols.permuted(count, 110_000, 10_000)),
        ("EGNN", lambda: protocols.cormorant(count)),
    ):
        try:
            found[name] = make()
        except UserError:  # Fewer molecules than are published.
            continue
    return found


def _splits(store: Store) -> list[tuple[str, str]]:
    return [(f"split, {name}", split.about) for name, split in _both(len(store)).items()]


def _md17_facts(store: Store, name: str) -> list[tuple[str, str]]:
    facts = [("conversion", f"1 kcal/mol = {1e3 * KCAL_MOL:.4f} meV")]
    requested = ["published"] if name == "md17" else [f"official-{number}" for number in store.about.get("splits", {})]
    for split in requested:
        try:
            found = md17_split(SetConfig(set="md17" if name == "md17" else "rmd17", molecule="ethanol", split=split), store)
        except UserError as error:
            facts.append((f"split, {split}", str(error)))
            continue
        values = np.asarray(store["energy"])[found.train]
        facts.append((f"split, {split}", found.about))
        mean, std = values.mean(), values.std(ddof=1)
        numbers = f"mean {mean:.6f} eV ({mean / KCAL_MOL:.4f} kcal/mol), std {std:.6f} eV ({std / KCAL_MOL:.4f} kcal/mol)"
        facts.append(("its training energies", numbers))
    return facts + _slope_fact(store)


def _oc20_facts(store: Store) -> list[tuple[str, str]]:
    tags = np.bincount(np.asarray(store["tags"]), minlength=3)
    facts = [("tags", f"{tags[0]:,} sub-surface, {tags[1]:,} surface, {tags[2]:,} adsorbate atoms")]
    facts.append(("fixed atoms", f"{int(np.asarray(store['fixed']).sum()):,}"))
    facts.append(("systems", f"{len(np.unique(store['system'])):,}"))
    facts.append(("normalisation", f"published: mean {oc20.ENERGY_MEAN:.6f}, std {oc20.ENERGY_STD:.6f} eV"))
    try:
        facts.append(("split, systems", system_split(store, 1).about))
    except UserError as error:
        facts.append(("split, systems", str(error)))
    return facts + _slope_fact(store)


def _slope_fact(store: Store) -> list[tuple[str, str]]:
    slope = force_slope(store)
    if slope is None:
        return []
    return [
        ("energies and forces", f"ΔE = {slope[0]:.4f} × work of the forces between like frames (correlation {slope[1]:.4f})")
    ]
