"""Calibrating a model's uncertainty, judging it on data, and choosing structures to label."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from equiform.data.config import DataConfig
from equiform.data.pipeline.dataset import Dataset, dataset_from_labels
from equiform.errors import UserError
from equiform.persist.find import find_model
from equiform.persist.modelfile import LoadedModel, load_model, save_model
from equiform.persist.uncertainty import load_uncertainty, save_uncertainty
from equiform.recipes.schema import Recipe, data_on_disk, load_recipe
from equiform.tasks.energy import Potential
from equiform.training import calibration

if TYPE_CHECKING:
    from ase import Atoms

    from equiform.deploy.uncertainty import Uncertainty

PLOT = "calibration.png"
_HELD_OUT = 5
"""Of one file, every fifth structure calibrates and the others give the covariance."""


class Judged(NamedTuple):
    """How well an uncertainty describes errors.

    Attributes:
        table: By quantity: `rmse`, `expected` (root mean square of σ), `miscalibration`, `rank_correlation`, `count`, `unit`.
        plot: PNG file; None if none was drawn.
    """

    table: dict[str, dict[str, Any]]
    plot: Path | None


def calibrate(path: Path, data: str | None, *, dtype: str, say: Callable[[str], None]) -> Judged:
    """Fit the uncertainty of a model and store it beside its weights.

    Args:
        path: A run folder, or a model folder.
        data: Labelled structures like those that the model was trained on; None: the data of the run.
        dtype: Precision of the model's computation.
        say: Called with each message.

    Raises:
        UserError: No model, no data, or too few labels.
    """
    folder = find_model(path)
    loaded = load_model(folder)
    task = _potential(loaded, path)
    train, validation, source = _data_of(path, data, loaded)
    if not len(validation):
        raise UserError(
            f"{source} has no validation set to calibrate on; give labelled structures: equiform uncertainty {path} DATA"
        )
    say(f"features of {len(train)} training structures; {len(validation)} structures calibrate ({source})")
    spread, found = calibration.fitted(task, train, validation, dtype=dtype)
    about = {"training": len(train), "validation": len(validation), "data": source}
    file = save_uncertainty(folder, spread, about)
    say(f"stored in {file}")
    return judge(found, folder / PLOT)


def judge(found: Mapping[str, calibration.Estimates], plot: Path | None) -> Judged:
    """How well expected errors describe observed ones.

    Args:
        found: By quantity.
        plot: The PNG file to draw; None draws none.
    """
    from equiform.report.calibration import calibration_plot

    table = {
        name: {
            "rmse": float(np.sqrt((one.error**2).mean())),
            "expected": float(np.sqrt((one.sigma**2).mean())),
            "miscalibration": calibration.miscalibration(one),
            "rank_correlation": calibration.rank_correlation(one),
            "count": len(one.error),
            "unit": one.unit,
        }
        for name, one in found.items()
    }
    if plot is not None and found:
        bins = {name: (*calibration.binned(one), one.unit, table[name]["miscalibration"]) for name, one in found.items()}
        calibration_plot(plot, bins)
        return Judged(table, plot)
    return Judged(table, None)


def judge_file(path: Path, data: str, config: DataConfig, plot: Path | None, *, dtype: str) -> Judged | None:
    """The same on a file; None if the model has no uncertainty."""
    folder = find_model(path)
    if (spread := load_uncertainty(folder)) is None:
        return None
    loaded = load_model(folder)
    task = _potential(loaded, path)
    return judge(calibration.estimates(task, spread, _dataset(data, loaded, task, config), dtype=dtype), plot)


def make_committee(paths: Sequence[Path], output: Path, *, overwrite: bool = False) -> Path:
    """Write several trained models as one, which predicts their mean.

    Args:
        paths: Run folders or model folders.
        output: Folder of the new model.
        overwrite: Replace an earlier model there.

    Raises:
        UserError: Fewer than two models, or models that differ in more than their weights.
    """
    import jax

    from equiform.models.committee import committee

    if len(paths) < 2:
        raise UserError(f"a committee needs at least two models; given: {', '.join(map(str, paths)) or 'none'}")
    loaded = [load_model(find_model(path)) for path in paths]
    tasks = [_potential(one, path) for one, path in zip(loaded, paths)]
    for path, one, task in zip(paths[1:], loaded[1:], tasks[1:]):
        ours, other = _meaning(loaded[0], tasks[0]), _meaning(one, task)
        differ = [name for name in ours if not _same(ours[name], other[name])]
        if differ:
            name = differ[0]
            raise UserError(
                f"{paths[0]} and {path} cannot be one committee: their {name} differ ({ours[name]} and {other[name]}); train "
                "the members on the same data (data.seed) with different training.seed"
            )
    try:
        with jax.enable_x64(True):  # Otherwise float64 weights would be truncated.
            model = committee([task.model for task in tasks])
    except ValueError as error:
        raise UserError(f"{', '.join(map(str, paths))} cannot be one committee: {error}") from None
    task = Potential.from_settings(model, tasks[0].settings())
    about = {**loaded[0].metadata, "committee": [str(path) for path in paths]}
    about.pop("training", None)  # errors and epochs of one member
    return save_model(output, task, loaded[0].reference_energies, about, overwrite=overwrite)


def choose(
    structures: "Sequence[Atoms]",
    uncertainty: "Uncertainty",
    count: int,
    *,
    pool: float = 0.3,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[int], np.ndarray]:
    """Structures to label: among the most uncertain, those that are farthest from each other in descriptors.

    The first is the most uncertain one; each next one has the largest distance to the nearest of those chosen before
    (farthest-point sampling) in the mean descriptors of its atoms, each in units of its spread over the pool.

    Args:
        structures: Candidates.
        uncertainty: Of the model.
        count: Number of structures to choose.
        pool: Fraction of the candidates that are taken as uncertain; at least `count` structures.
        progress: Progress callback `(done, total)` in structures.

    Returns:
        Indices in order of choice, and the uncertainty of each candidate's energy per atom, eV.
    """
    sigma = []
    for number, atoms in enumerate(structures, start=1):
        sigma.append(uncertainty.of_energy(atoms) / max(len(atoms), 1))
        if progress is not None:
            progress(number, len(structures))
    values = np.array(sigma)
    order = np.argsort(-values, kind="stable")
    most = order[: max(min(count, len(order)), round(pool * len(order)))]
    points = np.stack([uncertainty.features(structures[i]) for i in most])
    points = points / np.maximum(points.std(axis=0), 1e-12 + 1e-6 * np.abs(points).max(axis=0))
    return [int(most[i]) for i in farthest(points, count)], values


def farthest(points: np.ndarray, count: int) -> list[int]:
    """Farthest-point sampling from the first point on; ends early when all that is left coincides with chosen points."""
    chosen, distance = [0], np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(count, len(points)):
        best = int(np.argmax(distance))
        if not distance[best] > 0:
            break
        chosen.append(best)
        distance = np.minimum(distance, np.linalg.norm(points - points[best], axis=1))
    return chosen


def _potential(loaded: LoadedModel, path: Path) -> Potential:
    if not isinstance(loaded.task, Potential):
        raise UserError(f"{path} predicts {loaded.task.quantity}; uncertainties are for energies and forces")
    return loaded.task


def _data_of(path: Path, data: str | None, loaded: LoadedModel) -> tuple[Dataset, Dataset, str]:
    from equiform.data.prepare import prepare

    task = _potential(loaded, path)
    if data is not None:
        whole = _dataset(data, loaded, task, DataConfig(train=data))
        held = np.arange(len(whole)) % _HELD_OUT == _HELD_OUT - 1
        parts = [Dataset([whole[int(i)] for i in np.flatnonzero(mask)], whole.cutoff) for mask in (~held, held)]
        return parts[0], parts[1], data
    if not (path / "recipe.yaml").is_file():
        raise UserError(f"{path} is not a run folder, so its data are not known; give them: equiform uncertainty {path} DATA")
    recipe: Recipe = load_recipe(path / "recipe.yaml", [])[0]
    prepared = prepare(data_on_disk(recipe.data), task.model.traits.edge_cutoff)
    return prepared.train, prepared.validation, f"the data of {path}"


def _dataset(data: str, loaded: LoadedModel, task: Potential, config: DataConfig) -> Dataset:
    from equiform.data.formats.labels import LabelKeys
    from equiform.data.formats.reading import read_labelled, units_in
    from equiform.deploy.structures import check_structure

    trained = dict(loaded.metadata.get("data") or {})
    preferred = LabelKeys(trained.get("energy_key"), trained.get("forces_key"), trained.get("stress_key"))
    reading = read_labelled(data, config, remembered=units_in(loaded.metadata), preferred=preferred)
    for name, atoms in zip(reading.names, reading.structures):
        check_structure(atoms, task, name)
    return dataset_from_labels(reading.structures, reading.labels, task.model.traits.edge_cutoff, loaded.reference_energies)


def _meaning(loaded: LoadedModel, task: Potential) -> dict[str, Any]:
    """What members must have in common besides the sizes of the architecture, in the order in which a user would look."""
    return {
        "architectures": task.model.config.name,
        "cutoffs": task.model.traits.cutoff,
        "reference energies": loaded.reference_energies,
        **task.settings(),
    }


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(np.isclose(one, other, rtol=1e-9)) if isinstance(one, float) else one == other
