"""The command `equiform`: enables huge pages, then runs the command line."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLE = "glibc.malloc.hugetlb"


def main() -> None:
    """`equiform …` in a terminal."""
    restart_with_large_pages()
    from equiform.cli import main as command_line

    command_line()


def restart_with_large_pages() -> None:
    """Re-execute this process with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`, where that helps and is not set yet.

    Every call of a compiled program allocates fresh memory, which the kernel maps page by page: with pages of 2 MiB instead
    of 4 KiB a training step on a CPU takes about a tenth less time. glibc reads the setting only when a process starts.
    """
    environment = with_large_pages(os.environ, _MODE.read_text() if _MODE.is_file() else "", _c_library())
    if environment is not None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def with_large_pages(environment: Mapping[str, str], mode: str, c_library: str) -> dict[str, str] | None:
    """The environment with the setting added; None if it is already set or would have no effect.

    Args:
        environment: The current environment.
        mode: The kernel's huge-page modes, `always [madvise] never`, the active one in brackets.
        c_library: Its name and version, such as `glibc 2.36`.
    """
    name, _, version = c_library.partition(" ")
    numbers = version.split(".")
    if name != "glibc" or not all(part.isdigit() for part in numbers) or [int(part) for part in numbers] < [2, 35]:
        return None
    tunables = environment.get("GLIBC_TUNABLES", "")
    if "[madvise]" not in mode or _TUNABLE in tunables:
        return None
    return {**environment, "GLIBC_TUNABLES": ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))}


def _c_library() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError):  # another system, another C library
        return ""


if __name__ == "__main__":
    main()
