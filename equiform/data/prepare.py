"""From the data settings of a recipe to data sets ready for training."""

from collections.abc import Callable

from equiform.data.config import DataConfig
from equiform.data.pipeline.prepare import prepare_files
from equiform.data.pipeline.prepared import PreparedData
from equiform.data.sets.config import SetConfig
from equiform.data.sets.prepare import prepare_set
from equiform.errors import UserError


def prepare(
    config: DataConfig | SetConfig, cutoff: float | None, *, progress: Callable[[int, int], None] | None = None
) -> PreparedData:
    """Read files of structures, or open a published set.

    Args:
        config: Files and how to read them, or a set by name.
        cutoff: Å; None for models without a cutoff, which take simulated particles only.
        progress: Progress callback `(done, total)` in structures while neighbour lists are built.

    Raises:
        UserError: Anything about the data that makes training impossible or wrong.
    """
    if isinstance(config, SetConfig):
        return prepare_set(config, cutoff, progress=progress)
    if cutoff is None:
        raise UserError("this model has no cutoff: it is for simulated particles (nbody-…), not for structures of atoms")
    return prepare_files(config, cutoff, progress=progress)
