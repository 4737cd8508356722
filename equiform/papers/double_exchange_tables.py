"""Tables of the study of self-learning Monte Carlo as Markdown, from the finished parts."""

from collections.abc import Sequence
from math import erfc, sqrt

import numpy as np
from jaxtyping import Float

from equiform.papers.double_exchange import LargerRow, Row
from equiform.simulate.monte_carlo.analysis import Summary
from equiform.simulate.monte_carlo.estimates import Estimate, acceptance


def models_table(rows: Sequence[Row]) -> str:
    """Errors, acceptance and cost of every model."""
    heads = ["model", "parameters", "MSE of βF, test", "erfc(√MSE/2)", "e^(−√MSE)", "acceptance ± binomial", "± of chains"]
    heads += ["proposals", "τ_F, proposals", "ms per proposal"]
    lines = []
    for row in rows:
        error, found = float(np.mean(row.errors)), acceptance(row.accepted)
        spread = f" ({min(row.errors):.2f}–{max(row.errors):.2f})" if len(row.errors) > 1 else ""
        lines.append(
            [
                row.name,
                str(row.parameters),
                f"{error:.2f}{spread}",
                f"{np.mean([erfc(sqrt(e) / 2) for e in row.errors]):.2f}",
                f"{np.mean([np.exp(-sqrt(e)) for e in row.errors]):.2f}",
                f"{found.value:.3f} ± {found.error:.3f}",
                f"{chain_error(row.accepted):.3f}",
                str(row.accepted.size),
                f"{row.time:.1f}",
                f"{row.milliseconds:.1f}",
            ]
        )
    return markdown(heads, lines)


def cost_table(local: Summary, num_sites: int, local_milliseconds: float, rows: Sequence[Row]) -> str:
    """Diagonalisations and wall time for an independent F."""
    heads = ["sampler", "τ_F, steps", "diagonalisations per independent F", "ms per independent F"]
    time = local.times[0]
    lines = [["local, a diagonalisation per flip", f"{time:.1f} sweeps", f"{num_sites * time:.0f}", ""]]
    wall = f"{time * local_milliseconds:.0f}"
    lines.append(["local, determinant formula", f"{time:.1f} sweeps", f"{2 * time:.0f}", wall])
    for row in rows:
        wall = f"{row.time * row.milliseconds:.0f}"
        lines.append([row.name, f"{row.time:.1f} proposals", f"{row.time:.0f}", wall])
    return markdown(heads, lines)


def observables_table(local: Summary, rows: Sequence[Row]) -> str:
    """Averages of every sampler and of the exact run, and the largest difference in standard errors."""
    exact = (local.energy, local.magnetization, local.staggered)
    heads, lines = ["sampler", "E/N", "⟨m⟩", "⟨m_s⟩", "largest difference, σ"], []
    lines.append(["local", *(_with_error(one) for one in exact), ""])
    for row in rows:
        gaps = [abs(one.value - two.value) / np.hypot(one.error, two.error) for one, two in zip(row.observables, exact)]
        lines.append([row.name, *(_with_error(one) for one in row.observables), f"{max(gaps):.1f}"])
    return markdown(heads, lines)


def larger_table(rows: Sequence[LargerRow]) -> str:
    """Acceptance of the same weights on larger lattices."""
    heads = ["model", "lattice", "proposal", "acceptance ± binomial", "± of chains", "of each seed", "proposals"]
    lines = []
    for row in rows:
        found = acceptance(row.accepted)
        about = [row.name, f"{row.edge} × {row.edge}", row.proposal]
        figures = [f"{found.value:.3f} ± {found.error:.3f}", f"{chain_error(row.accepted):.3f}"]
        seeds = ", ".join(f"{value:.3f}" for value in row.by_seed) if row.seeds > 1 else ""
        lines.append([*about, *figures, seeds, str(row.accepted.size)])
    return markdown(heads, lines)


def power_laws(rows: Sequence[Row]) -> list[str]:
    """MSE ∝ parameters^−γ through transformers, with L = 0 and 1 and without."""
    deep = [row for row in rows if "transformer" in row.name]
    lines = []
    for what, chosen in (("all L", deep), ("without L = 0", deep[1:]), ("without L = 0 and 1", deep[2:])):
        if len(chosen) >= 2:
            x = np.log([row.parameters for row in chosen])
            y = np.log([np.mean(row.errors) for row in chosen])
            slope, offset = np.polyfit(x, y, 1)
            rest = float(np.sqrt(np.mean((y - slope * x - offset) ** 2)))
            about = f"{len(chosen)} points, residual of log MSE {rest:.3f}" if len(chosen) > 2 else "2 points, nothing to test"
            lines.append(f"MSE ∝ parameters^{slope:.2f} ({what}; {about})")
    return lines


def chain_error(accepted: Float[np.ndarray, "chains proposals"]) -> float:
    """Standard error of an acceptance from the spread of its chains: proposals of one chain are correlated."""
    return float(accepted.mean(axis=1).std(ddof=1) / np.sqrt(len(accepted))) if len(accepted) > 1 else float("nan")


def significance(first: Row, second: Row) -> str:
    """Difference of the acceptances of two models, its error from the spread of chains."""
    gap = second.accepted.mean() - first.accepted.mean()
    error = np.hypot(chain_error(first.accepted), chain_error(second.accepted))
    sigmas = f" ({gap / error:+.1f} σ)" if error > 0 else ""
    return f"{first.name} → {second.name}: {gap:+.3f} ± {error:.3f}{sigmas}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _with_error(found: Estimate) -> str:
    return f"{found.value:.4f} ± {found.error:.4f}"
