"""The command line: `equiform train | evaluate | predict | md | relax | info | doctor | convert | lattice | demo | …`.

Thin: each command parses, calls the library and prints. Exit status: 0 success; 1 an error the user can fix (one
line `error: …` on stderr); 2 wrong usage; 70 a bug of ours; 130 interrupted. `--debug` shows tracebacks.
"""

from equiform.cli import (  # noqa: F401 - they add commands
    analyze,
    benchmark,
    convert,
    data,
    datasets,
    demo,
    engines,
    inspect,
    label,
    lattice,
    models,
    predict,
    simulate,
    table,
    train,
    uncertainty,
)
from equiform.cli.app import app, main

__all__ = ["app", "main"]
