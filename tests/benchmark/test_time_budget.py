"""The table of time budgets: a row for each run, and a model that is not trained is called that."""

import json

from benchmarks.time_budget import HEAD, table


def test_rows_are_sorted_by_machine_set_and_budget(tmp_path):
    row = {"steps": 1234, "epochs": 5.25, "training": 0.98, "compilation": 0.52, "wall": 1.7, "forces": 45.678, "energy": 1.234}
    for machine, name, minutes, untrained in (("idle", "a", 10, False), ("idle", "a", 3, False), ("busy", "b", 1, True)):
        folder = tmp_path / machine / name / f"{minutes}min"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({**row, "untrained": untrained}))
    lines = table(tmp_path.glob("*/*/*/result.json"))
    assert lines[0] == f"| {HEAD} |" and lines[1].count("|") == lines[0].count("|")
    assert lines[2:] == [
        "| busy | b | 1 | 0.98 | 0.52 | 1.70 | 1,234 | 5.2 | 45.7 | 1.23 | not trained |",
        "| idle | a | 3 | 0.98 | 0.52 | 1.70 | 1,234 | 5.2 | 45.7 | 1.23 |  |",
        "| idle | a | 10 | 0.98 | 0.52 | 1.70 | 1,234 | 5.2 | 45.7 | 1.23 |  |",
    ]
