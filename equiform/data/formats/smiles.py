"""SMILES → a molecule in three dimensions: ETKDG geometry, then the MMFF94 minimum nearby (RDKit, optional).

A structure given on the command line as `SMILES:CCO` is read here.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from equiform.data.formats.labels import LabelKeys
from equiform.data.formats.reading import Reading
from equiform.data.formats.values import Weights
from equiform.errors import UserError
from equiform.neighbors import Labels

if TYPE_CHECKING:
    from ase import Atoms

PREFIX = "SMILES:"
"""What marks a SMILES where a file is expected."""


def smiles_of(structure: str | Path) -> str | None:
    """The SMILES in `SMILES:…`; None for the name of a file."""
    text = str(structure)
    return text[len(PREFIX) :] if text.upper().startswith(PREFIX) else None


def rdkit() -> Any:
    """The module `rdkit.Chem`.

    Raises:
        UserError: RDKit is not installed.
    """
    try:
        from rdkit import Chem, RDLogger
    except ImportError:
        raise UserError("reading SMILES needs RDKit: pip install 'equiform[polymers]'") from None
    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined] - it writes to stderr, what matters is raised
    return Chem


def molecule_from_smiles(smiles: str, seed: int = 1) -> "Atoms":
    """A conformer of a molecule, hydrogen included, Å; see `parsed_smiles` and `embedded`."""
    return atoms_of(embedded(parsed_smiles(smiles), smiles, seed))


def read_smiles(smiles: str) -> Reading:
    """A conformer as if it had been read from a file."""
    atoms = molecule_from_smiles(smiles)
    return Reading([atoms], [Labels()], [Weights()], [None], [smiles], LabelKeys())


def parsed_smiles(smiles: str) -> Any:
    """An RDKit molecule, hydrogen implied.

    Args:
        smiles: One molecule without charge and without open shells.

    Raises:
        UserError: RDKit is missing, this is not a SMILES, or it is charged or has open shells.
    """
    chem = rdkit()
    parsed = chem.MolFromSmiles(smiles)
    if parsed is None or not parsed.GetNumAtoms():
        raise UserError(f"{smiles!r} is not a SMILES that RDKit understands; check brackets, ring numbers and valences")
    if "*" in smiles:
        raise UserError(f"{smiles!r} has open ends (*): it is a repeat unit, not a molecule")
    if chem.GetFormalCharge(parsed):
        raise UserError(
            f"{smiles!r} has a net charge of {chem.GetFormalCharge(parsed):+d}; only neutral molecules are embedded"
        )
    if radicals := sum(atom.GetNumRadicalElectrons() for atom in parsed.GetAtoms()):
        raise UserError(f"{smiles!r} has {radicals} unpaired electrons; only closed shells are embedded")
    return parsed


def embedded(molecule: Any, name: str, seed: int) -> Any:
    """An RDKit molecule with hydrogens and a conformer: ETKDGv3, then at most 500 steps of MMFF94 (or UFF, where it must be).

    Args:
        molecule: Without hydrogens.
        name: For the message.
        seed: Of the embedding.

    Raises:
        UserError: No geometry satisfies the distance bounds.
    """
    chem = rdkit()
    from rdkit.Chem import AllChem

    methods: Any = AllChem
    molecule = chem.AddHs(molecule)
    settings = methods.ETKDGv3()
    settings.randomSeed = seed
    if methods.EmbedMolecule(molecule, settings) != 0:
        settings.useRandomCoords = True  # slower, for large and crowded molecules
        if methods.EmbedMolecule(molecule, settings) != 0:
            raise UserError(f"{name!r} cannot be embedded in three dimensions: no geometry satisfies its bonds and rings")
    if methods.MMFFHasAllMoleculeParams(molecule):
        methods.MMFFOptimizeMolecule(molecule, maxIters=500)
    elif methods.UFFHasAllMoleculeParams(molecule):
        methods.UFFOptimizeMolecule(molecule, maxIters=500)
    return molecule


def atoms_of(molecule: Any) -> "Atoms":
    """The conformer of an RDKit molecule, Å."""
    from ase import Atoms

    return Atoms([atom.GetAtomicNum() for atom in molecule.GetAtoms()], molecule.GetConformer().GetPositions())


def mmff_calculator(molecule: Any) -> Any:
    """An ASE calculator of the MMFF94 force field, eV and eV/Å; None where it lacks parameters.

    Args:
        molecule: With hydrogens and a conformer.
    """
    from ase import units
    from ase.calculators.calculator import Calculator, all_changes
    from rdkit.Chem import rdForceFieldHelpers

    parameters = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
    if parameters is None:
        return None
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(molecule, parameters)
    kcal_mol = units.kcal / units.mol

    class MMFF(Calculator):
        implemented_properties: ClassVar[list[str]] = ["energy", "forces"]
        alive = (molecule, parameters)  # the force field points into both, and RDKit does not keep them

        def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties, system_changes)
            flat = atoms.positions.ravel().tolist()
            energy = field.CalcEnergy(flat)  # first: the gradient uses the distances of the last energy
            slope = np.reshape(field.CalcGrad(flat), (-1, 3))
            self.results = {"energy": kcal_mol * energy, "forces": -kcal_mol * slope}

    return MMFF()
