"""Oligomers of 24 polymers, and 160 small molecules: repeat units, chains, and the plan of what is sampled.

A chain of n units is made from n copies of a repeat unit with two open ends `*`: the tail of each is bonded to the head of the
next, and both ends of the chain are capped with CH3. Four families are kept out of training altogether, and of six there are
chains longer than any in training.

Source: the families of PolyGET (Feng et al., arXiv:2309.00585), whose own data are not available; units and lengths are ours.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from equiform.data.formats.smiles import parsed_smiles, rdkit
from equiform.data.sets.catalogue import ENVIRONMENT, cache_folder
from equiform.errors import UserError, suggest

RESERVED_SEED = 7
"""A hold-out that no model is trained on was made with this seed."""

SMALL = "small"
"""Name of the family of small molecules."""


class Family(NamedTuple):
    """A polymer.

    Attributes:
        unit: SMILES of the repeat unit with two open ends, head first.
        longest: Number of units of the longest chain in training.
        unseen: It is kept out of training.
        longer: Number of units of the longer chains for testing; None if there are none.
    """

    unit: str
    longest: int
    unseen: bool = False
    longer: int | None = None


FAMILIES = {
    "PE": Family("*CC*", 5, longer=8),
    "PP": Family("*CC(*)C", 4, longer=7),
    "PIB": Family("*CC(*)(C)C", 3),
    "PS": Family("*CC(*)c1ccccc1", 2),
    "PVC": Family("*CC(*)Cl", 5),
    "PVDF": Family("*CC(*)(F)F", 4, unseen=True),
    "PTFE": Family("*C(F)(F)C(*)(F)F", 4),
    "PAN": Family("*CC(*)C#N", 4),
    "PVA": Family("*CC(*)O", 5),
    "PVAc": Family("*CC(*)OC(C)=O", 2, unseen=True),
    "PMMA": Family("*CC(*)(C)C(=O)OC", 2),
    "PAA": Family("*CC(*)C(=O)O", 3),
    "PEO": Family("*CCO*", 5, longer=8),
    "POM": Family("*CO*", 6),
    "PPO": Family("*CC(C)O*", 3),
    "PLA": Family("*OC(C)C(*)=O", 3, longer=5),
    "PGA": Family("*OCC(*)=O", 4),
    "PCL": Family("*OCCCCCC(*)=O", 2, unseen=True),
    "NY6": Family("*NCCCCCC(*)=O", 2, longer=3),
    "PET": Family("*OCCOC(=O)c1ccc(cc1)C(*)=O", 1, unseen=True),
    "PBD": Family("*CC=CC*", 4),
    "PIP": Family("*CC(C)=CC*", 3),
    "PPS": Family("*Sc1ccc(*)cc1", 3),
    "PDMS": Family("*O[Si](*)(C)C", 4, longer=7),
}

MOLECULES = (
    *("C", "CC", "CCC", "CC(C)C", "C1CC1", "C1CCCC1", "C1CCCCC1", "C=C"),
    *("CO", "O", "N", "CN", "C#N", "CF", "CCl", "CS"),
    *("CCO", "CCN", "C=O", "CC=O", "CC(C)=O", "C(=O)O", "CC(=O)O", "C(=O)N"),
    *("CC=C", "C#C", "CC#C", "CC#N", "c1ccccc1", "Cc1ccccc1", "C=CC=C", "C=C=C"),
    *("COC", "CCOCC", "C1CCOC1", "C1COCCO1", "COCOC", "CC(=O)OC", "O=COC", "COC(=O)OC"),
    *("CC(=O)N", "CC(=O)NC", "CN(C)C=O", "NC(=O)N", "CNC", "CN(C)C", "C1CCNCC1", "NCCN"),
    *("c1ccncc1", "c1cc[nH]c1", "c1ccoc1", "c1ccsc1", "c1c[nH]cn1", "Nc1ccccc1", "Oc1ccccc1", "Sc1ccccc1"),
    *("CSC", "CSSC", "CS(C)=O", "CS(C)(=O)=O", "C1CCSC1", "S", "CC(C)S", "CSCO"),
    *("FC(F)F", "ClC(Cl)Cl", "CCCl", "Clc1ccccc1", "Fc1ccccc1", "FC(F)(F)C(F)(F)F", "ClCCCl", "OCC(F)(F)F"),
    *("[SiH4]", "C[SiH3]", "C[Si](C)(C)C", "C[Si](C)(C)O", "[SiH3]O[SiH3]", "C[Si](C)(C)Cl", "C[Si](C)(C)c1ccccc1", "OCC(O)CO"),
    # From here on every row mixes the groups, since a row is one split.
    *("Cc1ccncc1", "CCCO", "CC(C)N", "CC(=O)NC(C)C", "CCS", "FCCF", "C[Si](C)(C)OC", "Cc1ccc(O)cc1"),
    *("c1cnccn1", "CC(C)O", "C1CCNC1", "CCC(C)=O", "CCSC", "CC(C)(C)Cl", "C[SiH2]C", "Nc1ccncc1"),
    *("Cc1ccc(N)cc1", "CC(C)(C)O", "CCCN", "CCC=O", "Cc1ccsc1", "FC(F)Cl", "CO[Si](C)(C)OC", "c1cc[nH]n1"),
    *("COc1ccccc1", "OCCO", "NCCO", "CCC(=O)O", "Cc1ccoc1", "ClC=C", "CC[SiH3]", "CNc1ccccc1"),
    *("Oc1ccccc1O", "CCCCO", "CN1CCNCC1", "O=C1CCCC1", "CSc1ccccc1", "FC=C", "C=C[Si](C)(C)C", "c1ccc2[nH]ccc2c1"),
    *("CC(=O)c1ccccc1", "COCCO", "C1CCCNCC1", "O=C1CCCN1", "Cc1ccc(S)cc1", "Fc1ccc(F)cc1", "C[Si](C)(O)O", "c1ccc2ccccc2c1"),
    *("Nc1cccc(O)c1", "OC1CCCCC1", "CCNCC", "CC(=O)N(C)C", "Cc1cscn1", "CC(F)C", "C[Si](C)(C)CO", "Cc1ccco1"),
    *("O=Cc1ccccc1", "CC1CCCO1", "NCCCN", "NC(=O)c1ccccc1", "c1cscn1", "Clc1ccncc1", "C[SiH](C)O[SiH](C)C", "C=Cc1ccccc1"),
    *("N#Cc1ccccc1", "COC(C)(C)C", "NCC(=O)O", "CC(=O)CC(C)=O", "c1ccc(cc1)-c1ccccc1", "CC(Cl)C", "CC(=O)SC", "Cc1cc[nH]c1"),
    *("c1cocn1", "OCC=C", "NCc1ccccc1", "O=C(O)c1ccccc1", "CCSSCC", "Oc1ccc(Cl)cc1", "C[Si](C)(C)N", "C1=CCCCC1"),
)
"""Small molecules with the functional groups of organic chemistry; none has the bonds that the unseen families test."""

ATOM_ENERGIES = {
    "gfn2": {
        "H": -10.7072,
        "C": -48.7981,
        "N": -70.9081,
        "O": -102.5218,
        "F": -125.6986,
        "Si": -42.7113,
        "S": -85.6195,
        "Cl": -121.9757,
    }
}
"""Energies of isolated atoms by method, eV."""

SPLITS = ("train", "validation", "test", "longer", "unseen")
_MOLECULES_PER_ROUND = 8
_TEMPERATURES = (300.0, 500.0, 700.0)
_VALIDATION_ROUND, _TEST_ROUND, _CYCLE = 3, 6, 10


class Trajectory(NamedTuple):
    """One conformer, and how it is sampled.

    Attributes:
        family: Its family.
        units: Number of repeat units; 0 for a small molecule.
        conformer: Its number in the family and split; for a small molecule its place in `MOLECULES`.
        temperature: K.
        split: All frames of a trajectory belong to one split.
        sampling: What moves the atoms: the labelling `method`, or the `classical` force field MMFF94.
    """

    family: str
    units: int
    conformer: int
    temperature: float
    split: str
    sampling: str = "method"

    @property
    def name(self) -> str:
        """A file name without suffix."""
        return f"{self.family}-{self.split}-{self.sampling}-{self.conformer:03d}"

    def seeds(self, seed: int) -> list[int]:
        """Entropy of the trajectory's random numbers, different for each."""
        number = 99 if self.family == SMALL else list(FAMILIES).index(self.family)
        return [seed, number, SPLITS.index(self.split) // 3, self.conformer, int(self.sampling == "classical")]


def polymers_folder(folder: str | Path | None = None) -> Path:
    """Where the set is, or will be: a given folder, `EQUIFORM_DATA`/polymers, or the user's cache."""
    if folder is not None:
        return Path(folder)
    given = os.environ.get(ENVIRONMENT)
    return (Path(given) if given else cache_folder()) / "polymers"


def find_families(names: Sequence[str]) -> tuple[str, ...]:
    """Names of families, checked; all if none is given.

    Raises:
        UserError: There is no such family.
    """
    known = {name.upper(): name for name in (*FAMILIES, SMALL)}
    for name in names:
        if name.upper() not in known:
            raise UserError(
                f"there is no family {name!r}{suggest(name, [*FAMILIES, SMALL])}; there are: {', '.join(known.values())}"
            )
    return tuple(known[name.upper()] for name in names) or tuple(known.values())


def plan(families: Sequence[str], conformers: int) -> list[Trajectory]:
    """All trajectories, in an order in which whatever is finished is of use and spread over all families.

    First the classical ones for training, which cost one label a frame; then those for validation and testing; then the
    others for training. Each part goes round the families.
    """
    sampled = list(_rounds(families, conformers))
    training = [trajectory for trajectory in sampled if trajectory.split == "train"]
    classical = [trajectory._replace(sampling="classical") for trajectory in training]
    return [*classical, *(trajectory for trajectory in sampled if trajectory.split != "train"), *training]


def _rounds(families: Sequence[str], conformers: int) -> Iterator[Trajectory]:
    """Rounds of one conformer per family, all on the labelling method.

    Of ten conformers of a training family one is for validation and one for testing. A round of small molecules is eight of
    them. Every other round has one conformer of each unseen family, and every fourth one of each longer chain.
    """
    for number in range(conformers):
        split = {_VALIDATION_ROUND: "validation", _TEST_ROUND: "test"}.get(number % _CYCLE, "train")
        for place, name in enumerate(families):
            hot = _TEMPERATURES[(number + place) % 3]
            if name == SMALL:
                chosen = range(_MOLECULES_PER_ROUND * number, _MOLECULES_PER_ROUND * (number + 1))
                yield from (
                    Trajectory(SMALL, 0, k, _TEMPERATURES[(number + k) % 3], split) for k in chosen if k < len(MOLECULES)
                )
                continue
            family = FAMILIES[name]
            if family.unseen:
                if number % 2 == 0:
                    yield Trajectory(name, 1 + (number // 2) % family.longest, number // 2, hot, "unseen")
                continue
            yield Trajectory(name, 1 + number % family.longest, number, hot, split)
            if family.longer is not None and number % 4 == 1:
                yield Trajectory(name, family.longer, number // 4, _TEMPERATURES[(number // 4 + place) % 2], "longer")


def molecule(trajectory: Trajectory) -> Any:
    """What is sampled, as an RDKit molecule, hydrogen implied."""
    if trajectory.family == SMALL:
        return parsed_smiles(MOLECULES[trajectory.conformer])
    return chain(FAMILIES[trajectory.family].unit, trajectory.units)


def chain(unit: str, units: int) -> Any:
    """An oligomer, both ends capped with CH3, as an RDKit molecule without hydrogens.

    Args:
        unit: SMILES of the repeat unit with two open ends, head first.
        units: How many.

    Raises:
        UserError: RDKit is missing, or the unit has not two open ends.
    """
    chem = rdkit()
    single = chem.MolFromSmiles(unit)
    if single is None or units < 1 or unit.count("*") != 2:
        raise UserError(
            f"{unit!r} × {units} is no oligomer: a repeat unit has two open ends (*), and there is at least one of it"
        )
    ends = [atom.GetIdx() for atom in single.GetAtoms() if atom.GetAtomicNum() == 0]
    whole = single
    for _ in range(units - 1):
        whole = chem.CombineMols(whole, single)
    editable, size = chem.RWMol(whole), single.GetNumAtoms()
    inner = [next(neighbor.GetIdx() for neighbor in single.GetAtomWithIdx(end).GetNeighbors()) for end in ends]
    for number in range(units - 1):
        editable.AddBond(number * size + inner[1], (number + 1) * size + inner[0], chem.BondType.SINGLE)
    first, last = ends[0], (units - 1) * size + ends[1]
    for cap in (first, last):
        editable.GetAtomWithIdx(cap).SetAtomicNum(6)
    stars = sorted((atom.GetIdx() for atom in editable.GetAtoms() if atom.GetAtomicNum() == 0), reverse=True)
    for star in stars:
        editable.RemoveAtom(star)
    made = editable.GetMol()
    chem.SanitizeMol(made)
    return made
