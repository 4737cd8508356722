"""Installed versions of the packages that determine the numbers."""

from importlib import metadata

PACKAGES = ("equiform", "jax", "jaxlib", "equinox", "optax", "numpy", "ase", "vesin", "safetensors", "pydantic")


def package_versions() -> dict[str, str | None]:
    """The version of each package; None where it is not installed."""
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
