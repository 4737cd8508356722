"""The documentation holds: its example runs; its commands, options, recipes and parameter counts are those of the code."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import pytest
import typer

from equiform.cli import app
from equiform.models import build_model
from equiform.models.equiformer import Equiformer
from equiform.models.family_presets import FAMILY_PRESETS
from equiform.models.presets import OWN, PRESETS, preset
from equiform.recipes.schema import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


COMMANDS = sorted(
    {
        (page.relative_to(ROOT).as_posix(), line.partition(" #")[0].partition(" >")[0].strip())
        for page in PAGES
        for block in blocks(page, "sh")
        for line in block.splitlines()
        if line.startswith("equiform ")
    }
)
RECIPES = [(page, block) for page in PAGES for block in blocks(page, "yaml") if block.startswith("data:")]


@pytest.mark.slow  # It compiles without a cache.
def test_example_runs_as_it_is_printed(tmp_path):
    """In a process of its own: float32 and JAX's defaults, as a reader has them."""
    (example,) = blocks(ROOT / "README.md", "python")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", example],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    assert re.search(r"-\d+\.\d+ eV;  forces \(9, 3\) in eV/Å", run.stdout)
    assert re.search(r"after five steps: -\d+\.\d+ eV", run.stdout)
    assert len([line for line in example.splitlines() if line.strip()]) <= 22


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_and_options_exist(page, line):
    command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    context = typer.Context(command)
    while hasattr(command, "commands"):
        assert words, f"{page}: {line}"
        name = words.pop(0)
        assert name in command.commands, f"{page}: there is no command {name!r} in: {line}"
        command = command.commands[name]
    # Parsing checks the options and their values; nothing is read or run.
    command.make_context(command.name, words, parent=context, resilient_parsing=False)


@pytest.mark.parametrize(("page", "text"), RECIPES, ids=lambda value: getattr(value, "name", None))
def test_recipes_are_valid(page, text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    load_recipe(path)


def test_no_page_is_empty():
    assert [page.name for page in PAGES if len(page.read_text(encoding="utf-8").split()) < 50] == []


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


@pytest.mark.slow
def test_card_lists_every_preset_with_its_parameter_count():
    card = (ROOT / "docs/models/equiformer.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| ([\d,]+) \| (\d+) \| (\S+) \| (\w+), (\d+) \|$", card, flags=re.MULTILINE)
    assert {row[0] for row in rows} == set(PRESETS)
    for name, count, layers, irreps, basis, num_basis in rows:
        config = preset(name, elements=(1, 6, 8)) if name in OWN else preset(name)
        model = eqx.filter_eval_shape(lambda config=config: Equiformer(config, key=jax.random.key(0)))
        size = sum(leaf.size for leaf in jax.tree.leaves(model) if hasattr(leaf, "size"))
        assert size == int(count.replace(",", "")), name
        assert (config.num_layers, config.irreps, config.basis, config.num_basis) == (
            int(layers),
            irreps,
            basis,
            int(num_basis),
        )


def test_family_cards_list_their_presets_with_their_parameter_counts():
    shared = dict.fromkeys(("linear", "deep-sets", "transformer"), "baselines")
    for name, config in ((name, preset(name)) for name in FAMILY_PRESETS):
        page = shared.get(config.name, config.name)
        card = (ROOT / "docs/models" / f"{page}.md").read_text(encoding="utf-8")
        found = re.search(rf"^\| `{name}` \| ([\d,]+) \|", card, flags=re.MULTILINE)
        assert found, f"{page}.md does not list {name}"
        model = eqx.filter_eval_shape(lambda config=config: build_model(config, key=jax.random.key(0)))
        size = sum(leaf.size for leaf in jax.tree.leaves(model) if hasattr(leaf, "size"))
        assert size == int(found[1].replace(",", "")), name
