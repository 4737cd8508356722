"""What the scaling study found: fits, tables, and which of the paper's conclusions the results support."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equiform.errors import UserError
from equiform.papers.double_exchange_tables import markdown
from equiform.papers.scaling_fit import (
    FRAMES,
    Interval,
    Numbers,
    ScalingPoint,
    bootstrap,
    common_costs,
    curves,
    frontier,
    interval,
    power_law,
    size_exponent,
)

RESULTS = "results"
EQUIVARIANT, PLAIN, AUGMENTED = "gatr", "transformer", "transformer-augmented"
_FIT_SAMPLES = 60


class Finding(NamedTuple):
    """A conclusion of the paper and what our results say.

    Attributes:
        claim: The conclusion.
        verdict: "supported", "contradicted" or "open".
        reason: The numbers.
    """

    claim: str
    verdict: str
    reason: str


class Scaling(NamedTuple):
    """All estimates.

    Attributes:
        points: The results.
        costs: Compute that all models reach.
        frontiers: Least loss at these, by model.
        laws: Exponent of the power law and explained variance, by model.
        splits: Exponent of compute in the best number of parameters, by model.
        advantages: Loss of a model over that of the equivariant one at these costs: estimate, and low and high of 95 %.
        findings: Verdicts.
    """

    points: list[ScalingPoint]
    costs: Numbers
    frontiers: dict[str, Numbers]
    laws: dict[str, tuple[Interval, float]]
    splits: dict[str, Interval]
    advantages: dict[str, tuple[Numbers, Numbers, Numbers]]
    findings: list[Finding]


def read_points(file: Path) -> list[ScalingPoint]:
    """The results of a run.

    Raises:
        UserError: The file is damaged.
    """
    try:
        return [ScalingPoint.model_validate(content) for content in json.loads(file.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:  # a ValidationError is a ValueError
        raise UserError(f"{file} is damaged; delete it and resume the study") from error


def gathered(folders: Sequence[Path]) -> list[ScalingPoint]:
    """The results of all runs in folders of the study.

    Raises:
        UserError: A folder has none.
    """
    points = []
    for folder in folders:
        files = sorted((folder / RESULTS).glob("*.json"))
        if not files:
            raise UserError(f"{folder} holds no results of a scaling study; run one with: equiform recipe run scaling-bodies")
        points += [point for file in files for point in read_points(file)]
    return points


def analyse(points: Sequence[ScalingPoint]) -> Scaling:
    """Fit everything and judge.

    Args:
        points: All results.
    """
    models = [name for name in (EQUIVARIANT, PLAIN, AUGMENTED) if curves(points, name)]
    runs = {name: curves(points, name) for name in models}
    costs = common_costs(list(runs.values())) if runs else np.zeros(0)
    frontiers = {name: frontier(runs[name], costs) for name in models}
    laws, splits, exponents, sizes = {}, {}, {}, {}
    for name in models:
        exponents[name] = bootstrap([runs[name]], lambda groups: np.array(power_law(costs, frontier(groups[0], costs))[1]))
        _, exponent, explained = power_law(costs, frontiers[name])
        laws[name] = interval(exponent, exponents[name]), explained
        sizes[name] = bootstrap([runs[name]], lambda groups: np.array(size_exponent(groups[0])), _FIT_SAMPLES)
        splits[name] = interval(size_exponent(runs[name]), sizes[name])
    advantages = {}
    for name in models:
        if name == EQUIVARIANT or EQUIVARIANT not in runs:
            continue
        drawn = bootstrap(
            [runs[name], runs[EQUIVARIANT]],
            lambda groups: frontier(groups[0], costs) / frontier(groups[1], costs),
        )
        # A draw may lack all runs at a cost; quantiles are of those that have some.
        low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0) if len(costs) else (costs, costs)
        advantages[name] = frontiers[name] / frontiers[EQUIVARIANT], low, high
    found = Scaling(list(points), costs, frontiers, laws, splits, advantages, [])
    return found._replace(findings=_findings(found, exponents, sizes))


def as_markdown(found: Scaling) -> str:
    """Tables and verdicts."""
    parts = []
    last = _last(found.points)
    rows = [
        [
            point.model,
            f"{point.size[0]} × {point.size[1]}",
            f"{point.parameters:,}",
            f"{point.trajectories:,}",
            str(point.seed),
            f"{point.step:,}",
            f"{point.flops:.1e}",
            f"{point.seconds:,.0f}",
            f"{point.train:.3f}",
            f"{point.loss:.3f} ± {point.standard_error:.3f}",
            f"{point.rotated:.3f}",
        ]
        for point in last
    ]
    heads = ["model", "width × blocks", "parameters", "trajectories", "seed", "steps", "nominal operations"]
    parts.append(markdown([*heads, "processor s", "training loss", "loss", "loss after a rotation"], rows))
    if len(found.costs):
        decades = np.log10(found.costs[-1] / found.costs[0])
        rows = [[name, str(law), f"{explained:.3f}", str(found.splits[name])] for name, (law, explained) in found.laws.items()]
        parts.append(
            f"L*(C) ∝ C^−b and N*(C) ∝ C^a over {decades:.1f} decades of compute that all models share "
            "(95 % intervals from resampled runs):"
        )
        parts.append(markdown(["model", "b", "explained variance of log L", "a"], rows))
    rows = [[finding.claim, finding.verdict, finding.reason] for finding in found.findings]
    if rows:
        parts.append(markdown(["conclusion of the paper", "our results", "because"], rows))
    return "\n\n".join(parts) + "\n"


def as_dict(found: Scaling) -> dict[str, Any]:
    """Everything as plain numbers, for JSON."""
    return {
        "costs": found.costs.tolist(),
        "frontiers": {name: losses.tolist() for name, losses in found.frontiers.items()},
        "exponents": {name: [*law, explained] for name, (law, explained) in found.laws.items()},
        "size_exponents": {name: list(split) for name, split in found.splits.items()},
        "advantages": {name: [part.tolist() for part in band] for name, band in found.advantages.items()},
        "findings": [finding._asdict() for finding in found.findings],
        "points": [point.model_dump(mode="json") for point in found.points],
    }


def _last(points: Sequence[ScalingPoint]) -> list[ScalingPoint]:
    """The last point of each run."""
    groups: dict[tuple, ScalingPoint] = {}
    for point in points:
        key = (point.model, point.size, point.trajectories, point.seed)
        if key not in groups or point.step > groups[key].step:
            groups[key] = point
    return sorted(groups.values(), key=lambda p: (p.limited, p.trajectories if p.limited else 0, p.model, p.flops))


def _findings(found: Scaling, exponents: dict[str, np.ndarray], sizes: dict[str, np.ndarray]) -> list[Finding]:
    findings = []
    if len(found.costs):
        decades = np.log10(found.costs[-1] / found.costs[0])
        worst = min(explained for _, explained in found.laws.values())
        verdict = "supported" if worst > 0.97 else "contradicted" if worst < 0.9 else "open"
        verdict = "open" if decades < 1.5 else verdict
        because = f"a power law explains at least {worst:.3f} of the variance of log L* over {decades:.1f} decades"
        findings.append(Finding("The loss is a power law in compute.", verdict, because))
    for name, (ratio, low, high) in found.advantages.items():
        if not len(ratio):
            continue
        because = f"loss of {name} over that of GATr: {np.nanmin(ratio):.2f} to {np.nanmax(ratio):.2f}, 95 % bands "
        because += f"from {np.nanmin(low):.2f} to {np.nanmax(high):.2f}"
        verdict = "supported" if np.nanmin(low) > 1 else "contradicted" if np.nanmax(high) < 1 else "open"
        findings.append(Finding(f"At every tested compute the equivariant model beats the {name}.", verdict, because))
        gap = interval(found.laws[EQUIVARIANT][0].value - found.laws[name][0].value, exponents[EQUIVARIANT] - exponents[name])
        wide = gap.high - gap.low > 0.2
        verdict = "contradicted" if gap.low > 0 or gap.high < 0 else "open" if wide else "supported"
        findings.append(
            Finding(f"It beats the {name} by a similar factor at all of them.", verdict, f"difference of the exponents: {gap}")
        )
        split = interval(found.splits[EQUIVARIANT].value - found.splits[name].value, sizes[EQUIVARIANT] - sizes[name])
        verdict = "supported" if split.low > 0 or split.high < 0 else "open"
        because = f"difference of the exponents of the best size: {split}"
        findings.append(Finding(f"Best split of compute between size and steps differs from the {name}'s.", verdict, because))
    return findings + _about_data(found.points)


def _about_data(points: Sequence[ScalingPoint]) -> list[Finding]:
    """Verdicts from runs on fewer trajectories, at their last step."""
    limited: dict[str, dict[int, list[ScalingPoint]]] = {}
    for point in _last([point for point in points if point.limited]):
        limited.setdefault(point.model, {}).setdefault(point.trajectories, []).append(point)
    findings = []
    for other, claim, better in (
        (PLAIN, "With few data the equivariant model is better than the transformer.", "supported"),
        (AUGMENTED, "With data augmentation and enough epochs the transformer catches up.", "contradicted"),
    ):
        shared = sorted(set(limited.get(other, {})) & set(limited.get(EQUIVARIANT, {})))
        if not shared:
            continue
        gaps, texts = [], []
        for count in shared:
            theirs, ours = limited[other][count], limited[EQUIVARIANT][count]
            means = [float(np.mean([p.loss for p in group])) for group in (theirs, ours)]
            errors = [np.sqrt(sum(p.standard_error**2 for p in group)) / len(group) for group in (theirs, ours)]
            gaps.append((means[0] - means[1]) / np.hypot(*errors))
            epochs = theirs[0].frames / (FRAMES * count)
            texts.append(f"{count:,} trajectories, {epochs:.0f} epochs: {means[0]:.3f} against GATr's {means[1]:.3f}")
        worse = {"supported": "contradicted", "contradicted": "supported"}[better]
        verdict = better if min(gaps) > 2 else worse if max(gaps) < (-2 if other == PLAIN else 2) else "open"
        findings.append(Finding(claim, verdict, "; ".join(texts)))
    return findings
