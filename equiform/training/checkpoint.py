"""Checkpoints: everything a run needs to resume as if it had never stopped.

A checkpoint is a pair of files, `step-00001200.safetensors` with the arrays and `step-00001200.json` with the
rest and the checksums of both. The arrays are written first; both files are synced to disk and renamed into
place. So a checkpoint exists once its JSON does, and one whose checksum does not match is never loaded. The
last two are kept.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors, save as save_safetensors

from equiform.errors import UserError
from equiform.persist.parameters import filled, named
from equiform.runtime.files import checksum, explained, to_json, write_atomically

FORMAT = "equiform-checkpoint"
FORMAT_VERSION = 4
KEPT = 2


class Checkpoint(NamedTuple):
    """A checkpoint that was read and passed its checksums.

    Attributes:
        step: Number of completed steps.
        arrays: The training state by name.
        progress: Position of the run, as plain values.
    """

    step: int
    arrays: dict[str, np.ndarray]
    progress: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of a run."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Write a checkpoint, then remove all but the last two.

        Args:
            step: Number of completed steps.
            state: A tree of arrays.
            progress: Plain values, JSON serialisable.

        Raises:
            UserError: The files cannot be written; earlier checkpoints are untouched.
        """
        host = {name: np.asarray(leaf) for name, leaf in named(jax.device_get(state)).items()}
        arrays = save_safetensors(host)
        content: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "step": step,
            "arrays_sha256": checksum(arrays),
            "progress": progress,
        }
        content["sha256"] = _checksum_of(content)
        earlier = self.steps()
        kept = f"the checkpoint of step {earlier[0]} is safe" if earlier else "nothing was lost"
        advice = f"{kept}; free some space (it takes {len(arrays) / 2**20:.0f} MiB) and resume"
        with explained(f"cannot write the checkpoint of step {step}", advice):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._arrays_file(step), arrays)
            write_atomically(self._json_file(step), to_json(content))
            self._remove_old()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, intact or not, newest first."""
        names = [path.stem.removeprefix("step-") for path in self.folder.glob("step-*.json")]
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def load(self, step: int) -> Checkpoint:
        """Read a checkpoint and check it.

        Raises:
            UserError: It is damaged, or has an unsupported format version.
        """
        json_file, arrays_file = self._json_file(step), self._arrays_file(step)
        with explained(f"cannot read the checkpoint of step {step}", "check the permissions of the run folder"):
            text, data = json_file.read_bytes(), arrays_file.read_bytes()
        try:
            content = json.loads(text)
            claimed = content.pop("sha256")
            whole = claimed == _checksum_of(content) and content["format"] == FORMAT
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{json_file} is damaged") from error
        if not whole:
            raise UserError(f"{json_file} is damaged: its checksum does not match")
        if content["format_version"] != FORMAT_VERSION:
            raise UserError(
                f"{json_file} has format version {content['format_version']}, this version of Equiform reads "
                f"{FORMAT_VERSION}; resume with the version that wrote it"
            )
        if content["arrays_sha256"] != checksum(data):
            raise UserError(f"{arrays_file} is damaged: its checksum does not match")
        try:
            arrays = load_safetensors(data)
        except (SafetensorError, ValueError) as error:
            raise UserError(f"{arrays_file} is damaged: {error}") from error
        return Checkpoint(step, arrays, content["progress"])

    def latest(self, say: Callable[[str], None]) -> Checkpoint | None:
        """The newest intact checkpoint; None if the folder has no checkpoints.

        Args:
            say: Called with a message for every damaged checkpoint that is skipped.

        Raises:
            UserError: There are checkpoints, but none is intact.
        """
        steps = self.steps()
        for step in steps:
            try:
                return self.load(step)
            except UserError as error:
                say(f"the checkpoint of step {step} is skipped: {error}")
        if steps:
            raise UserError(f"no checkpoint in {self.folder} is intact; start a new run")
        return None

    def _arrays_file(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"

    def _json_file(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.json"

    def _remove_old(self) -> None:
        kept = set(self.steps()[:KEPT])
        for step in set(self.steps()) - kept:
            # The JSON first: arrays without it are not a checkpoint.
            self._json_file(step).unlink(missing_ok=True)
            self._arrays_file(step).unlink(missing_ok=True)
        for path in self.folder.glob("step-*.safetensors"):
            name = path.stem.removeprefix("step-")
            if name.isdigit() and int(name) not in kept:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".step-*.part"):
            path.unlink(missing_ok=True)


def restored(like: Any, checkpoint: Checkpoint) -> Any:
    """The training state of a checkpoint, with the structure of a freshly initialised one.

    Raises:
        UserError: The checkpoint was written by another model or with other settings.
    """
    return filled(like, checkpoint.arrays, f"the checkpoint of step {checkpoint.step}")


def _checksum_of(content: dict[str, Any]) -> str:
    return checksum(json.dumps(content, sort_keys=True, allow_nan=False).encode())
