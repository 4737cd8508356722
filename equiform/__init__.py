"""Equivariant transformers for atoms, molecules and materials, in JAX."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from equiform.predictor import Predictor, load as load
    from equiform.simulate.calculator import calculator as calculator

__all__ = ["Predictor", "__version__", "calculator", "load"]

_LAZY = {
    "load": "equiform.predictor",
    "Predictor": "equiform.predictor",
    "calculator": "equiform.simulate.calculator",
}


def __getattr__(name: str) -> Any:
    """Import the public entry points on first use, so that `import equiform` stays quick."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'equiform' has no attribute {name!r}")
