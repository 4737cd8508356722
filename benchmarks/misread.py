"""Inputs that were misread once, what is right, and what they are read as now.

    python -m benchmarks.misread ../shared

prints one row per input of `cases/` and of `data/formats/`; the exit status is 1 if any is wrong. The right values are those of
`cases/README.md`, written down here as numbers, never ours.
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from typer.testing import CliRunner

Check = Callable[[], tuple[str, bool]]


class Row(NamedTuple):
    """One input: what is right, and a function that says what it is now and whether that is right."""

    name: str
    right: str
    check: Check


def rows(shared: Path, scratch: Path) -> list[Row]:
    """Every row of the table."""
    cases, formats = shared / "cases", shared / "data" / "formats"

    def data(path: Path, cutoff: float = 5.0, **settings: Any) -> Any:
        return _prepared(path, cutoff, **settings)

    def lower_case() -> tuple[str, bool]:
        # 78 is the number at 4 Å, by ASE's neighbour list with `Lattice=`; at 5 Å it is 184.
        near, far = (data(cases / "lattice_lower_case.xyz", cutoff).train[0] for cutoff in (4.0, 5.0))
        counts = [graph.capacity.edges for graph in (near, far)]
        used = bool(np.isfinite(near.graph_fields["stress"]).all())
        return f"{counts} edges, stress {'used' if used else 'lost'}", counts == [78, 184] and used

    def pbc_false() -> tuple[str, bool]:
        found = _run("info", cases / "lattice_pbc_F_stress.xyz")
        told = "not periodic" in found.err and "stress" in found.err
        return "warned" if told else "silent", told and "stress: 'stress' in 20" not in found.out

    def virial_bohr() -> tuple[str, bool]:
        value = float(data(cases / "virial_bohr.xyz").train[0].graph_fields["stress"][0, 0, 0])
        return f"{value:.4f} eV/Å³", abs(value + 27.211386 / (10 * 0.529177) ** 3) < 1e-6

    def water_bohr() -> tuple[str, bool]:
        import ase.io

        model, energies, units = _model(scratch), {}, ""
        for name in ("water_angstrom", "water_bohr"):
            out = scratch / f"{name}.extxyz"
            assert _run("predict", model, cases / f"{name}.xyz", "-o", out, "--dtype", "float64", "--overwrite").status == 0
            energies[name] = np.array([atoms.get_potential_energy() for atoms in ase.io.iread(out)])
            units = out.read_text(encoding="utf-8").splitlines()[1]
        gap = float(np.abs(energies["water_bohr"] - energies["water_angstrom"]).max())
        starts = []
        for command, more in (("relax", ["--steps", "0"]), ("md", ["--steps", "0", "--temperature", "100"])):
            for name in ("water_angstrom", "water_bohr"):
                out = scratch / f"{command}-{name}.extxyz"
                _run(command, model, cases / f"{name}.xyz", "-o", out, "--dtype", "float64", "--overwrite", *more)
                starts.append(ase.io.read(out).get_distance(0, 1))
        gap = max(gap, abs(starts[0] - starts[1]), abs(starts[2] - starts[3]))
        return f"apart by {gap:.1e}; {units[:60]}", gap < 1e-6 and "Hartree" not in units and "energy_unit=eV" in units

    def slab() -> tuple[str, bool]:
        import ase.io

        model, given = _model(scratch), ase.io.read(cases / "slab_fixed.extxyz")
        relaxed, moved, predicted = (scratch / f"slab-{name}.extxyz" for name in ("relaxed", "md", "predicted"))
        _run("predict", model, cases / "slab_fixed.extxyz", "-o", predicted, "--overwrite")
        _run("relax", model, cases / "slab_fixed.extxyz", "-o", relaxed, "--steps", "3", "--overwrite")
        _run("md", model, relaxed, "-o", moved, "--steps", "20", "--temperature", "300", "--overwrite")
        kept = [[list(c.get_indices()) for c in ase.io.read(path).constraints] for path in (predicted, relaxed, moved)]
        shift = float(np.abs(ase.io.read(moved).positions - given.positions)[:2].max())
        return f"fixed atoms {kept[-1]} moved by {shift:.1e} Å", kept == [[[0, 1]]] * 3 and shift < 1e-6

    def virial_stress() -> tuple[str, bool]:
        stress = np.asarray(data(cases / "virial_stress_GPa.xyz", stress_unit="GPa").train[0].graph_fields["stress"][0])[0]
        return np.array2string(stress, precision=4), bool(
            np.allclose(stress, [-0.0996339435, 0.0062970333, 0.0858955931], atol=1e-6)
        )

    def weights() -> tuple[str, bool]:
        graph = data(cases / "config_energy_weight.xyz").train[0]
        energy, given = float(graph.graph_fields["energy"][0]), graph.graph_fields.get("energy_weight")
        weight = None if given is None else float(given[0])
        return f"energy {energy:.6f} eV, weight {weight}", abs(energy - 0.898882032436104) < 1e-9 and weight == 2.0

    def per_atom() -> tuple[str, bool]:
        energy = float(data(cases / "energy_slash_atom.xyz", validation=None).train[0].graph_fields["energy"][0])
        return f"{energy:g} eV for 4 atoms", abs(energy + 12) < 1e-9

    def voigt() -> tuple[str, bool]:
        stress = np.asarray(_read_one(cases / "stress_voigt.xyz").stress)
        right = [[0.01, 0.003, 0.002], [0.003, 0.02, 0.001], [0.002, 0.001, 0.03]]
        return np.array2string(stress.ravel(), precision=3), bool(np.allclose(stress, right))

    def info_text() -> tuple[str, bool]:
        import ase.io

        out = scratch / "text.extxyz"
        assert _run("predict", _model(scratch), cases / "info_text.xyz", "-o", out, "--overwrite").status == 0
        read = ase.io.read(out)
        return f"config_type={read.info.get('config_type')!r}", read.info.get(
            "config_type"
        ) == "" and "energy" in read.calc.results

    def cp2k() -> tuple[str, bool]:
        labels = _read_one(formats / "cp2k-pos-1.xyz")
        force = labels.forces[0, 0] if labels.forces is not None else np.nan
        right = abs(labels.energy + 344513.26) < 0.01 and abs(force - 0.0011964586 * 27.211386246 / 0.529177211) < 1e-7
        return f"{labels.energy:.2f} eV, force {force:.5f} eV/Å", bool(right)

    def sdf() -> tuple[str, bool]:
        count = len(_structures(formats / "methane_ethane.sdf"))
        return f"{count} structures", count == 4

    def orientation() -> tuple[str, bool]:
        bad, good = (_run("info", formats / name) for name in ("gaussian_no_input_orient.log", "methane.log"))
        told = ["frame" in found.err for found in (bad, good)]
        return "said" if told[0] else "silent", told == [True, False]

    def unconverged() -> tuple[str, bool]:
        vasp, gaussian = (_run("info", formats / name) for name in ("OUTCAR.ch4.unconverged", "gaussian_noncoveraged.log"))
        right = "2 of 3" in vasp.err and "converge" in vasp.err and "converge" in gaussian.err
        return (vasp.err.strip().splitlines() or ["silent"])[0][:70], right

    def numbers() -> tuple[str, bool]:
        found = _run("info", formats / "wfl_LiCu.xyz")
        report = _prepared(formats / "wfl_LiCu.xyz", 4.0, validation=0.3, reference_energies="auto").report
        told = "structure 110" in found.err and any("structure 110" in line for line in report.warnings)
        return "structure 110" if told else "another number, or silent", told

    def dump() -> tuple[str, bool]:
        found, named = _run("info", formats / "traj.dump"), _run("info", formats / "traj.dump", "data.types=Fe,He")
        return found.err.strip()[:60], found.status == 1 and "types" in found.err and "Fe (32)" in named.out

    def schnetpack() -> tuple[str, bool]:
        energy = _read_one(formats / "test_qm9.db").energy
        return f"{energy:.3f} eV", abs(energy + 40.47893 * 27.211386246) < 1e-3

    def n2p2() -> tuple[str, bool]:
        bare = _run("info", formats / "n2p2_Cu2S.input.data")
        energy = _read_one(formats / "n2p2_Cu2S.input.data", energy_unit="eV", length_unit="Å").energy
        return f"{energy:.2f} eV", abs(energy + 571.72) < 0.01 and "energy_unit" in bare.err

    def sigma() -> tuple[str, bool]:
        found = _run("info", formats / "vasprun.Ti.xml")
        told = "data.energy_key=free_energy" in found.err
        return "said" if told else "silent", told

    def pdb() -> tuple[str, bool]:
        count = len(_structures(formats / "chignolin.pdb"))
        return f"{count} structures", count == 1

    def other(name: str, energy: float, count: int, **settings: Any) -> Check:
        def check() -> tuple[str, bool]:
            reading = _reading(formats / name, **settings)
            value, number = reading.labels[0].energy, len(reading.labels)
            return f"{number} structures, the first {value:.4f} eV", number == count and abs(value - energy) < 2e-3

        return check

    def mtp() -> Check:
        lines = (formats / "mtp_Ti4.cfg").read_text().splitlines()
        energy = float(lines[lines.index(" Energy") + 1])
        return other("mtp_Ti4.cfg", energy, lines.count("BEGIN_CFG"), types="Ti")

    return [
        Row("lattice_lower_case.xyz", "78 edges at 4 Å, 184 at 5 Å; virials used", lower_case),
        Row("lattice_pbc_F_stress.xyz", "used, or said why not", pbc_false),
        Row("virial_bohr.xyz", "-0.1836 eV/Å³", virial_bohr),
        Row("water_bohr.xyz", "as water_angstrom.xyz; units stated", water_bohr),
        Row("slab_fixed.extxyz", "fixed atoms stay", slab),
        Row("virial_stress_GPa.xyz, stress_unit=GPa", "-0.0996 0.0063 0.0859", virial_stress),
        Row("config_energy_weight.xyz", "a weight of 2, energy 0.898882", weights),
        Row("energy_slash_atom.xyz", "-12 eV", per_atom),
        Row("stress_voigt.xyz", "xx yy zz yz xz xy", voigt),
        Row("info_text.xyz", "read back the same", info_text),
        Row("cp2k-pos-1.xyz", "-344513.26 eV, forces of the partner", cp2k),
        Row("methane_ethane.sdf", "4 structures", sdf),
        Row("gaussian_no_input_orient.log", "refused or warned; methane.log not", orientation),
        Row("OUTCAR.ch4.unconverged, gaussian_…", "left out, said with the number", unconverged),
        Row("wfl_LiCu.xyz", "structure 110, in every part", numbers),
        Row("traj.dump", "asks for types", dump),
        Row("test_qm9.db", "U0 = -1101.488 eV", schnetpack),
        Row("n2p2_Cu2S.input.data", "-571.72 eV with the units given", n2p2),
        Row("vasprun.Ti.xml", "free_energy is recommended", sigma),
        Row("chignolin.pdb", "1 structure", pdb),
        # Energies as the programs print them, in their own units, times the unit.
        Row("cp2k_output.out", "-1766.225654 Hartree", other("cp2k_output.out", -48061.448, 1)),
        Row("siesta.out", "-219.164 eV", other("siesta.out", -219.164, 1)),
        Row("psi4.out", "-79.868549 Hartree", other("psi4.out", -2173.3339, 1)),
        Row("aims_md.out", "-3550.403 eV, 3 structures", other("aims_md.out", -3550.40311892, 3)),
        Row("orca_scf_converged.out", "-2098.925210 Hartree", other("orca_scf_converged.out", -57114.6646, 1)),
        Row("deepmd/", "30 structures", other("deepmd", float(np.load(formats / "deepmd/set.000/energy.npy")[0]), 30)),
        Row("mtp_Ti4.cfg, data.types=Ti", "as printed", mtp()),
    ]


def _prepared(path: Path, cutoff: float, *, validation: Any = None, reference_energies: str = "none", **settings: Any) -> Any:
    from equiform.data.config import DataConfig
    from equiform.data.prepare import prepare

    config = DataConfig(train=str(path), validation=validation, reference_energies=reference_energies, **settings)
    return prepare(config, cutoff)


def _reading(path: Path, **settings: Any) -> Any:
    from equiform.data.config import DataConfig
    from equiform.data.formats.reading import read_labelled

    return read_labelled(str(path), DataConfig(train=str(path), **settings))


def _read_one(path: Path, **settings: Any) -> Any:
    return _reading(path, **settings).labels[0]


def _structures(path: Path) -> Any:
    from equiform.data.formats.reading import read_unlabelled

    return read_unlabelled(str(path)).structures


class _Ended(NamedTuple):
    status: int
    out: str
    err: str


def _run(*arguments: Any) -> _Ended:
    from equiform.cli import app

    ended = CliRunner().invoke(app, ["--no-cache", *map(str, arguments)])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return _Ended(ended.exit_code, ended.stdout, ended.stderr)


def _model(scratch: Path) -> Path:
    """A small model with arbitrary weights for the elements of the inputs."""
    import jax

    from equiform.models import build_model, parse_config
    from equiform.persist.modelfile import save_model
    from equiform.tasks.energy import Potential

    folder = scratch / "model"
    if not folder.exists():
        fields = {"name": "egnn", "elements": [1, 8, 29], "channels": 8, "num_layers": 1}
        model = build_model(parse_config(fields), key=jax.random.key(0))
        save_model(folder, Potential(model), {1: -13.6, 8: -2041.0, 29: -100.0}, {})
    return folder


def main(arguments: list[str]) -> int:
    """Print the table; 1 if any row is wrong."""
    if len(arguments) != 1 or not (Path(arguments[0]) / "cases").is_dir():
        print("usage: python -m benchmarks.misread FOLDER   (the one that has cases/ and data/formats/)", file=sys.stderr)
        return 2
    wrong, table = 0, []
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(record=True) as loose:
        warnings.simplefilter("always")
        for row in rows(Path(arguments[0]), Path(scratch)):
            try:
                now, right = row.check()
            except Exception as error:  # whatever a misread input breaks is a wrong row, not the end of the table
                now, right = f"{type(error).__name__}: {str(error)[:80]}", False
            wrong += not right
            table.append(
                {"input": row.name, "right": row.right, "now": " ".join(now.split()), "": "right" if right else "WRONG"}
            )
    raw = [str(entry.message) for entry in loose if "equiform" not in str(entry.filename)]
    widths = {name: max(len(name), *(len(line[name]) for line in table)) for name in table[0]}
    for line in [{name: name for name in table[0]}, *table]:
        print("  ".join(text.ljust(widths[name]) for name, text in line.items()).rstrip())
    if raw:
        print(f"{len(raw)} raw warnings of libraries reached the user, such as: {json.dumps(raw[0][:120])}")
    print(f"{len(table) - wrong} of {len(table)} right")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
