"""How commands print the quality of an uncertainty."""

from typing import Any

from equiform.cli.app import print_table, say


def print_judged(judged: Any) -> None:
    """Expected and observed errors, and where the plot is."""
    rows = [
        (
            name,
            f"{one['rmse']:.4g}",
            f"{one['expected']:.4g}",
            f"{one['miscalibration']:.3g}",
            f"{one['rank_correlation']:.2f}",
            one["unit"],
        )
        for name, one in judged.table.items()
    ]
    heads = ("quantity", "RMSE", "expected RMSE", "miscalibration", "rank correlation", "unit")
    print_table("uncertainty", heads, rows, right=(1, 2, 3, 4))
    if judged.plot is not None:
        say(f"calibration plot: {judged.plot}")
