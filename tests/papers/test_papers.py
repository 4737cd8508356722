"""Recipes of table entries: what they say is what was published, and a run becomes a row."""

import json
from pathlib import Path

import pytest

from equiform.errors import UserError
from equiform.papers import curves, run
from equiform.papers.tables import TABLES, assemble, markdown, read_table
from equiform.recipes.schema import builtin_recipes, load_recipe, model_config

ENTRIES = {name: path for name, path in builtin_recipes().items() if load_recipe(path)[0].benchmark is not None}
QM9 = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u", "h", "g", "cv")
MOLECULES = ("aspirin", "benzene", "ethanol", "malonaldehyde", "naphthalene", "salicylic", "toluene", "uracil")


def entry(name):
    return load_recipe(ENTRIES[name])[0]


def test_every_entry_of_the_tables_has_a_recipe():
    wanted = {f"qm9-{target}" for target in QM9}
    wanted |= {f"qm9-{t}-{kind}" for t in ("alpha", "gap", "homo", "lumo", "mu", "cv") for kind in ("linear", "dot")}
    wanted |= {f"{data}-{molecule}-l{degree}" for data in ("md17", "rmd17") for molecule in MOLECULES for degree in (2, 3)}
    wanted |= {"oc20-is2re", "oc20-is2re-linear", "oc20-is2re-dot", "oc20-is2rs", "oc20-is2rs-6"}
    assert wanted <= set(ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_full_and_scaled_forms_are_valid_and_say_what_they_cost(name):
    full = entry(name)
    assert full.benchmark is not None and full.benchmark.source and full.benchmark.cost and full.benchmark.scaled
    assert full.benchmark.published or "no result" in full.benchmark.source
    scaled = run.read_entry(name, [], scaled=True, folder=None)
    assert scaled.benchmark is not None and scaled.benchmark.form == "scaled" and scaled.benchmark.recipe == name
    for recipe in (full, scaled):
        model_config(recipe.model, elements=(1, 6), preset_if_auto=None)
    table = read_table(full.benchmark.table)
    for quantity in full.benchmark.published:
        column = full.benchmark.column
        assert (column if column == quantity else f"{column}/{quantity}") in table.columns


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "rate", "decay", "dropout", "basis", "normalization"),
    [  # Source: the recipes of the paper, as in its code.
        ("qm9-alpha", 300, 128, 5e-4, 5e-3, 0.2, "gaussian", "mean-std"),
        ("qm9-cv", 300, 128, 5e-4, 5e-3, 0.2, "gaussian", "mean-std"),
        ("qm9-r2", 300, 128, 5e-4, 5e-3, 0.1, "bessel", "mean-std"),
        ("qm9-zpve", 300, 128, 5e-4, 5e-3, 0.2, "bessel", "mean-std"),
        ("qm9-u0", 600, 64, 1.5e-4, 0.0, 0.0, "bessel", "none"),
        ("md17-ethanol-l2", 1500, 8, 5e-4, 1e-6, 0.0, "exp", "mean-std"),
        ("md17-benzene-l3", 2000, 5, 1e-4, 1e-6, 0.0, "exp", "mean-std"),
        ("oc20-is2re", 20, 32, 2e-4, 1e-3, 0.2, "gaussian", None),
        ("oc20-is2rs", 40, 32, 5e-4, 1e-3, 0.2, "gaussian", None),
    ],
)
def test_settings_are_the_published_ones(name, epochs, batch, rate, decay, dropout, basis, normalization):
    recipe = entry(name)
    settings, model = recipe.training, model_config(recipe.model, elements=(1, 6), preset_if_auto=None)
    found = (settings.epochs, settings.batch_size, settings.learning_rate, settings.weight_decay)
    assert found == (epochs, batch, rate, decay)
    assert (model.alpha_dropout, model.basis) == (dropout, basis)
    assert settings.clip is None and settings.ema is None
    if normalization is not None:
        assert settings.normalization == normalization


@pytest.mark.parametrize(
    ("molecule", "l2", "l3"), [("aspirin", 80, 100), ("uracil", 20, 100), ("benzene", 80, 80), ("ethanol", 80, 80)]
)
def test_force_weights_of_md17_are_the_published_ones(molecule, l2, l3):
    for degree, weight in ((2, l2), (3, l3)):
        forces = entry(f"md17-{molecule}-l{degree}").training.losses.forces
        assert forces is not None and forces.weight == weight and forces.kind == "l2norm"


def result(tmp_path: Path, name: str, **changes) -> Path:
    content = run.Result(
        recipe="md17-ethanol-l2",
        table="md17",
        row="Equiformer, L = 2",
        column="ethanol",
        form="scaled",
        changes=["training.epochs=60"],
        values={"energy": (4.0, "meV"), "forces": (9.0, "meV/Å")},
        published={"energy": (2.2, "meV"), "forces": (3.1, "meV/Å")},
        source="here",
        protocol="950 / 50 / 1,000 structures",
        progress={"energy": (50.0, 4.0, "meV")},
        seed=1,
        device="cpu",
        minutes=3.0,
        command="equiform recipe run",
    )._replace(**changes)
    (tmp_path / name).mkdir()
    (tmp_path / name / run.RESULT).write_text(json.dumps(content._asdict()))
    return tmp_path / name


def test_runs_stand_beside_the_published_rows(tmp_path):
    runs = [result(tmp_path, "a"), result(tmp_path, "b", seed=2, values={"energy": (6.0, "meV"), "forces": (9.0, "meV/Å")})]
    table, rows = assemble("md17", runs)
    cells = {row.method: row.cells for row in rows}
    assert cells["TorchMD-NET ET (published)"]["ethanol/forces"] == "4.7"
    assert cells["Equiformer, L = 3 (published)"]["aspirin/forces"] == "6.6"
    assert cells["Equiformer, L = 2 (ours, scaled)"] == {"ethanol/energy": "5 ± 1.4", "ethanol/forces": "9 ± 0"}
    text = markdown(table, rows)
    assert len({line.count("|") for line in text.splitlines()}) == 1 and "seed 1, 2" in text


def test_only_runs_that_differ_in_nothing_but_the_seed_are_averaged(tmp_path):
    other = {"changes": ["training.epochs=9"], "values": {"energy": (20.0, "meV")}}
    runs = [
        result(tmp_path, "a"),
        result(tmp_path, "b", seed=2, values={"energy": (6.0, "meV")}),
        result(tmp_path, "c", **other),
        result(tmp_path, "d", protocol="200 / 50 / 1,000 structures", values={"energy": (30.0, "meV")}),
        result(tmp_path, "e", column="aspirin", changes=["training.epochs=30"], values={"energy": (8.0, "meV")}),
    ]
    ours = [row.cells for row in assemble("md17", runs)[1] if "ours" in row.method]
    assert [cells["ethanol/energy"] for cells in ours] == ["5 ± 1.4", "20", "30"]
    assert [cells.get("aspirin/energy") for cells in ours] == ["8", None, None]


def test_a_family_with_one_test_set_stands_in_that_set_s_column():
    entry = run.read_entry("polyget-family", [], scaled=True, folder=None).benchmark
    errors = {"energy": {"mae": 0.2, "unit": "eV"}, "forces": {"mae": 0.07, "unit": "eV/Å"}}
    assert run._values({"test": errors}, entry) == {"test": (200.0, "meV"), "test forces": (pytest.approx(70.0), "meV/Å")}


def test_what_we_measured_is_told_before_a_run():
    told = [
        line for line in run.plan(run.read_entry("rmd17-ethanol-l2", [], scaled=True, folder=None)) if "our own result" in line
    ]
    assert told and "(scaled; " in told[0] and "seed 1" in told[0] and "forces 17.08 meV/Å" in told[0]


def test_curves_of_runs_are_drawn_in_the_table_s_unit(tmp_path, monkeypatch):
    folders = [result(tmp_path, name, seed=seed) for name, seed in (("a", 1), ("b", 2))]
    for folder in folders:
        records = [{"kind": "validation", "step": n, "epoch": n / 2, "energy_mae": 0.05 / n} for n in (1, 2, 4)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    drawn = []
    monkeypatch.setattr(curves, "lines", lambda path, panels: drawn.extend(panels) or path)
    curves.draw_curves(folders, tmp_path / "curves.png")
    (panel,) = drawn
    assert panel.title == "ethanol, energy" and "meV" in panel.y_label
    assert [curve.label for curve in panel.curves] == ["Equiformer, L = 2, seed 1", "Equiformer, L = 2, seed 2"]
    assert panel.curves[0].x == (0.5, 1, 2) and panel.curves[0].y == pytest.approx((50, 25, 12.5))
    with pytest.raises(UserError, match="no validation error to draw"):
        curves.draw_curves([], tmp_path / "curves.png")


def test_runs_of_another_table_and_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="belongs to the table md17, not qm9"):
        assemble("qm9", [result(tmp_path, "a")])
    with pytest.raises(UserError, match="has no result of a table entry"):
        assemble("md17", [tmp_path])
    (tmp_path / "a" / run.RESULT).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        assemble("md17", [tmp_path / "a"])


def test_the_published_rows_are_all_there():
    for name in TABLES:
        table, rows = assemble(name, [])
        assert all(set(row.cells) <= set(table.columns) for row in rows)
        methods = [row.method.removesuffix(" (published)") for row in rows]
        assert len(set(methods)) == len(methods), "what a paper and a recipe say of a method is one row"
    # Source: the ablation table of the paper.
    rows = {row.method: row.cells for row in assemble("qm9", [])[1]}
    assert rows["Equiformer, linear messages, dot product (published)"]["homo"] == "17"
    assert rows["Equiformer (published)"] | {"U0": "6.59", "zpve": "1.26"} == rows["Equiformer (published)"]


def test_a_recipe_that_is_no_entry_is_told_so():
    with pytest.raises(UserError, match="reproduces no published result"):
        run.read_entry("ethanol", [], scaled=False, folder=None)
    with pytest.raises(UserError, match="did you mean 'qm9-alpha'"):
        run.read_entry("qm9-alhpa", [], scaled=False, folder=None)


def test_changes_of_ones_own_are_marked_and_a_seed_is_none():
    changed = run.read_entry("qm9-alpha", ["training.epochs=5"], scaled=False, folder=None).benchmark
    assert changed is not None and changed.form == "changed" and changed.changes == ("training.epochs=5",)
    seeded = run.read_entry("qm9-alpha", ["training.seed=5"], scaled=False, folder=None)
    assert seeded.benchmark is not None and seeded.benchmark.form == "full" and seeded.training.seed == 5
