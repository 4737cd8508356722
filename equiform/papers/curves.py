"""Validation errors of table-entry runs over epochs, all compared runs in one figure."""

from collections.abc import Sequence
from pathlib import Path

from equiform.errors import UserError
from equiform.papers.run import read_result
from equiform.report.plots import Curve, Panel, lines
from equiform.training.metrics import in_millis, read_metrics


def draw_curves(folders: Sequence[Path], path: Path) -> Path:
    """A panel for each entry and quantity, a curve for each run.

    Args:
        folders: Finished runs of table entries.
        path: PNG file to write.

    Returns:
        The same path.

    Raises:
        UserError: A folder is not such a run, or none of them has validation errors.
    """
    panels: dict[tuple[str, str], Panel] = {}
    for folder in folders:
        result = read_result(folder)
        records = [record for record in read_metrics(folder) if record["kind"] == "validation"]
        for name, (_, _, unit) in result.progress.items():
            factor, shown = in_millis(unit.removeprefix("m"))
            factor = factor if shown == unit else 1.0
            points = [(r["epoch"], factor * r[f"{name}_mae"]) for r in records if r.get(f"{name}_mae") is not None]
            title = result.column if name == result.column else f"{result.column}, {name.replace('_', ' ')}"
            place = (title, unit)
            if place not in panels:
                panels[place] = Panel(title, "epoch", f"validation MAE ({unit})", [], log_y=True)
            curve = Curve(f"{result.row}, seed {result.seed}", *zip(*points), marked=True)
            panels[place] = Panel(**{**vars(panels[place]), "curves": [*panels[place].curves, curve]})
    if not panels:
        raise UserError("there is no validation error to draw; give folders of equiform recipe run")
    return lines(path, list(panels.values()))
