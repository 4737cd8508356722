"""Equivariant transformers for atoms, molecules and materials, in JAX."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from equiform.deploy.ase import calculator as calculator
    from equiform.deploy.predictor import Predictor, load as load

__all__ = ["Predictor", "__version__", "calculator", "load"]

_LAZY = {
    "load": "equiform.deploy.predictor",
    "Predictor": "equiform.deploy.predictor",
    "calculator": "equiform.deploy.ase",
}


def __getattr__(name: str) -> Any:
    """Import the public entry points on first use, so that `import equiform` stays fast."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'equiform' has no attribute {name!r}")
