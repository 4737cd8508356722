"""Checkpoints: exact, atomic, and never loaded unless whole."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from equiform.errors import UserError
from equiform.runtime import files
from equiform.training.checkpoint import FORMAT_VERSION, CheckpointFolder, restored

STATE = {
    "weight": jnp.asarray([-0.0, 1e-40, np.nan, np.inf, 1 / 3], jnp.float32),
    "double": jnp.asarray([np.pi, np.nextafter(1, 2)], jnp.float64),
    "step": jnp.asarray(7, jnp.int32),
    "flag": jnp.asarray([True, False]),
    "none": None,
}
PROGRESS = {"at": {"step": 7, "best_loss": 0.1 + 0.2}, "text": "Å"}


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in folder.folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    folder.save(7, STATE, PROGRESS)
    return folder


def test_every_bit_comes_back(folder: CheckpointFolder) -> None:
    checkpoint = folder.load(7)
    state = restored(STATE, checkpoint)
    for name, leaf in STATE.items():
        if leaf is not None:
            assert state[name].dtype == leaf.dtype
            assert np.asarray(state[name]).tobytes() == np.asarray(leaf).tobytes()
    assert checkpoint.progress == PROGRESS


def test_the_last_two_are_kept(folder: CheckpointFolder) -> None:
    for step in (8, 9, 10):
        folder.save(step, STATE, PROGRESS)
    assert folder.steps() == [10, 9]
    assert names(folder) == [f"step-{n:08d}.{kind}" for n in (9, 10) for kind in ("json", "safetensors")]


@pytest.mark.parametrize("file", ["step-00000008.json", "step-00000008.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "missing"])
def test_a_damaged_one_is_passed_over_for_the_one_before(folder: CheckpointFolder, file: str, damage: str) -> None:
    folder.save(8, STATE, PROGRESS)
    path = folder.folder / file
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(20):
        place = int(rng.integers(len(data)))
        changed = {
            "cut": data[:place],
            "flip": data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :],
            "empty": b"",
            "missing": None,
        }[damage]
        path.unlink(missing_ok=True)
        if changed is not None:
            path.write_bytes(changed)
        said: list[str] = []
        found = folder.latest(said.append)
        # White space and unused digits aside, a changed file must never be taken for a whole one.
        assert found is not None
        assert found.step == 7 or found.progress == PROGRESS
        if file.endswith("safetensors") or damage in ("empty", "missing"):
            assert found.step == 7
        assert found.step == 8 or file == "step-00000008.json" or "skipped" in said[0]


def test_arrays_without_their_json_are_no_checkpoint(folder: CheckpointFolder) -> None:
    """Killed between the two renames."""
    folder.save(8, STATE, PROGRESS)
    (folder.folder / "step-00000008.json").unlink()
    found = folder.latest(lambda _: None)
    assert found is not None and found.step == 7


def test_if_none_is_whole_it_is_an_error(folder: CheckpointFolder) -> None:
    (folder.folder / "step-00000007.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* is intact"):
        folder.latest(lambda _: None)


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none").latest(lambda _: None) is None


@pytest.mark.parametrize("failing_call", range(4))
def test_disk_full_is_one_line_and_earlier_ones_are_safe(
    folder: CheckpointFolder, failing_call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))
    real = files.os.fsync

    def full(handle: int) -> None:
        if next(calls) == failing_call:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(UserError, match=r"No space left on device.*step 7 is safe; free some space") as error:
            folder.save(8, STATE, PROGRESS)
    assert "\n" not in str(error.value)
    assert not [name for name in names(folder) if name.endswith(".part")]
    found = folder.latest(lambda _: None)
    assert found is not None and found.step in (7, 8)
    folder.save(9, STATE, PROGRESS)
    assert folder.load(9).step == 9


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({**STATE, "extra": jnp.zeros(1)}, "extra is missing"),
        ({name: leaf for name, leaf in STATE.items() if name != "flag"}, "flag is unknown"),
        ({**STATE, "double": jnp.zeros(3)}, r"double is float64\[2\], expected float64\[3\]"),
        ({**STATE, "weight": jnp.zeros(5)}, r"weight is float32\[5\], expected float64\[5\]"),
    ],
)
def test_the_checkpoint_of_another_model_is_refused(folder: CheckpointFolder, like: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        restored(like, folder.load(7))


def test_an_unknown_version_is_refused(folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equiform.training.checkpoint.FORMAT_VERSION", FORMAT_VERSION + 1)
    with pytest.raises(
        UserError, match=f"has format version {FORMAT_VERSION}, this version of Equiform reads {FORMAT_VERSION + 1}"
    ):
        folder.load(7)
