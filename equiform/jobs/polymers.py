"""The polymer data set: conformers, Langevin dynamics and labels, trajectory by trajectory, and their collection by split.

Each finished trajectory is one file in FOLDER/trajectories, written whole or not at all: a run that was killed resumes by
running it again, and a larger number of conformers extends a set. `collect` gathers what is finished into one file per split.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from equiform.data.sets.polymers import RESERVED_SEED, SPLITS, Trajectory, find_families, molecule, plan
from equiform.errors import UserError
from equiform.runtime.files import explained, to_json, write_atomically

if TYPE_CHECKING:
    from ase import Atoms

SETTINGS_FILE = "settings.json"
STATISTICS_FILE = "statistics.json"
_LARGEST_FORCE = 15.0


class PolymerConfig(BaseModel):
    """Settings of the sampling; those of a set that is extended must be the same, except the families and conformers.

    Half of the training trajectories are moved by MMFF94 and only labelled by the method: their bonds are MMFF94's, but their
    frames are 50 fs apart and cost one label each. Elsewhere frames are 10 fs apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    families: tuple[str, ...] = Field((), description="Names; all 24 and the small molecules if empty.")
    conformers: int = Field(30, ge=1, description="Conformers per training family, one in ten each for validation and test.")
    frames: int = Field(4, ge=1, description="Frames per conformer moved by the method.")
    classical_frames: int = Field(8, ge=1, description="Frames per conformer moved by MMFF94.")
    method: str = Field("gfn2", description="Labels and dynamics: gfn2, gfn1 or MODULE:NAME.")
    timestep: float = Field(1.0, gt=0, description="fs.")
    friction: float = Field(0.02, ge=0, description="1/fs.")
    equilibration: int = Field(20, ge=0, description="Steps before the first frame.")
    interval: int = Field(10, ge=1, description="Steps from frame to frame.")
    classical_interval: int = Field(50, ge=1, description="The same, and of the equilibration, where MMFF94 moves the atoms.")
    seed: int = Field(1, ge=0)

    @field_validator("seed")
    @classmethod
    def _not_reserved(cls, seed: int) -> int:
        if seed == RESERVED_SEED:
            raise UserError(f"seed {RESERVED_SEED} is reserved: a hold-out was made with it; choose another")
        return seed


def make_polymers(
    config: PolymerConfig,
    folder: Path,
    *,
    processes: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Sample every trajectory that is not there yet, and collect all that are.

    Args:
        config: What to sample.
        folder: Where; a set made with the same settings is extended.
        processes: How many trajectories at a time.
        progress: Called with (trajectories done, trajectories in all, name of the last).

    Returns:
        The statistics, see `collect`.

    Raises:
        UserError: RDKit or tblite is missing, or the folder holds a set with other settings.
    """
    from equiform.data.formats.smiles import rdkit
    from equiform.simulate.labels import label_calculator

    rdkit()  # what is missing is said before time is spent
    label_calculator(config.method)
    planned = plan(find_families(config.families), config.conformers)
    _check_settings(config, folder)
    missing = [trajectory for trajectory in planned if not _file(folder, trajectory).exists()]
    done = len(planned) - len(missing)
    for trajectory in _sampled(missing, config, folder, processes):
        done += 1
        if progress is not None:
            progress(done, len(planned), trajectory.name)
        if done % 24 == 0:
            collect(folder)
    return collect(folder)


def sample(trajectory: Trajectory, config: PolymerConfig, folder: Path) -> Trajectory:
    """Sample one trajectory and write its file; frames after a reaction, or with huge forces, are left out."""
    from equiform.data.formats.extxyz import structure_text, write_frames
    from equiform.data.formats.smiles import atoms_of, embedded, mmff_calculator, rdkit
    from equiform.simulate.labels import changed_bonds, energy_and_forces, label_calculator, method_name, sample_langevin

    embedding, dynamics = np.random.SeedSequence(trajectory.seeds(config.seed)).spawn(2)
    classical = trajectory.sampling == "classical"
    frames: list[tuple[Atoms, float, np.ndarray]] = []
    text = rdkit().MolToSmiles(molecule(trajectory))
    try:
        made = embedded(molecule(trajectory), text, int(embedding.generate_state(1)[0] % 2**31))
        start, labels = atoms_of(made), label_calculator(config.method)
        mover = mmff_calculator(made) if classical else labels
        if mover is not None:
            frames = sample_langevin(
                start,
                mover,
                np.random.default_rng(dynamics),
                temperature=trajectory.temperature,
                timestep=config.timestep,
                friction=config.friction,
                equilibration=config.classical_interval if classical else config.equilibration,
                interval=config.classical_interval if classical else config.interval,
                frames=config.classical_frames if classical else config.frames,
            )
        if classical:
            frames = [(atoms, *energy_and_forces(atoms, labels)) for atoms, _, _ in frames]
        frames = [frame for frame in frames if np.abs(frame[2]).max() <= _LARGEST_FORCE and not changed_bonds(start, frame[0])]
    except UserError as error:  # an SCF that does not converge costs its trajectory, not the set
        write_atomically(_file(folder, trajectory).with_suffix(".failed"), f"{error}\n".encode())
    texts = []
    for atoms, energy, forces in frames:
        about = {
            "family": trajectory.family,
            "units": trajectory.units,
            "conformer": trajectory.conformer,
            "temperature": trajectory.temperature,
            "split": trajectory.split,
            "sampling": trajectory.sampling,
            "smiles": text,
            "method": method_name(config.method),
        }
        texts.append(structure_text(atoms, {"forces": forces}, {"energy": energy, **about})[0])
    write_frames(_file(folder, trajectory), texts)
    return trajectory


def collect(folder: Path) -> dict[str, Any]:
    """Gather all finished trajectories into FOLDER/SPLIT.extxyz, and write FOLDER/statistics.json.

    Returns:
        By split: the number of frames, trajectories and atoms, and by family the number of frames and the root mean square
        and largest component of the forces, eV/Å.
    """
    from ase.io import read

    by_split: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in sorted((folder / "trajectories").glob("*.extxyz")):
        by_split[path.stem.split("-")[1]].append(path)
    statistics: dict[str, Any] = {}
    for split, paths in by_split.items():
        content = b"".join(path.read_bytes() for path in paths)
        write_atomically(folder / f"{split}.extxyz", content)
        frames = read(folder / f"{split}.extxyz", index=":", format="extxyz") if content else []
        families: dict[str, list[np.ndarray]] = {}
        for atoms in frames:
            families.setdefault(atoms.info["family"], []).append(atoms.get_forces())  # type: ignore[union-attr]
        statistics[split] = {
            "frames": len(frames),
            "trajectories": len(paths),
            "atoms": sum(len(forces) for group in families.values() for forces in group),
            "families": {
                name: {
                    "frames": len(group),
                    "force_rms": float(np.sqrt(np.mean(np.concatenate(group) ** 2))),
                    "force_max": float(np.abs(np.concatenate(group)).max()),
                }
                for name, group in sorted(families.items())
            },
        }
    write_atomically(folder / STATISTICS_FILE, to_json(statistics))
    return statistics


def _sampled(missing: Sequence[Trajectory], config: PolymerConfig, folder: Path, processes: int) -> Iterator[Trajectory]:
    if processes == 1:
        for trajectory in missing:
            yield sample(trajectory, config, folder)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(sample, trajectory, config, folder) for trajectory in missing]
        try:
            for future in waiting:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _file(folder: Path, trajectory: Trajectory) -> Path:
    return folder / "trajectories" / f"{trajectory.name}.extxyz"


def _check_settings(config: PolymerConfig, folder: Path) -> None:
    """Note the settings in a new folder, and compare them with those of an old one."""
    settings = config.model_dump(mode="json", exclude={"families", "conformers"})
    file = folder / SETTINGS_FILE
    if file.exists():
        have = json.loads(file.read_bytes())
        if changed := [
            f"{key} = {have.get(key)} there, {value} now" for key, value in settings.items() if have.get(key) != value
        ]:
            raise UserError(f"{folder} holds a set with other settings ({'; '.join(changed)}); choose another folder")
        return
    with explained(f"cannot make {folder}", "choose another folder with -o"):
        (folder / "trajectories").mkdir(parents=True, exist_ok=True)
        write_atomically(file, to_json(settings))
