"""`equiform info`, `equiform doctor`, `equiform recipe …`: show without changing anything."""

import json
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer

from equiform.cli.app import USER_ERROR, app, examples, print_table, say, warn

recipes = typer.Typer(no_args_is_help=True, help="Show built-in recipes, or the schema for editors.")
app.add_typer(recipes, name="recipe")


@app.command(
    epilog=examples(
        "equiform info data.xyz",
        "equiform info traj.dump data.types=C,H,O",
        "equiform info runs/data-1",
        "equiform info runs/data-1/best",
    )
)
def info(
    path: Annotated[Path, typer.Argument(help="A data file, a model folder or a run folder.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="How to read a data file, as for train: data.energy_key=REF_energy.", metavar="KEY=VALUE"),
    ] = None,
) -> None:
    """Show what is in a data file, a model or a run."""
    from equiform.jobs.about import about

    found = about(path, settings or ())
    for line in found.lines:
        say(line)
    for line in found.warnings:
        warn(line)


@app.command(epilog=examples("equiform doctor"))
def doctor() -> None:
    """Check this installation: versions, devices, and whether JAX computes the right numbers."""
    from equiform.jobs import doctor as checks

    facts = {**checks.versions(), **checks.machine()}
    print_table("", ("", ""), list(facts.items()))
    say()
    found = checks.diagnose()
    rows = [("ok" if check.passed else "FAILED", check.name, check.detail) for check in found]
    print_table("", ("", "check", ""), rows)
    failed = [check for check in found if not check.passed]
    if failed:
        say(
            f"error: {len(failed)} of {len(found)} checks failed: do not trust results of this installation "
            "(pip install --upgrade equiform jax, or another JAX release)",
            error=True,
        )
        raise typer.Exit(USER_ERROR)
    say(f"all {len(found)} checks passed")


GROUPS = {
    "": "your own data, to copy and change",
    "qm9": "QM9, twelve properties of 134,000 molecules",
    "md17": "MD17, forces of eight molecules",
    "rmd17": "revised MD17",
    "oc20": "OC20, adsorbates on catalysts",
    "nbody": "simulated particles",
    "slmc": "spins on a lattice",
    "rays": "scenes from calibrated images",
    "scaling": "does equivariance matter at scale?",
    "polyget": "a polymer force field on GFN2-xTB labels",
    "arteries": "flow in arteries",
    "tubes": "flow in synthetic tubes",
}
"""Beginnings of recipe names, and what the recipes are of."""


@recipes.command("list", epilog=examples("equiform recipe list", "equiform recipe list qm9", "equiform recipe list --long"))
def list_recipes(
    group: Annotated[str | None, typer.Argument(help="Only these, with what each is: qm9, md17, nbody, …")] = None,
    long: Annotated[bool, typer.Option("--long", help="Every recipe with what it is.")] = False,
) -> None:
    """Name the built-in recipes, by what they are of."""
    from equiform.errors import UserError, suggest
    from equiform.papers.studies import STUDIES
    from equiform.recipes.schema import builtin_recipes

    grouped: dict[str, dict[str, str]] = {name: {} for name in GROUPS}
    every = {name: _first_comment(path) for name, path in builtin_recipes().items()} | STUDIES
    for name, about in every.items():
        grouped[name.partition("-")[0] if name.partition("-")[0] in GROUPS else ""][name] = about
    if group is not None and group not in grouped:
        raise UserError(f"there are no recipes of {group!r}{suggest(group, GROUPS)}; groups: {', '.join(filter(None, GROUPS))}")
    for name, found in grouped.items():
        if group not in (None, name):
            continue
        say(f"{name}: {GROUPS[name]}" if name else GROUPS[name])
        if long or group is not None or not name:
            print_table("", ("", ""), [(f"  {recipe}", about) for recipe, about in found.items()])
        else:
            say(fill(", ".join(found), width=100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
    if group is None and not long:
        say("what each is: equiform recipe list GROUP; its content: equiform recipe show NAME")


@recipes.command("show", epilog=examples("equiform recipe show ethanol > my_recipe.yaml"))
def show_recipe(
    name: Annotated[str, typer.Argument(help="The name of a built-in recipe, or a file.")],
) -> None:
    """Print a recipe, to be copied and changed."""
    from equiform.papers.studies import STUDIES, defaults
    from equiform.recipes.schema import find_recipe, load_recipe

    if name in STUDIES:
        say(defaults(name))
        return
    path = find_recipe(name)
    text = path.read_text(encoding="utf-8").rstrip()
    if not any(line.startswith("base:") for line in text.splitlines()):
        say(text)
        return
    # What it inherits is written out, so that the copy is complete.
    say("\n".join(line for line in text.splitlines() if line.startswith("#")))
    say(load_recipe(path)[0].to_yaml().rstrip())


@recipes.command("schema", epilog=examples("equiform recipe schema > equiform.schema.json"))
def show_schema() -> None:
    """Print the JSON schema of recipes, which lets an editor complete and check them."""
    from equiform.recipes.schema import json_schema

    say(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _first_comment(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return lines[0].lstrip("# ") if lines else ""
