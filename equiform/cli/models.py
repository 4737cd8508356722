"""`equiform models`: the models that come with the package."""

from typing import Annotated

import typer

from equiform.cli.app import app, examples, print_json, print_table, say
from equiform.errors import UserError, suggest


@app.command(
    epilog=examples("equiform models", "equiform models organic-gfn2", "equiform relax organic-gfn2 SMILES:CCO -o ethanol.xyz")
)
def models(
    name: Annotated[str | None, typer.Argument(help="Show this model's card: data, errors, where it fails.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """The trained models of the package: any command that takes a model takes such a name."""
    from equiform.persist.shipped import about_shipped, shipped_models

    found = shipped_models()
    if name is not None and name not in found:
        have = f"there are: {', '.join(found)}" if found else "there is none in this installation"
        raise UserError(f"the package has no model {name!r}{suggest(name, found)}; {have}")
    about = [about_shipped(path) for key, path in found.items() if name in (None, key)]
    if as_json:
        print_json([entry._asdict() for entry in about])
    elif name is not None:
        say(about[0].card.rstrip())
    else:
        rows = [(e.name, ", ".join(e.elements), f"{e.parameters:,}", f"{e.megabytes:.1f}", e.about) for e in about]
        print_table("", ("name", "elements", "parameters", "MB", "what it is"), rows, (2, 3))
