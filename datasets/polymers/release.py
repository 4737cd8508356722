"""Compact files of the polymer set: one compressed extended XYZ per split, positions to 1e-5 Å, forces to 1e-5 eV/Å.

python datasets/polymers/release.py FOLDER      # the folder of `equiform data make polymers`
"""

import gzip
import sys
from pathlib import Path
from typing import Any

from ase.io import read

SPLITS = ("train", "validation", "test", "longer", "unseen")
KEYS = ("family", "units", "conformer", "temperature", "sampling", "smiles")


def frame_text(atoms: Any) -> str:
    """One frame."""
    about = " ".join(f'{key}="{atoms.info[key]}"' if key == "smiles" else f"{key}={atoms.info[key]}" for key in KEYS)
    head = f"Properties=species:S:1:pos:R:3:forces:R:3 energy={atoms.get_potential_energy():.6f} {about}"
    rows = (
        f"{symbol} " + " ".join(f"{x:.5f}" for x in (*position, *force))
        for symbol, position, force in zip(atoms.symbols, atoms.positions, atoms.get_forces())
    )
    return "\n".join([str(len(atoms)), head + ' pbc="F F F"', *rows]) + "\n"


def main() -> None:
    """Write the files beside this script."""
    source, folder = Path(sys.argv[1]), Path(__file__).parent
    for split in SPLITS:
        paths = sorted((source / "trajectories").glob(f"*-{split}-*.extxyz"))
        frames = [atoms for path in paths if path.stat().st_size for atoms in read(path, ":")]
        content = gzip.compress("".join(map(frame_text, frames)).encode(), 9, mtime=0)
        (folder / f"{split}.extxyz.gz").write_bytes(content)
        print(f"{split}: {len(frames)} frames of {len(paths)} conformers, {len(content) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
