"""JAX's persistent compilation cache in the user's cache folder: later starts need not compile again.

For programs, not for libraries: it sets a process-wide option. The command line calls it, importing does not.
"""

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import platformdirs

MIN_COMPILE_SECONDS = 0.5


def enable_compilation_cache(folder: str | Path | None = None) -> Path | None:
    """Cache compiled programs across processes.

    A cache that the user has chosen already (`JAX_COMPILATION_CACHE_DIR`, or JAX's own option) stays, and
    `JAX_ENABLE_COMPILATION_CACHE=false` is respected.

    Args:
        folder: The cache folder; None: one for this JAX version and processor in the user's cache folder.

    Returns:
        The folder in use; None if there is none (disabled, or not writable: then programs are compiled again).
    """
    config: Any = jax.config
    if not config.jax_enable_compilation_cache:
        return None
    chosen = config.jax_compilation_cache_dir
    if chosen and folder is None:
        return Path(chosen)
    path = Path(folder) if folder is not None else default_folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(path, os.W_OK):
        return None
    config.update("jax_compilation_cache_dir", str(path))
    config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    return path


def default_folder() -> Path:
    """A separate folder for each JAX version and kind of processor, because programs hold machine code."""
    key = hashlib.sha256(processor().encode()).hexdigest()[:8]
    return user_cache_folder() / "equiform" / f"xla-{metadata.version('jaxlib')}-{platform.machine()}-{key}"


def user_cache_folder() -> Path:
    """The user's cache folder, by the convention of the operating system."""
    return platformdirs.user_cache_path()


def processor() -> str:
    """Identifier of the processor's instruction set, as far as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
