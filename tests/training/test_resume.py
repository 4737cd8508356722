"""A run that was killed and resumed equals one that was not, bit for bit; processes and signals are real."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from equiform.training.checkpoint import CheckpointFolder
from equiform.training.metrics import read_metrics
from tests.training.run_toy import CONFIG

ROOT = Path(__file__).parents[2]
TOTAL = 30 * 4
PAUSE = 0.03


def start(folder: Path, *options: str, cached: bool = True) -> subprocess.Popen[str]:
    """A training process, with the compilation cache that the command line has or without."""
    command = [sys.executable, "-m", "tests.training.run_toy", str(folder), *options]
    cache = jax.config.jax_compilation_cache_dir if cached else ""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05", "TF_CPP_MIN_LOG_LEVEL": "3"}  # as equiform.cli
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Until a line of the record says that the step was done."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        record = folder / "metrics.jsonl"
        if record.exists() and any(line["step"] >= step for line in read_metrics(folder)):
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached: {finish(process)}")


def without_clock(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "timing"} for line in read_metrics(folder)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "whole"
    assert finish(start(folder)) == (0, "")
    return folder


def assert_equal_runs(one: Path, other: Path) -> None:
    for name in ("best", "last"):
        weights = [(folder / name / "weights.safetensors").read_bytes() for folder in (one, other)]
        assert weights[0] == weights[1]
    assert without_clock(one) == without_clock(other)
    states = [CheckpointFolder(folder / "checkpoints").load(TOTAL) for folder in (one, other)]
    for name, array in states[0].arrays.items():
        assert array.tobytes() == states[1].arrays[name].tobytes(), name
    assert states[0].progress["at"] == states[1].progress["at"]


def test_killed_and_terminated_and_resumed_equals_uninterrupted(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, "--pause", str(PAUSE))
    wait_for_step(folder, 21, process)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    # Kill also while a checkpoint is half written: the arrays are there, their JSON is not.
    checkpoints = CheckpointFolder(folder / "checkpoints")
    newest = checkpoints.steps()[0]
    whole = (checkpoints.folder / f"step-{newest:08d}.safetensors").read_bytes()
    (checkpoints.folder / f"step-{newest + 5:08d}.safetensors").write_bytes(whole[:-100])
    (checkpoints.folder / f".step-{newest + 5:08d}.json.part").write_text("{")

    process = start(folder, "--resume", "--pause", str(PAUSE))
    wait_for_step(folder, 49, process)
    process.send_signal(signal.SIGTERM)
    status, said = finish(process)
    assert status == 143
    assert "stopped by SIGTERM after step" in said and f"equiform train --resume {folder}" in said
    stopped_at = int(said.split("after step ")[1].split()[0])
    assert checkpoints.steps()[0] == stopped_at < TOTAL
    assert len(said.strip().splitlines()) == 1

    assert finish(start(folder, "--resume")) == (0, "")
    assert_equal_runs(uninterrupted, folder)


def test_the_record_of_a_whole_run_is_complete(uninterrupted: Path) -> None:
    lines = read_metrics(uninterrupted)
    steps = {kind: [line["step"] for line in lines if line["kind"] == kind] for kind in ("train", "validation")}
    assert steps["train"] == [*range(CONFIG["log_every"], TOTAL, CONFIG["log_every"]), TOTAL]
    assert steps["validation"] == [*range(11, TOTAL, 11), TOTAL]
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_resuming_a_finished_run_changes_nothing(uninterrupted: Path) -> None:
    before = without_clock(uninterrupted), (uninterrupted / "last" / "weights.safetensors").read_bytes()
    assert finish(start(uninterrupted, "--resume")) == (0, "")
    assert (
        without_clock(uninterrupted),
        (uninterrupted / "last" / "weights.safetensors").read_bytes(),
    ) == before


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_and_the_end_is_the_same(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, "--pause", str(PAUSE))
    wait_for_step(folder, 28, process)
    process.kill()
    finish(process)
    newest = CheckpointFolder(folder / "checkpoints").steps()[0]
    file = folder / "checkpoints" / f"step-{newest:08d}.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))
    assert finish(start(folder, "--resume", cached=False)) == (0, "")
    assert_equal_runs(uninterrupted, folder)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_disk_that_takes_no_more_is_one_line_and_the_run_can_go_on(uninterrupted: Path, tmp_path: Path) -> None:
    """A real failing write: files may not grow beyond a few kB, which the record reaches on the way."""
    folder = tmp_path / "run"
    assert finish(start(folder, "--file-limit", "4096"))[0] == 1
    status, said = finish(start(folder, "--resume", "--file-limit", "6000"))
    assert status == 1 and len(said.strip().splitlines()) == 1
    assert "File too large" in said and "free some space" in said
    assert finish(start(folder, "--resume")) == (0, "")
    assert_equal_runs(uninterrupted, folder)


def test_a_checkpoint_is_plain_data(uninterrupted: Path) -> None:
    files = sorted(path.name for path in (uninterrupted / "checkpoints").iterdir())
    assert files == [f"step-{n:08d}.{kind}" for n in (TOTAL - 5, TOTAL) for kind in ("json", "safetensors")]
    content = json.loads((uninterrupted / "checkpoints" / files[2]).read_text())
    assert content["format"] == "equiform-checkpoint" and content["step"] == TOTAL
