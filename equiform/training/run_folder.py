"""The run folder: everything a training run writes, and all that is needed to resume it.

recipe.yaml        the effective recipe
run.json           versions, git commit, device, reference energies
metrics.jsonl      errors and losses over the run; tensorboard/ holds the same
checkpoints/       the last two states
best/, last/       model files; best-old-head/, … of the old level of theory where fine-tuning keeps its readout
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from equiform.errors import UserError
from equiform.persist.modelfile import save_model
from equiform.runtime.files import explained, to_json, write_atomically
from equiform.runtime.versions import package_versions
from equiform.tasks.api import Task
from equiform.training.checkpoint import CheckpointFolder

RUN_FILE = "run.json"
OLD_HEAD = "-old-head"
"""Added to the folder of a model for that of the kept old readout."""
RECIPE_FILE = "recipe.yaml"
FORMAT = "equiform-run"
FORMAT_VERSION = 2
"""1 (0.1.0): settings have their old names; its models and report can be read, but it cannot be resumed."""
ELSEWHERE = "choose another folder with -o (run.folder=…)"


class RunFolder:
    """The folder of one run. Use `create` or `open`.

    Attributes:
        path: Its absolute path.
        reference_energies: eV by atomic number; written into every model file.
        metadata: Further content of every model file.
        provenance: Versions, git commit, device, time.
    """

    def __init__(self, path: Path, content: Mapping[str, Any]):
        self.path = path
        self.reference_energies = {int(z): float(e) for z, e in content["reference_energies"].items()}
        self.metadata: dict[str, Any] = dict(content["metadata"])
        self.provenance: dict[str, Any] = dict(content["provenance"])
        self.format_version: int = content["format_version"]

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        recipe: str = "",
        reference_energies: Mapping[int, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> "RunFolder":
        """Start a run in a new or empty folder.

        Args:
            path: The folder.
            recipe: The effective recipe, in YAML.
            reference_energies: eV of an isolated atom by atomic number.
            metadata: Plain values for the model files (data, units, level of theory).

        Raises:
            UserError: The folder is not empty, or it cannot be written.
        """
        path = cls.check_free(path)
        with explained(f"cannot create the run folder {path}", ELSEWHERE):
            path.mkdir(parents=True, exist_ok=True)
            content = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "provenance": provenance(),
                "reference_energies": {str(z): float(e) for z, e in sorted((reference_energies or {}).items())},
                "metadata": dict(metadata or {}),
            }
            write_atomically(path / RECIPE_FILE, recipe.encode())
            write_atomically(path / RUN_FILE, to_json(content))
        return cls(path, content)

    @staticmethod
    def check_free(path: str | Path) -> Path:
        """The absolute path of a folder that is new or empty.

        Raises:
            UserError: It is neither, or cannot be read.
        """
        path = Path(path).absolute()
        with explained(f"cannot create the run folder {path}", ELSEWHERE):
            if path.exists() and not path.is_dir():
                raise UserError(f"{path} is a file; {ELSEWHERE}")
            if path.is_dir() and any(path.iterdir()):
                earlier = (path / RUN_FILE).exists()
                what = "holds an earlier run" if earlier else "is not empty"
                hint = "resume it (--resume), or " if earlier else ""
                raise UserError(f"{path} {what}, which would be overwritten; {hint}{ELSEWHERE}")
        return path

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """An existing run, to resume or to inspect.

        Raises:
            UserError: There is no run in that folder.
        """
        path = Path(path).absolute()
        file = path / RUN_FILE
        if not file.is_file():
            raise UserError(f"{path} is not a run folder: it has no {RUN_FILE}")
        with explained(f"cannot read {file}", "check its permissions"):
            text = file.read_bytes()
        try:
            content = json.loads(text)
            if content["format"] != FORMAT or content["format_version"] not in (1, FORMAT_VERSION):
                raise UserError(f"{file}: this version of Equiform does not support its format")
            return cls(path, content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file} is damaged ({type(error).__name__}: {error})") from error

    def check_resumable(self) -> None:
        """Refuse to resume a run of a version with incompatible settings and checkpoints.

        Raises:
            UserError: Names that version.
        """
        if self.format_version != FORMAT_VERSION:
            version = self.provenance.get("packages", {}).get("equiform", "0.1.0")
            raise UserError(
                f"{self.path} was written by Equiform {version}: this version can evaluate and use its models, but cannot "
                f"resume it; resume it with equiform=={version}, or start a new run"
            )

    @property
    def recipe(self) -> str:
        """The effective recipe, in YAML."""
        with explained(f"cannot read {self.path / RECIPE_FILE}", "check the run folder"):
            return (self.path / RECIPE_FILE).read_text(encoding="utf-8")

    @property
    def checkpoints(self) -> CheckpointFolder:
        return CheckpointFolder(self.path / "checkpoints")

    @property
    def best(self) -> Path:
        """The model file with the lowest validation loss."""
        return self.path / "best"

    @property
    def last(self) -> Path:
        """The model file from the end of the run."""
        return self.path / "last"

    def save_model(self, folder: Path, task: Task, training: Mapping[str, Any]) -> None:
        """Write a model file of this run, replacing an earlier one.

        Args:
            folder: `best` or `last`.
            task: The model.
            training: Step, epoch and errors.
        """
        about = {**self.metadata, "training": dict(training), "provenance": self.provenance}
        save_model(folder, task, self.reference_energies, about, overwrite=True)

    def save_old_head(self, folder: Path, task: Task, training: Mapping[str, Any]) -> None:
        """Write the model of the kept old readout beside that of the new one.

        Args:
            folder: Of the new one, `best` or `last`.
            task: The model.
            training: Step and epoch.
        """
        about = {**self.metadata, "training": dict(training), "provenance": self.provenance}
        old = {int(z): float(energy) for z, energy in self.metadata["finetune"]["old_reference_energies"].items()}
        save_model(folder.with_name(folder.name + OLD_HEAD), task, old, about, overwrite=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder; the lock ends with the process.

        Raises:
            UserError: Another process trains here, or the folder cannot be written.
        """
        with explained(f"cannot write into the run folder {self.path}", "fix its permissions or free some space"):
            file = open(self.path / ".lock", "wb")  # noqa: SIM115
        with file:
            _lock(file, self.path)
            yield


def free_folder(parent: str | Path, name: str) -> Path:
    """`parent/name-1`, or the first free number."""
    taken = {path.name for path in Path(parent).glob(f"{name}-*")}
    number = next(n for n in range(1, len(taken) + 2) if f"{name}-{n}" not in taken)
    return Path(parent) / f"{name}-{number}"


def provenance() -> dict[str, Any]:
    """Versions, git commit, device and time, so that a result can be traced."""
    import jax

    device = jax.devices()[0]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: version for name, version in package_versions().items() if version},
        "platform": platform.platform(),
        "device": f"{device.platform}: {device.device_kind}",
        "num_devices": jax.device_count(),
        "num_cores": os.cpu_count(),
    }


def git_commit() -> str | None:
    """Commit of the running source, `-dirty` if it has local changes; None outside a checkout."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=source,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no lock; nothing else depends on it.
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"another process is training in {path}; wait for it, or choose another folder") from error
    except OSError:
        return  # Some network file systems cannot lock.
