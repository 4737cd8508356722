"""What the user says about the data."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

EnergyUnit = Literal["eV", "meV", "Hartree", "Rydberg", "kcal/mol", "kJ/mol"]
LengthUnit = Literal["Å", "Angstrom", "Bohr", "nm"]
ForcesUnit = Literal["eV/Å", "Hartree/Bohr", "Hartree/Å", "Rydberg/Bohr", "kcal/mol/Å", "kJ/mol/Å", "kJ/mol/nm"]
StressUnit = Literal["eV/Å³", "eV/A^3", "GPa", "kbar", "Hartree/Bohr³"]


class DataConfig(BaseModel):
    """Where the structures are, and how to read them.

    Attributes:
        train: A file that ASE can read (`data.xyz`, `data.db`, `md.traj`, …), a pattern such as
            `runs/*.traj`, or a list of those; `FILE@:100` takes the first 100 structures.
        validation: A file, or the fraction of the training structures that is held out; none if null.
        test: A file, or named files, evaluated after training.
        energy_key: Name of the energy in the file; found by itself if null.
        forces_key: Name of the forces; found by itself if null.
        stress_key: Name of the stress or virial; found by itself if null.
        energy_unit: Unit of the energies; as the file says, else eV, if null.
        length_unit: Unit of positions and cells; as the file says, else Å, if null.
        forces_unit: Unit of the forces; as the file says, else energy unit per length unit, if null.
        stress_unit: Unit of the stress; energy unit per cubed length unit if null and the file does not say.
        reference_energies: Energy of each isolated atom: `isolated` (from the one-atom structures of the
            file), `fit` (least squares), `auto` (the first if it can, else the second), `none`, or `{H:
            -13.6, …}` in eV.
        skip_invalid: Leave out structures that cannot be used (with a warning) instead of stopping.
        max_structures: Use at most so many structures of `train`, drawn with the seed.
        seed: Seed of the split and the draw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: str | list[str]
    validation: Annotated[float, Field(ge=0, lt=1)] | str | None = 0.1
    test: dict[str, str] | str | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    energy_unit: EnergyUnit | None = None
    length_unit: LengthUnit | None = None
    forces_unit: ForcesUnit | None = None
    stress_unit: StressUnit | None = None
    reference_energies: Literal["auto", "isolated", "fit", "none"] | dict[str, float] = "auto"
    skip_invalid: bool = False
    max_structures: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
