"""The card of `organic-gfn2`, written from a fresh evaluation: nothing in its table is typed by hand.

python -m benchmarks.organic_gfn2_card MODEL DATA RUN --cost "47 minutes of one core" [--dynamics survival.jsonl]
python -m benchmarks.organic_gfn2_card MODEL DATA --check        # is the card that is there true?

RUN is the run folder that the model is the best of; `survival.jsonl` is written by `benchmarks.polymer_dynamics`.
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
    "molecules": "16 small molecules, none in training: pyridine, pyrrole, phenols, thiazole, cyclohexanol, an amide, …",
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
    families = [
        f"{s}: " + ", ".join(f"{family} {mae:g}" for family, mae in found[s]["families"].items()) for s in NAMES if s in found
    ]
    lines = ["", "Forces by family (MAE, meV/Å): " + "; ".join(families) + "."]
    temperatures = [
        f"{s}: " + ", ".join(f"{t} K {mae:g}" for t, mae in found[s]["temperatures"].items()) for s in found if s in NAMES
    ]
    lines += ["", "Forces by temperature: " + "; ".join(temperatures) + "."]
    return "\n".join([*rows, *lines])


def dynamics(rows: list[dict[str, Any]]) -> str:
    """What `benchmarks.polymer_dynamics survival` found, in a few lines."""
    lines = []
    for temperature in sorted({row["temperature"] for row in rows}):
        own = [row for row in rows if row["temperature"] == temperature]
        held = sum(row["held"] for row in own)
        times = ", ".join(f"{row['family']} after {row['survived_ps']:.1f} ps" for row in own if not row["held"])
        errors = [row["forces_on_the_way"] for row in own]
        longest = max(row["survived_ps"] for row in own)
        families = ", ".join(row["family"] for row in own)
        failed = f", failed: {times}" if times else ""
        lines += [
            f"Langevin dynamics at {temperature:g} K, {longest:g} ps, of {len(own)} oligomers ({families}):",
            f"{held} held{failed}. Force errors on frames of these runs, labelled by GFN2-xTB:"
            f" {min(errors):.0f} to {max(errors):.0f} meV/Å.",
        ]
    if not rows:
        return ""
    temperatures = " ".join(f"{kelvin:g}" for kelvin in sorted({row["temperature"] for row in rows}))
    longest = max(row["survived_ps"] for row in rows)
    command = f"survival organic-gfn2 --temperatures {temperatures} --time {longest:g} -o FILE"
    return "\n".join([*lines, f"(`python -m benchmarks.polymer_dynamics {command}`)"])


def card(found: dict[str, Any], trained: dict[str, int], *, cost: str, moving: str) -> str:
    """The whole card."""
    return f"""# organic-gfn2: forces and energies of neutral organic molecules and oligomers, GFN2-xTB, H C N O F Si S Cl

Equiformer in the size `tiny` (2 layers, degrees up to 2, cutoff 5 Å), for trying things out, for starting points and for
teaching. Its labels are those of the semi-empirical method GFN2-xTB, so at best it is as right as that.

## Data

{trained["frames"]:,} frames: conformers of oligomers of 20 polymers, and small molecules, at 300, 500 and 700 K, with
GFN2-xTB energies and forces by tblite 0.8.0. Most are moved by MMFF94, the others by GFN2-xTB. PVDF, PVAc, PCL and PET are left
out. `equiform data make polymers` makes them; `datasets/polymers` has the frames (CC0).

## Method

`equiform train` with the settings of the preset (Muon, learning rate 1e-2), on energies and forces; isolated atoms have
GFN2-xTB's energies. The commands are in `benchmarks/organic_gfn2.py`.
{trained["steps"]:,} steps of 5 structures, {trained["epochs"]:.1f} epochs.
Cost: {cost}.

## Errors

Fresh, on GFN2-xTB Langevin frames at 300, 500 and 700 K that training did not see; `python -m benchmarks.organic_gfn2 evaluate
organic-gfn2 FOLDER`.

{BEFORE}
{error_table(found)}
{AFTER}

{moving}

## Where it fails

- Charged species, radicals, metals, elements other than H C N O F Si S Cl.
- Breaking and making bonds: no frame of the training data has a broken bond.
- Several molecules: no frame has more than one, so hydrogen bonds and stacking *between* molecules are extrapolation, and
  nothing acts beyond 5 Å times the number of layers.
- Crystals and bulk polymers: all labels are of molecules in vacuum.
- Functional groups without an example in training: azides, nitro groups, phosphates, peroxides, strained cages. The last row
  of the table is such a test: 128 small molecules and 20 families do not cover organic chemistry.
- Energies of *different* molecules are less certain than differences along a trajectory: compare the two columns above.

## Licence

MIT, as the package. The labels are our own.
"""


def main() -> None:
    """Write or check the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--cost", default="")
    parser.add_argument("--dynamics", type=Path)
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
    if given.run is None:
        parser.error("RUN is needed to write a card")
    last = json.loads((given.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    frames = (given.data / "train.extxyz").read_text(encoding="utf-8").count("Properties=")
    rows = [json.loads(line) for line in given.dynamics.read_text(encoding="utf-8").splitlines()] if given.dynamics else []
    trained = {"frames": frames, "steps": last["step"], "epochs": last["epoch"]}
    path.write_text(card(found, trained, cost=given.cost, moving=dynamics(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
