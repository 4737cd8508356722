"""The record of a run."""

from pathlib import Path
from typing import Any

import pytest

from equiform.errors import UserError
from equiform.training.metrics import MetricsLog, read_metrics

LINE = {"kind": "train", "step": 3, "epoch": 0.5, "loss": 0.25, "timing": {"seconds": 2.0}}


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(LINE)
    log.write({"kind": "validation", "step": 4, "epoch": 1.0, "loss": float("nan"), "best": False})
    log.close()
    assert read_metrics(tmp_path) == [
        LINE,
        {"kind": "validation", "step": 4, "epoch": 1.0, "loss": None, "best": False},
    ]


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(LINE)
    size = log.sync()
    for step in (4, 5, 6):
        log.write({**LINE, "step": step})
    log.close()
    again = MetricsLog(tmp_path, size, 3)
    again.write({**LINE, "step": 5})
    again.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [3, 5]


@pytest.mark.parametrize("state", ["missing", "shorter"])
def test_a_record_that_was_lost_does_not_stop_a_run(tmp_path: Path, state: str) -> None:
    if state == "shorter":
        (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n')
    log = MetricsLog(tmp_path, 1000, 3)
    log.write(LINE)
    log.close()
    assert read_metrics(tmp_path)[-1] == LINE
    assert b"\0" not in (tmp_path / "metrics.jsonl").read_bytes()


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_tensorboard_has_the_numbers(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    log = MetricsLog(tmp_path)
    log.write(LINE)
    log.close()
    again = MetricsLog(tmp_path, 1, 3)
    again.close()
    found: list[Any] = []
    restarts = 0
    for path in sorted((tmp_path / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:  # Length (8 bytes), checksum (4), event, checksum (4).
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            restarts += event.step == 4 and event.session_log.status == 1
            data = data[length + 16 :]
    assert found == [(3, "train/loss", 0.25), (3, "train/seconds", 2.0)]
    assert restarts == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_full_is_one_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log._file.close()
    log._file = open("/dev/full", "wb")  # noqa: SIM115
    with pytest.raises(UserError, match="cannot write the metrics: No space left on device"):
        log.write(LINE)
    log.close()
    assert log._file.closed


def test_weights_and_biases_get_every_entry_and_their_absence_is_one_line(tmp_path, monkeypatch):
    import sys
    from types import SimpleNamespace

    sent: list[Any] = []
    run = SimpleNamespace(log=lambda values, step: sent.append((step, values)), finish=lambda: sent.append("finished"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **settings: sent.append(settings) or run))
    log = MetricsLog(tmp_path, wandb="project")
    log.write({"kind": "train", "step": 5, "epoch": 0.5, "loss": 2.0, "timing": {"seconds_per_step": 0.1}})
    log.close()
    assert sent[0]["project"] == "project" and sent[0]["name"] == tmp_path.name
    assert sent[1] == (5, {"train/epoch": 0.5, "train/loss": 2.0, "train/seconds_per_step": 0.1}) and sent[2] == "finished"
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"equiform\[wandb\]"):
        MetricsLog(tmp_path, wandb="project")
