"""Settings for the data."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from equiform.data.units import FACTORS
from equiform.errors import UserError


def _unit_of(kind: str) -> AfterValidator:
    def checked(text: str) -> str:
        try:
            FACTORS[kind](text)
        except UserError as error:
            raise ValueError(str(error)) from None
        return text

    return AfterValidator(checked)


EnergyUnit = Annotated[str, _unit_of("energy")]
LengthUnit = Annotated[str, _unit_of("length")]
ForcesUnit = Annotated[str, _unit_of("forces")]
StressUnit = Annotated[str, _unit_of("stress")]


def _listed(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _elements(value: tuple[str, ...]) -> tuple[str, ...]:
    from ase.data import atomic_numbers

    wrong = [name for name in value if atomic_numbers.get(name, 0) < 1 and name != "D"]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: not a chemical element; write symbols such as C,H,O")
    return value


Types = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_elements)]


class DataConfig(BaseModel):
    """Where the structures are and how to read them.

    Attributes:
        train: A file that ASE can read (`data.xyz`, `data.db`, `md.traj`, …), a pattern such as
            `runs/*.traj`, or a list of those; `FILE@:100` takes the first 100 structures.
        validation: A file, or the fraction of the training structures that is held out; none if null.
        test: A file, or named files, evaluated after training.
        format: Format of the files, when their names and contents do not show it: one of ours (`extxyz`,
            `n2p2`, `mtp`, `deepmd`, …), of dpdata (`cp2k/output`, …) or of ASE (`vasp-out`, …).
        types: Elements of the numbered atom types 1, 2, … of LAMMPS and MTP files.
        pbc: Whether structures repeat along their cell vectors; as the file says if null.
        energy_key: Name of the energy in the file; detected if null.
        forces_key: Name of the forces; detected if null.
        stress_key: Name of the stress or virial; detected if null.
        energy_per: Whether an energy is that of the `structure` or per `atom`; as its name says if null.
        energy_unit: Unit of the energies; as the file says, else eV, if null.
        length_unit: Unit of positions and cells; as the file says, else Å, if null.
        forces_unit: Unit of the forces; as the file says, else energy unit per length unit, if null.
        stress_unit: Unit of the stress; energy unit per cubed length unit if null and the file does not say.
        reference_energies: Energy of each isolated atom: `isolated` (from the one-atom structures of the
            file), `fit` (least squares), `auto` (the first if it can, else the second), `none`, or `{H:
            -13.6, …}` in eV.
        weights: Use the weights that a file gives its structures (`config_weight`, `config_energy_weight`,
            `weight`, …) in the loss.
        keep_unconverged: Use calculations that did not converge electronically; otherwise they are left out.
        skip_invalid: Leave out structures that cannot be used (with a warning) instead of stopping.
        max_structures: Maximum number of structures of `train`, drawn with the seed.
        seed: Seed of the split and the draw.
        batch_edges: Most edges of a training batch, unless a single structure has more; null chooses by memory and time.
        batch_capacities: Most groups of structures of like size, each with a capacity that is compiled for itself; null
            chooses by what compilation costs and padding saves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: str | list[str]
    validation: Annotated[float, Field(ge=0, lt=1)] | str | None = 0.1
    test: dict[str, str] | str | None = None
    format: str | None = None
    types: Types | None = None
    pbc: bool | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    energy_per: Literal["structure", "atom"] | None = None
    energy_unit: EnergyUnit | None = None
    length_unit: LengthUnit | None = None
    forces_unit: ForcesUnit | None = None
    stress_unit: StressUnit | None = None
    reference_energies: Literal["auto", "isolated", "fit", "none"] | dict[str, float] = "auto"
    weights: bool = True
    keep_unconverged: bool = False
    skip_invalid: bool = False
    max_structures: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    batch_edges: Annotated[int, Field(ge=1)] | None = None
    batch_capacities: Annotated[int, Field(ge=1)] | None = None
