"""A forked child of a process that has computed says so instead of hanging."""

import pytest

from equiform.errors import UserError
from equiform.runtime import processes


def test_a_forked_child_is_refused_and_a_fresh_process_is_not(monkeypatch):
    monkeypatch.setattr(processes, "_started_in", None)
    processes.refuse_forked()
    processes.refuse_forked()
    monkeypatch.setattr(processes.os, "getpid", lambda: -1)  # what a child sees, whose memory is a copy
    with pytest.raises(UserError, match=r"forked.*get_context\('spawn'\)"):
        processes.refuse_forked()
