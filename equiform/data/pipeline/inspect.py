"""Inspect data before training: facts, and what looks wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from equiform.data.formats.reading import Reading
from equiform.data.pipeline import belonging, plausibility
from equiform.data.pipeline.check import usable
from equiform.data.pipeline.reference_energies import ReferenceEnergies, find_reference_energies, is_isolated_atom
from equiform.data.pipeline.unused import unused_inputs
from equiform.neighbors import Labels, neighbor_list

if TYPE_CHECKING:
    import ase

_SAMPLE = 2000  # structures whose distances are computed


@dataclass(frozen=True)
class DataReport:
    """What was found in the data.

    Attributes:
        facts: Name and value, human-readable.
        warnings: What the user should check, with the reason.
    """

    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """One line per fact, the names aligned."""
        width = max((len(name) for name, _ in self.facts), default=0)
        return [f"{name:<{width}}  {value}" for name, value in self.facts]

    def extended(self, *, notes: Sequence[str] = (), warnings: Sequence[str] = ()) -> "DataReport":
        """The report with further facts and warnings."""
        facts = self.facts + tuple(("data", note) for note in notes)
        return replace(self, facts=facts, warnings=tuple(dict.fromkeys((*self.warnings, *warnings))))


def inspect(reading: Reading, *, name: str = "data") -> DataReport:
    """Report on structures as read from a file; those that cannot be used are counted and left out.

    Raises:
        UserError: No structure can be used.
    """
    warnings = [*reading.keys.warnings, *reading.warnings]
    good = usable(reading, name=name, skip_invalid=True, warnings=warnings)
    alone = np.array([is_isolated_atom(atoms) for atoms in good.structures])
    isolated, rest = good.take(np.flatnonzero(alone)), good.take(np.flatnonzero(~alone))
    references = find_reference_energies(rest.structures, rest.labels, "auto", list(zip(isolated.structures, isolated.labels)))
    report = inspect_labelled(rest if len(rest) else isolated, references)
    notes = [f"{len(isolated)} isolated atoms"] if len(isolated) else []
    return report.extended(notes=notes, warnings=warnings)


def inspect_labelled(reading: Reading, references: ReferenceEnergies, whole: Reading | None = None) -> DataReport:
    """Report on usable structures, isolated atoms not among them.

    Args:
        reading: The structures that the facts are of.
        references: Reference energies.
        whole: The structures to look through for odd ones, if they are more: those that were split.
    """
    structures, labels = reading.structures, reading.labels
    facts = [*_what_there_is(structures), *(("labels", note) for note in reading.keys.notes)]
    distances = _distances(reading)
    facts += distances.facts
    symbols = _symbols()
    if references.values:
        values = ", ".join(f"{symbols[z]} {energy:.6g}" for z, energy in references.values.items())
        facts.append(("reference energies", f"{values} eV ({references.source})"))
    else:
        facts.append(("reference energies", references.source))
    per_atom = _interaction_per_atom(structures, labels, references.values)
    known = np.isfinite(per_atom)
    if known.any():
        low, middle, high = np.percentile(per_atom[known], [0, 50, 100])
        what = "interaction energy" if references.values else "energy"
        facts.append((what, f"{low:.4g} … {middle:.4g} … {high:.4g} eV/atom (least, median, most)"))
    forces = [label.forces for label in labels if label.forces is not None]
    if forces:
        components = np.concatenate(forces)
        largest = np.linalg.norm(components, axis=1).max()
        facts.append(("forces", f"rms {np.sqrt((components**2).mean()):.3g} eV/Å, largest {largest:.3g} eV/Å"))
    slope = belonging.energy_force_slope(structures, labels)
    if slope is not None and abs(slope.correlation) > 0.9:
        facts.append(("energies against forces", f"ΔE = {slope.value:.3f} × work of the forces ({slope.pairs} pairs)"))
    odd = odd_structures(whole or reading, references)
    warnings = [
        *references.warnings,
        *plausibility.unit_warnings(structures, labels),
        *filter(
            None,
            (
                belonging.slope_warning(slope),
                belonging.free_energy_warning(structures, labels, reading.free_energies, slope, reading.names),
                plausibility.reference_warning(per_atom[known], references.source, references.values),
            ),
        ),
        *_incomplete(labels),
        *unused_inputs(structures),
        *odd,
    ]
    return DataReport(tuple(facts), tuple(warnings))


def odd_structures(reading: Reading, references: ReferenceEnergies) -> list[str]:
    """What looks wrong in single structures, with their numbers."""
    if not len(reading):
        return []
    per_atom = _interaction_per_atom(reading.structures, reading.labels, references.values)
    frame = belonging.frame_warning(reading.structures, reading.labels, reading.names)
    return [
        *_distances(reading).warnings,
        *([frame] if frame else []),
        *_outliers(per_atom, reading),
        *_duplicates(reading),
    ]


def leaked(train: "Sequence[ase.Atoms]", others: "Mapping[str, Sequence[ase.Atoms]]") -> list[str]:
    """Structures of other sets that are also in the training set: their errors would be too small."""
    known = {_fingerprint(atoms) for atoms in train}
    warnings = []
    for name, structures in others.items():
        count = sum(_fingerprint(atoms) in known for atoms in structures)
        if count:
            warnings.append(f"{count} of {len(structures)} {name} structures are also in the training set")
    return warnings


def _what_there_is(structures: "Sequence[ase.Atoms]") -> list[tuple[str, str]]:
    symbols = _symbols()
    sizes = np.array([len(atoms) for atoms in structures])
    species = Counter[int]()
    for atoms in structures:
        species.update(int(z) for z in atoms.numbers)
    formulas = Counter(atoms.get_chemical_formula() for atoms in structures)
    common = ", ".join(f"{name} ({count})" for name, count in formulas.most_common(4))
    periodic = Counter("".join("TF"[not p] for p in atoms.pbc) for atoms in structures)
    boundaries = {"FFF": "not periodic", "TTT": "periodic"}
    return [
        (
            "structures",
            f"{len(structures)} of {len(formulas)} compositions: {common}" + (", …" if len(formulas) > 4 else ""),
        ),
        ("atoms", f"{sizes.min()} to {sizes.max()} per structure, {sizes.mean():.1f} on average"),
        ("elements", ", ".join(f"{symbols[z]} ({count})" for z, count in sorted(species.items()))),
        (
            "boundaries",
            ", ".join(f"{boundaries.get(p, f'pbc {p}')} ({n})" for p, n in periodic.most_common()),
        ),
    ]


def _distances(reading: Reading) -> DataReport:
    """Shortest distance of each pair of elements; atoms suspiciously near; the unit of length."""
    from ase.data import covalent_radii

    structures, symbols = reading.structures, _symbols()
    shortest: dict[tuple[int, int], float] = {}
    ratios, near = [], []
    sample = np.unique(np.linspace(0, len(structures) - 1, min(len(structures), _SAMPLE)).astype(int))
    for k in sample:
        atoms = structures[k]
        senders, receivers, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 3.5)
        if not len(senders):
            continue
        vectors = atoms.positions[senders] + shifts @ atoms.cell.array - atoms.positions[receivers]
        lengths = np.linalg.norm(vectors, axis=1)
        pairs = np.sort(np.stack([atoms.numbers[senders], atoms.numbers[receivers]], axis=1), axis=1)
        codes = pairs[:, 0] * 200 + pairs[:, 1]
        for code in np.unique(codes):
            pair = divmod(int(code), 200)
            shortest[pair] = min(shortest.get(pair, np.inf), float(lengths[codes == code].min()))
        relative = lengths / (covalent_radii[pairs[:, 0]] + covalent_radii[pairs[:, 1]])
        nearest = np.full(len(atoms), np.inf)
        np.minimum.at(nearest, receivers, relative)
        ratios.append(nearest[np.isfinite(nearest)])
        if relative.min() < 0.5:
            worst = int(np.argmin(relative))
            near.append((k, lengths[worst], symbols[pairs[worst, 0]], symbols[pairs[worst, 1]]))
    facts, warnings = [], []
    if shortest:
        listed = sorted(shortest.items(), key=lambda item: item[1])[:6]
        text = ", ".join(f"{symbols[a]}–{symbols[b]} {d:.2f}" for (a, b), d in listed)
        of = f" (in {len(sample)} of the structures)" if len(sample) < len(structures) else ""
        facts.append(("shortest distances", f"{text} Å{of}"))
        unit = plausibility.length_unit_warning(np.concatenate(ratios))
        if unit:
            warnings.append(unit)
    if near:
        k, length, a, b = min(near, key=lambda item: item[1])
        warnings.append(
            f"atoms overlap in {len(near)} structures: the worst is {a}–{b} at {length:.2f} Å in {reading.names[k]}"
        )
    return DataReport(tuple(facts), tuple(warnings))


def _interaction_per_atom(
    structures: "Sequence[ase.Atoms]", labels: Sequence[Labels], references: Mapping[int, float]
) -> np.ndarray:
    values = np.full(len(structures), np.nan)
    for k, (atoms, label) in enumerate(zip(structures, labels)):
        if label.energy is not None:
            base = sum(references.get(int(z), 0.0) for z in atoms.numbers)
            values[k] = (label.energy - base) / len(atoms)
    return values


def _incomplete(labels: Sequence[Labels]) -> list[str]:
    warnings = []
    for name in ("energy", "forces", "stress"):
        missing = sum(getattr(label, name) is None for label in labels)
        if 0 < missing < len(labels) and name != "stress":
            warnings.append(f"{missing} of {len(labels)} structures have no {name}: training uses the labels that they have")
    empty = sum(all(value is None for value in label) for label in labels)
    if empty:
        warnings.append(f"{empty} of {len(labels)} structures have no labels at all")
    return warnings


def _outliers(per_atom: np.ndarray, reading: Reading) -> list[str]:
    labels, names, warnings = reading.labels, reading.names, []
    known = per_atom[np.isfinite(per_atom)]
    if len(known) >= 10:
        low, middle, high = np.percentile(known, [25, 50, 75])
        far = np.flatnonzero(np.abs(per_atom - middle) > max(10 * (high - low), 0.5))
        if len(far):
            worst = far[np.argmax(np.abs(per_atom[far] - middle))]
            warnings.append(
                f"{len(far)} energies are far from the rest: {names[worst]} has {per_atom[worst]:.4g} eV/atom, the median is "
                f"{middle:.4g} (half lie within {high - low:.2g})"
            )
    largest = np.array([np.nan if x.forces is None else np.linalg.norm(x.forces, axis=1).max() for x in labels])
    known = largest[np.isfinite(largest)]
    if len(known):
        far = np.flatnonzero(largest > max(50.0, 10 * float(np.median(known))))
        if len(far):
            worst = far[np.argmax(largest[far])]
            warnings.append(f"{len(far)} structures have extreme forces: up to {largest[worst]:.4g} eV/Å in {names[worst]}")
    return warnings


def _duplicates(reading: Reading) -> list[str]:
    structures, labels, names = reading.structures, reading.labels, reading.names
    first: dict[bytes, int] = {}
    repeats, contradictory = [], []
    for k, atoms in enumerate(structures):
        earlier = first.setdefault(_fingerprint(atoms), k)
        if earlier == k:
            continue
        repeats.append((earlier, k))
        a, b = labels[earlier].energy, labels[k].energy
        if a is not None and b is not None and abs(a - b) > 1e-3 * len(atoms):
            contradictory.append((earlier, k, abs(a - b)))
    warnings = []
    if repeats:
        i, j = repeats[0]
        warnings.append(f"{len(repeats)} structures repeat an earlier one ({names[j]} is {names[i]})")
    if contradictory:
        i, j, gap = contradictory[0]
        warnings.append(
            f"{len(contradictory)} repeated structures have different energies ({names[i]} and {names[j]}: {gap:.3g} eV)"
        )
    return warnings


def _fingerprint(atoms: "ase.Atoms") -> bytes:
    """Equal for structures with the same atoms in the same places, wherever the whole is."""
    positions = atoms.positions - atoms.positions[0]
    cell = atoms.cell.array.round(4) if atoms.pbc.any() else np.zeros(0)
    return b"".join(
        np.ascontiguousarray(part).tobytes()
        for part in (atoms.numbers.astype(np.int64), positions.round(4) + 0.0, cell + 0.0, atoms.pbc)
    )


def _symbols() -> list[str]:
    from ase.data import chemical_symbols

    return chemical_symbols
