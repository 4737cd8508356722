"""Stores: what is written is read, edges are those of the definition, and half a store is none."""

import numpy as np
import pytest

from equiform.data.store.files import CELL, INDEX, Field, Store, StoreWriter
from equiform.data.store.graphs import Noise, StoredGraphs
from equiform.data.store.neighborhood import Neighborhood, find_edges, oc20_neighborhood
from equiform.errors import UserError

FIELDS = {"energy": Field("graph", "float64", (), "eV"), "forces": Field("atom", "float32", (3,), "eV/Å")}


def write(folder, count=50, seed=0, periodic=False):
    rng = np.random.default_rng(seed)
    fields = {**FIELDS, **({"cell": CELL} if periodic else {})}
    written = []
    with StoreWriter(folder, fields, pbc=(periodic, periodic, False), about={"source": "here"}) as writer:
        for number in range(count):
            atoms = int(rng.integers(1, 9))
            columns = {
                "positions": rng.uniform(0, 6, (atoms, 3)),
                "species": rng.integers(1, 9, atoms),
                "energy": float(number),
                "forces": rng.normal(size=(atoms, 3)).astype(np.float32),
            }
            if periodic:
                columns["cell"] = np.diag([4.0, 5.0, 30.0]) + 0.2 * rng.normal(size=(3, 3))
            writer.add(**columns)
            written.append(columns)
    return written


def test_what_is_written_is_read(tmp_path):
    written = write(tmp_path / "s")
    store = Store(tmp_path / "s")
    assert len(store) == 50 and store.about == {"source": "here"} and store.fields["forces"].unit == "eV/Å"
    for index, columns in enumerate(written):
        for name, values in columns.items():
            np.testing.assert_array_equal(store.rows(name, index), values)
    assert store.elements() == tuple(sorted({int(z) for c in written for z in c["species"]}))
    assert store.elements([3]) == tuple(sorted(set(written[3]["species"].tolist())))


def brute_force(positions, cell, hood):
    """Every image within three cells, by the definition."""
    found = []
    for i, here in enumerate(positions):
        near = []
        for j, there in enumerate(positions):
            for a in range(-3, 4):
                for b in range(-3, 4):
                    if cell is None and (a or b):
                        continue
                    shift = np.zeros(3) if cell is None else a * cell[0] + b * cell[1]
                    distance = np.linalg.norm(there + shift - here)
                    inside = distance <= hood.cutoff if hood.inclusive else distance < hood.cutoff
                    if inside and distance > hood.shortest and (i != j or a or b):
                        near.append((distance, i, j, a, b, 0))
        found += [entry[1:] for entry in sorted(near)[: hood.max_neighbors]]
    return set(found)


def lengths(rows, columns):
    x, cell = columns["positions"], columns.get("cell", np.zeros((3, 3)))
    return sorted((i, round(float(np.linalg.norm(x[j] + np.array(s) @ cell - x[i])), 9)) for i, j, *s in rows)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("hood", [Neighborhood(5.0), Neighborhood(5.0, True, 6, 0.01)])
def test_edges_are_those_of_the_definition(tmp_path, periodic, hood):
    written = write(tmp_path / "s", 6, periodic=periodic)
    store = Store(tmp_path / "s")
    for keep in (False, True):  # Counts alone, then all of them: the same edges.
        edges = store.edges(hood, keep=keep)
        for index, columns in enumerate(written):
            found = edges.of(index)
            shifts = np.zeros((len(found.senders), 3), int) if found.shifts is None else found.shifts
            rows = {(int(i), int(j), *map(int, s)) for i, j, s in zip(found.receivers, found.senders, shifts)}
            assert len(rows) == len(found.senders) == edges.num_edges[index]
            expected = brute_force(columns["positions"], columns.get("cell"), hood)
            if hood.max_neighbors is None:
                assert rows == expected
            else:  # Of two that are equally near (an image on either side) any one may stay.
                assert lengths(rows, columns) == lengths(expected, columns)
            assert (np.diff(found.receivers) >= 0).all()


def test_the_boundary_is_as_published():
    line = np.array([[0.0, 0, 0], [5.0, 0, 0], [0.005, 0, 0]])
    far = find_edges(line, None, (False,) * 3, oc20_neighborhood(5.0))
    assert set(zip(far.senders.tolist(), far.receivers.tolist())) == {(0, 1), (1, 0), (1, 2), (2, 1)}
    strict = find_edges(line, None, (False,) * 3, Neighborhood(5.0))
    assert set(zip(strict.senders.tolist(), strict.receivers.tolist())) == {(0, 2), (2, 0), (1, 2), (2, 1)}


def test_a_store_that_was_interrupted_does_not_exist(tmp_path):
    with pytest.raises(KeyError), StoreWriter(tmp_path / "s", FIELDS) as writer:
        writer.add(species=[1], energy=0.0, forces=np.zeros((1, 3)))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_told_from_a_whole_one(tmp_path):
    write(tmp_path / "s")
    column = tmp_path / "s" / "forces"
    content = column.read_bytes()
    column.write_bytes(content[:-4])
    with pytest.raises(UserError, match=r"forces has \d+ bytes instead of \d+"):
        Store(tmp_path / "s")
    column.write_bytes(content)
    (tmp_path / "s" / "energy").unlink()
    with pytest.raises(UserError, match="energy is missing"):
        Store(tmp_path / "s")
    (tmp_path / "s" / INDEX).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Store(tmp_path / "s")


def test_columns_that_do_not_fit_are_refused(tmp_path):
    with StoreWriter(tmp_path / "s", FIELDS) as writer:
        with pytest.raises(ValueError, match="do not fit"):
            writer.add(positions=np.zeros((2, 3)), species=[1, 1], energy=0.0)
        with pytest.raises(ValueError, match="forces has the shape"):
            writer.add(positions=np.zeros((2, 3)), species=[1, 1], energy=0.0, forces=np.zeros((1, 3)))


def test_graphs_have_their_labels_in_the_order_asked_for(tmp_path):
    written = write(tmp_path / "s")
    store = Store(tmp_path / "s")
    rows = np.array([7, 2, 40])
    labels = {"energy": store["energy"][rows]}
    graphs = StoredGraphs(store, rows, store.edges(Neighborhood(5.0)), graph_labels=labels, node_labels={"forces": "forces"})
    assert [float(graph.graph_fields["energy"][0]) for graph in graphs] == [7, 2, 40]
    assert graphs.num_atoms.tolist() == [len(written[k]["species"]) for k in rows]
    assert graphs.num_edges.tolist() == [len(graph.senders) for graph in graphs]
    np.testing.assert_array_equal(graphs[2].node_fields["forces"], written[40]["forces"])
    assert [float(graph.graph_fields["energy"][0]) for graph in graphs[1:]] == [2, 40]


def test_noise_is_a_function_of_seed_epoch_and_structure(tmp_path):
    write(tmp_path / "s")
    store = Store(tmp_path / "s")
    hood = Neighborhood(5.0)

    def draw(row, rng):
        moved = store.rows("positions", row) + rng.normal(size=(store["num_atoms"][row], 3))
        return moved, {"moved": moved}

    def graphs(rows):
        return StoredGraphs(store, np.array(rows), store.edges(hood), noise=Noise(draw, hood))

    first, again = graphs([3, 4]), graphs([9, 3])
    np.testing.assert_array_equal(first.drawn(0, 1, 5).positions, again.drawn(1, 1, 5).positions)
    np.testing.assert_array_equal(first.drawn(0, 1, 5).positions, first.drawn(0, 1, 5).node_fields["moved"])
    for seed, epoch in ((2, 5), (1, 6)):
        assert not np.allclose(first.drawn(0, seed, epoch).positions, first.drawn(0, 1, 5).positions)
    np.testing.assert_array_equal(first[0].positions, store.rows("positions", 3))
    drawn = first.drawn(0, 1, 5)
    assert set(zip(drawn.receivers.tolist(), drawn.senders.tolist())) == {
        entry[:2] for entry in brute_force(drawn.positions, None, hood)
    }
