"""Recognise files of simulated particles."""

import zipfile
from pathlib import Path


def is_nbody_file(path: str | Path) -> bool:
    """Whether a file is an `.npz` of simulated particles: one with the arrays and metadata of an N-body set."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"positions.npy", "velocities.npy", "charges.npy", "metadata.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
