"""The card of `organic-gfn2`, written from a fresh evaluation: nothing in its table is typed by hand.

python -m benchmarks.organic_gfn2_card MODEL DATA --cost "20 minutes of one shared core" [--stability STABILITY.json]
python -m benchmarks.organic_gfn2_card MODEL DATA --check        # is the card that is there true?
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.organic_gfn2 import evaluate

BEFORE, AFTER = "<!-- errors -->", "<!-- end of errors -->"
NAMES = {
    "test": "held-out conformers of the 20 training families",
    "longer": "chains 1.5 to 2 times longer than any in training",
    "unseen": "PVDF, PVAc, PCL, PET: families without training data",
    "molecules": "aniline, phenol, thiophenol and five aromatic heterocycles; none in training",
}


def error_table(found: dict[str, Any]) -> str:
    """The errors as Markdown."""
    rows = [
        "| structures | frames | forces, MAE (meV/Å) | RMSE | all forces zero: MAE | "
        "energy differences in a trajectory, MAE (meV) | energies, MAE (meV/atom) |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for split, name in NAMES.items():
        if split in found:
            e = found[split]
            numbers = (e["forces_mae"], e["forces_rmse"], e["zero_mae"], e["relative_energy_mae"], e["energy_per_atom_mae"])
            rows.append(f"| {name} | {e['frames']} | " + " | ".join(f"{x:.1f}" for x in numbers) + " |")
    lines = ["", "Forces by family (MAE, meV/Å): "]
    lines += ["; ".join(f"{family} {mae:g}" for s in NAMES if s in found for family, mae in found[s]["families"].items()) + "."]
    temperatures = [
        f"{s}: " + ", ".join(f"{t} K {mae:g}" for t, mae in found[s]["temperatures"].items()) for s in found if s in NAMES
    ]
    lines += ["", "By temperature: " + "; ".join(temperatures) + "."]
    return "\n".join([*rows, *lines])


def card(found: dict[str, Any], *, cost: str, training: str, stability: str) -> str:
    """The whole card."""
    return f"""# organic-gfn2: forces and energies of neutral organic molecules and oligomers, GFN2-xTB, H C N O F Si S Cl

A small TorchMD-NET Equivariant Transformer (3 layers, 64 channels, cutoff 5 Å, smooth), for trying things out, for starting
points and for teaching. Its labels are those of the semi-empirical method GFN2-xTB, so at best it is as right as that.

## Data

{training} `equiform data make polymers` makes them; `datasets/polymers` has the frames (CC0).

## Method

First a loss on forces only and energies by a linear map (PolyGET's way, see `docs/models/polyget.md`); then forces (weight 1,
mean length of the error) and energies per atom (weight 0.1, mean absolute error). Isolated atoms have GFN2-xTB's energies.
Made by `benchmarks/organic_gfn2.py`. Cost: {cost}.

## Errors

Fresh, on GFN2-xTB Langevin frames at 300, 500 and 700 K that training did not see; `python -m benchmarks.organic_gfn2 evaluate
organic-gfn2 FOLDER`.

{BEFORE}
{error_table(found)}
{AFTER}

{stability}

## Where it fails

- Charged species, radicals, metals, elements other than H C N O F Si S Cl.
- Breaking and making bonds: no frame of the training data has a broken bond.
- Several molecules: no frame has more than one, so hydrogen bonds and stacking *between* molecules are extrapolation, and
  nothing acts beyond 5 Å times the number of layers.
- Crystals and bulk polymers: all labels are of molecules in vacuum.
- Functional groups without an example in training: azides, nitro groups, phosphates, peroxides, strained cages. The last row
  of the table is such a test: 64 small molecules and 20 families do not cover organic chemistry.
- Energies of *different* molecules are less certain than differences along a trajectory: compare the two columns above.

## Licence

MIT, as the package. The labels are our own.
"""


def main() -> None:
    """Write or check the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cost", default="")
    parser.add_argument("--training", default="")
    parser.add_argument("--stability", default="")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    found = evaluate(str(given.model), given.data)
    print(json.dumps(found, indent=1))
    path = given.model / "CARD.md"
    if given.check:
        written = path.read_text(encoding="utf-8").partition(BEFORE)[2].partition(AFTER)[0].strip()
        if written != error_table(found).strip():
            raise SystemExit(f"{path} does not hold the errors of a fresh evaluation")
        return
    path.write_text(card(found, cost=given.cost, training=given.training, stability=given.stability), encoding="utf-8")


if __name__ == "__main__":
    main()
