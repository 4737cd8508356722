"""The application: help, wrong usage, exit statuses."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from equiform.cli import app
from equiform.cli.app import COMMANDS
from tests.cli.commands import Result


def test_version_and_help_with_examples():
    from equiform import __version__

    assert Result("--version").out == f"equiform {__version__}\n"
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    pages = [[command] for command in COMMANDS if command not in groups]
    pages += [
        [name, c.name or c.callback.__name__]
        for name, group in groups.items()
        if name != "recipe"
        for c in group.registered_commands
    ]
    for command in pages:
        page = Result(*command, "--help")
        assert page.status == 0 and f"equiform {' '.join(command)}" in page.out.split("Examples")[1], command


def test_wrong_usage_ends_with_status_2(data):
    for arguments in (
        ["nonsense"],
        ["train"],
        ["evaluate", "x"],
        ["md", "x"],
        ["train", data, "--resume", "x"],
    ):
        assert Result(*arguments).status == 2, arguments
    usage = Result("md", "x", data, "--steps", 3, "--time", 1)
    assert usage.status == 2 and "either --steps or --time" in usage.err


def test_an_unexpected_exception_is_a_bug_of_ours(data, monkeypatch):
    def broken(path: Path, settings: Any) -> None:
        raise RuntimeError("unforeseen\nsecond line")

    monkeypatch.setattr("equiform.jobs.about.about", broken)
    message = Result("info", data).error(status=70)
    assert "RuntimeError: unforeseen" in message and "--debug" in message
    with pytest.raises(RuntimeError, match="unforeseen"):
        Result("info", data, "--debug")


def test_the_installed_command_ends_with_its_status():
    equiform = Path(sys.executable).with_name("equiform")
    if not equiform.exists():
        pytest.skip("the command is not installed beside this Python")
    run = subprocess.run([equiform, "info", "absent.xyz"], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 1 and run.stderr.startswith("error: absent.xyz") and run.stdout == ""


def test_xla_is_told_to_be_silent_before_it_is_imported():
    code = (
        "import os, sys; import equiform.cli; assert 'jax' not in sys.modules\n"
        "try: equiform.cli.main(['--version'])\n"
        "except SystemExit: print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    )
    clean = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    ended = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert ended.stdout.split()[-1] == "3"
