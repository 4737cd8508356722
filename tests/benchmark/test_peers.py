"""benchmarks/peers.py: the processes of the peers, whose turn it is, and the table; stand-ins are run in place of the peers."""

import ast
import sys
from pathlib import Path

import pytest

from benchmarks import peer_turns, peers
from benchmarks.peer_process import PEERS, Peer, PeerFailed, write_task
from benchmarks.peer_table import PeerRow, markdown_table, plot
from equiform.benchmark.inputs import make_molecules
from equiform.errors import UserError

BENCHMARKS = Path(peers.__file__).parent
STAND_IN = """
import sys
sys.path.insert(0, {folder!r})
from peer_protocol import read_task, serve
print("a library says hello")
task = read_task()
total = sum(float(positions.sum()) for _, positions in task.molecules)
sizes = "+".join(str(len(numbers)) for numbers, _ in task.molecules)
about = dict(code=f"{{task.peer}} {{sizes}} {{task.forces}}", parameters=3, edges={edges}, threads=1, warm_up=2)
serve(task, about | {{"total": total, "elements": task.elements}}, {programs})
"""


@pytest.fixture
def molecules():
    return make_molecules([4, 6])


@pytest.fixture
def new_peer(tmp_path, molecules):
    """Starts a stand-in; all are closed at the end."""
    started = []

    def new(programs='{"inference": lambda: 1.5, "step": lambda: float("nan")}', edges="10", code=STAND_IN) -> Peer:
        worker = tmp_path / "worker.py"
        worker.write_text(code.format(folder=str(BENCHMARKS), edges=edges, programs=programs), encoding="utf-8")
        task = write_task(tmp_path / "task.npz", "mace", forces=True, molecules=molecules, cache=None)
        started.append(Peer("mace", Path(sys.executable), worker=worker, task=task, log=tmp_path / "log"))
        return started[-1]

    yield new
    for peer in started:
        peer.close()


def row(code: str, seconds: tuple[float, ...], program: str = "energy") -> PeerRow:
    return PeerRow("here", 10, code, 1000, program, seconds, (1.0, 2.0, 4.0))


def test_worker_has_the_molecules_and_its_noise_stays_apart(new_peer, molecules, tmp_path):
    peer = new_peer()
    sizes = "+".join(str(len(graph.species)) for graph in molecules)
    assert peer.about["code"] == f"mace {sizes} True"
    assert peer.about["programs"] == ["inference", "step"] and peer.about["left_out"] == {}
    assert peer.about["total"] == pytest.approx(sum(float(graph.positions.sum()) for graph in molecules))
    assert peer.about["elements"] == sorted({int(z) for graph in molecules for z in graph.species})
    assert peer.time("inference") > 0
    peer.close()
    assert "hello" in (tmp_path / "log").read_text(encoding="utf-8")


def test_number_that_is_not_finite_is_refused(new_peer):
    with pytest.raises(PeerFailed, match="its step is not finite"):
        new_peer().time("step")


def test_last_words_of_a_process_that_ends_are_told(new_peer):
    with pytest.raises(PeerFailed, match="status 1: ModuleNotFoundError: No module named 'no_such_peer'"):
        new_peer(code="import no_such_peer").about  # noqa: B018
    dies = new_peer(programs='{"inference": lambda: sys.exit("out of memory")}')
    with pytest.raises(PeerFailed, match="status 1: out of memory"):
        dies.time("inference")
    with pytest.raises(PeerFailed, match="out of memory"):
        dies.time("inference")


def test_peer_with_other_edges_is_left_out(new_peer):
    said = []
    assert [code.edges for code in peers.peer_codes([new_peer(edges="1003")], 1000, said.append)] == [1003]
    assert peers.peer_codes([new_peer(edges="1006")], 1000, said.append) == []
    assert "1,006 edges where the others use 1,000" in said[-1]


def test_peer_that_does_not_start_is_left_out_with_its_recipe(new_peer):
    said = []
    assert peers.peer_codes([new_peer(code="import no_such_peer")], 10, said.append) == []
    assert "no_such_peer" in said[0] and "mace-torch==" in said[0]


def test_codes_take_turns_after_warming_up(monkeypatch):
    monkeypatch.setattr(peer_turns, "PAUSE", 0.0)
    calls = []

    def code(name: str, warm_up: int, programs=("step",), fails_at=99) -> peers.Code:
        def run(program: str) -> float:
            calls.append(name)
            if calls.count(name) == fails_at:
                raise PeerFailed("gone")
            return float(calls.count(name))

        return peers.Code(name, 1, 1, warm_up, programs, run)

    said = []
    codes = [code("a", 1), code("b", 3), code("c", 1, programs=("inference",)), code("d", 1, fails_at=2)]
    seconds = peers.take_turns(codes, "step", 2, said.append)
    assert "".join(calls) == "bb" + "abd" + "abd" + "ab"
    assert seconds == {"a": [2.0, 3.0], "b": [4.0, 5.0]}  # none of the calls that warm up
    assert said[-1] == "d is left out: gone"


def test_ratio_is_taken_round_by_round():
    drifting = row("a", (2.0, 4.0, 8.0))
    assert drifting.ratio == 2.0 and drifting.milliseconds == 4000.0
    assert row("b", (1.0, 2.0, 40.0)).ratio == 1.0  # one disturbed round changes nothing


def test_rows_compare_with_our_equiformer(monkeypatch, new_peer):
    monkeypatch.setattr(peer_turns, "PAUSE", 0.0)
    slow, fast = ({"inference": seconds, "step": 3 * seconds} for seconds in (4.0, 1.0))
    times = {"qm9-l2-nonlinear": fast, "torchmd-et-qm9": slow}
    monkeypatch.setattr(
        peers, "our_code", lambda name, molecules, forces: peers.Code(name, 5, 10, 1, peers.PROGRAMS, times[name].__getitem__)
    )
    monkeypatch.setattr(peers, "start", lambda *_, **__: [new_peer(programs='{"inference": lambda: 1.0}')])
    rows = peers.compare("qm9", {}, None, 3, None, lambda line: None)
    assert [(row.program, row.ratio) for row in rows if row.code in times] == [
        ("energy", 1.0),
        ("energy", 4.0),
        ("energy step", 1.0),
        ("energy step", 4.0),
    ]
    theirs = [row for row in rows if row.code not in times]
    assert [(row.program, row.edges, len(row.seconds)) for row in theirs] == [("energy", 10, 3)]  # it has no step
    assert 0 < theirs[0].ratio == pytest.approx(theirs[0].milliseconds / 1e3)


def test_tables_and_bars(tmp_path):
    rows = [row("Equiform, x", (1.0, 2.0, 4.0)), row("Peer 1.0", (0.01, 0.02, 0.04), "energy step")]
    lines = markdown_table(rows).splitlines()
    assert lines[2] == "| here | 10 | Equiform, x | 1,000 | energy | 2,000 | 1.00 |"
    assert lines[3] == "| here | 10 | Peer 1.0 | 1,000 | energy step | 20.0 | 0.01 |"
    assert {line.count("|") for line in lines} == {8}
    assert plot(rows, tmp_path / "new" / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_environments_are_checked(tmp_path):
    said = []
    with pytest.raises(UserError, match="--peer mase=x: give NAME=PYTHON with a name of torchmd, mace"):
        peers.environments(["mase=x"], said.append)
    with pytest.raises(UserError, match="there is no file"):
        peers.environments([f"mace={tmp_path / 'python'}"], said.append)
    assert list(peers.environments([f"nequip={sys.executable}"], said.append)) == ["nequip"]
    assert len(said) == len(PEERS) - 1 and all("PEER/bin/pip install" in line for line in said)


def test_workers_import_nothing_of_ours():
    workers = {kind.worker for kind in PEERS.values()} | {"peer_protocol.py", "peer_in_torch.py", "peer_in_jax.py"}
    for worker in workers:
        tree = ast.parse((BENCHMARKS / worker).read_text(encoding="utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not {name.partition(".")[0] for name in imported} & {"equiform", "benchmarks"}, worker
