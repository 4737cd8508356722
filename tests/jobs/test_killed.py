"""SIGKILL in the middle of fine-tuning in all its forms, and of a committee: the resumed run ends with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from equiform.models import build_model, parse_config
from equiform.persist.modelfile import save_model
from equiform.persist.parameters import with_dtype
from equiform.tasks.energy import Potential
from tests.jobs.tuned import WATER_MODEL, write

ENERGIES = {"H": -13.0, "O": -2000.0}
STEPS, KILLED_AFTER = 400, 20
MODES = {
    "frozen parts": ["from={base}", "freeze=embedding"],
    "adapters": ["from={base}", "adapters=1"],
    "replay": ["from={base}", "finetune.replay={old}"],
    "two readouts": ["from={base}", "finetune.replay={old}", "finetune.keep_head=true"],
    "committee": ["model.name=torchmd-et", "model.channels=8", "model.num_layers=2", "model.num_heads=2", "training.members=2"],
}


def equiform(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "equiform", "train", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said


def kill_after(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """SIGKILL as soon as there is a checkpoint of that step or a later one."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if any(int(path.stem.removeprefix("step-")) >= step for path in (folder / "checkpoints").glob("step-*.json")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(MODES))
def test_a_killed_run_resumes_to_the_same_bytes(mode: str, tmp_path: Path) -> None:
    task = Potential(with_dtype(build_model(parse_config(WATER_MODEL), key=jax.random.key(0)), "float32"), elements=(1, 8))
    base = save_model(tmp_path / "base", task, {1: ENERGIES["H"], 8: ENERGIES["O"]}, {})
    new, old = (write(tmp_path / f"{name}.xyz", "H2O", 8, seed, ENERGIES) for name, seed in (("new", 1), ("old", 2)))
    own = [setting.format(base=base, old=old) for setting in MODES[mode]]
    settings = [f"training.max_steps={STEPS}", "training.checkpoint_every=10", "training.validate_every=100"]
    settings += ["training.batch_size=2", "training.losses.forces=null", "data.validation=0.25"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(equiform(str(new), *own, *settings, "-o", str(whole)))
    kill_after(equiform(str(new), *own, *settings, "-o", str(killed)), killed, KILLED_AFTER)
    assert not (killed / "errors.json").exists()
    finish(equiform("--resume", str(killed)))
    models = sorted(path.name for path in whole.iterdir() if (path / "weights.safetensors").is_file())
    assert {"best", "last"} <= set(models) and (mode != "two readouts" or "best-old-head" in models)
    for name in models:
        assert (whole / name / "weights.safetensors").read_bytes() == (killed / name / "weights.safetensors").read_bytes(), name
