"""Processes: a child that was forked after JAX had started inherits its locks without its threads, and hangs."""

import os

from equiform.errors import UserError

_started_in: int | None = None


def refuse_forked() -> None:
    """Call before computing: raises in a forked child of a process that has computed, where JAX would hang.

    Raises:
        UserError: This is such a child; the message says how to start processes instead.
    """
    global _started_in
    if _started_in is None:
        _started_in = os.getpid()
    elif _started_in != os.getpid():
        raise UserError(
            "this process was forked from one that had used JAX, and would hang: start worker processes with "
            "multiprocessing.get_context('spawn') (ProcessPoolExecutor(mp_context=…), "
            "DataLoader(multiprocessing_context='spawn')) "
            "and load the model in each of them"
        )
