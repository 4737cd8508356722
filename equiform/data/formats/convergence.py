"""Which steps of a calculation converged, from the output of the program."""

import re
from pathlib import Path

from equiform.data.formats.frames import How

# What a program prints when the electrons of a step have converged, and when they have not.
_EVENTS = {
    "espresso-out": (r"convergence has been achieved", r"convergence NOT achieved"),
    "aims-output": (r"Self-consistency cycle converged", r"[Ss]elf-consistency cycle (?:not converged|did not converge)"),
    "orca-output": (r"SCF CONVERGED AFTER", r"SCF NOT CONVERGED"),
    "cp2k": (r"SCF run converged", r"SCF run NOT converged"),
    "psi4": (r"Energy and wave function converged", r"[Cc]ould not converge"),
    "siesta": (r"SCF cycle converged|SCF Convergence by", r"SCF_NOT_CONV|SCF cycle not converged"),
    "nwchem-out": (r"Total (?:SCF|DFT) energy", r"Calculation failed to converge"),
    "castep-castep": (r"Final energy", r"has not reached the groundstate"),
    "gpaw-out": (r"Converged after", r"Did not converge"),
    "abinit-out": (r"At SCF step\s+\d+.*converged", r"was not enough SCF cycles to converge"),
}


def converged_steps(file: Path, form: str, count: int, how: How) -> list[bool]:
    """Whether the calculation of each structure converged; assumed to where the output does not say.

    Args:
        file: The output.
        form: Its format.
        count: Number of structures read from it.
        how: Collects warnings about what could not be assigned to a structure.
    """
    if form not in ("vasp-out", "vasp-xml", "gaussian-out", *_EVENTS) or not file.is_file() or not count:
        return [True] * count
    text = file.read_text(encoding="utf-8", errors="replace")
    if form == "vasp-out":
        steps = _outcar(text)
    elif form == "vasp-xml":
        steps = _vasprun(text)
    elif form == "gaussian-out":
        steps = ["criterion not met" not in part for part in re.split(r"SCF Done:", text)[:-1]]
    else:
        good, bad = _EVENTS[form]
        steps = [match.lastgroup == "good" for match in re.finditer(f"(?P<good>{good})|(?P<bad>{bad})", text)]
    if len(steps) == count or all(steps):
        return (steps + [True] * count)[:count]
    if not any(steps):
        return [False] * count
    if count == 1:
        return steps[-1:]
    if len(steps) > count and form in ("vasp-out", "vasp-xml"):
        return steps[:count]
    how.warn(
        f"{file}: {steps.count(False)} of {len(steps)} calculations did not converge; which structures those are is not clear"
    )
    return [True] * count


def _outcar(text: str) -> list[bool]:
    match = re.search(r"NELM\s*=\s*(\d+)", text)
    most = int(match[1]) if match else 60
    last: dict[int, int] = {}
    for step, iteration in re.findall(r"Iteration\s+(\d+)\(\s*(\d+)\)", text):
        last[int(step)] = int(iteration)
    refused = set()
    for part in re.finditer(r"EDIFF was not reached", text):
        found = re.findall(r"Iteration\s+(\d+)\(", text[: part.start()][-400_000:])
        refused |= {int(found[-1])} if found else set()
    return [step not in refused and (iteration < most or most == 1) for step, iteration in sorted(last.items())]


def _vasprun(text: str) -> list[bool]:
    match = re.search(r'name="NELM"[^>]*>\s*(\d+)', text)
    most = int(match[1]) if match else 60
    return [part.count("<scstep>") < most or most == 1 for part in re.split(r"<calculation>", text)[1:]]
