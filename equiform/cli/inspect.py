"""`equiform info`, `equiform doctor`, `equiform recipe …`: look without changing anything."""

import json
from pathlib import Path
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
    """Say what is in a data file, a model or a run."""
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


@recipes.command("list")
def list_recipes() -> None:
    """Name the built-in recipes."""
    from equiform.recipes.schema import builtin_recipes

    rows = [(name, _first_comment(path)) for name, path in builtin_recipes().items()]
    print_table("", ("name", "what it is"), rows)


@recipes.command("show", epilog=examples("equiform recipe show ethanol > my_recipe.yaml"))
def show_recipe(
    name: Annotated[str, typer.Argument(help="The name of a built-in recipe, or a file.")],
) -> None:
    """Print a recipe, to be copied and changed."""
    from equiform.recipes.schema import find_recipe, load_recipe

    path = find_recipe(name)
    text = path.read_text(encoding="utf-8").rstrip()
    if not any(line.startswith("base:") for line in text.splitlines()):
        say(text)
        return
    # What it inherits is written out, so that the copy stands for itself.
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
