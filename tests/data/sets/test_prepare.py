"""From a recipe's words to labelled data sets."""

from functools import partial

import numpy as np
import pytest

from equiform.data.prepare import prepare
from equiform.data.sets import catalogue, prepare as sets, qm9
from equiform.data.sets.config import SetConfig
from equiform.errors import UserError
from equiform.fields import Field
from equiform.papers.run import read_entry
from tests.data.published import write_md17, write_qm9
from tests.data.sets.test_oc20 import relaxation

HARTREE = 27.211386


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "user_cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv(catalogue.ENVIRONMENT, raising=False)
    monkeypatch.setattr(sets, "_QM9_SIZES", (20, 5))
    monkeypatch.setattr(qm9, "prepare", partial(qm9.prepare, molecules=40, unusable=2))
    return tmp_path / "published"


def test_atomic_energies_are_subtracted_in_ev(folder):
    write_qm9(folder)
    data = prepare(SetConfig(set="qm9", target="U0", folder=str(folder)), 5.0)
    parts = [data.train, data.validation, data.tests["test"]]
    assert [len(part) for part in parts] == [20, 5, 13]
    order = np.random.default_rng(1).permutation(38)
    numbers = np.array([n for n in range(1, 41) if n not in (3, 7)])[order]
    expected = {n: (n + 10 / 16 - (-75.064579 - 2 * 0.500273)) * HARTREE for n in numbers}
    expected[1] = (-40.47893 - (-37.846772 - 4 * 0.500273)) * HARTREE
    found = np.concatenate([part.column("U0") for part in parts])
    np.testing.assert_allclose(found, [expected[n] for n in numbers], rtol=1e-7)
    assert data.reference_energies[6] == pytest.approx(-37.846772 * HARTREE)
    assert data.train.target == Field("U0", "graphs", "invariant", "eV")
    graph = data.train[3]
    assert graph.graph_fields["U0"].tolist() == [found[3]] and len(graph.senders) == data.train.num_edges[3]


def test_other_targets_keep_their_units_and_no_references(folder):
    write_qm9(folder)
    data = prepare(SetConfig(set="qm9", target="alpha", folder=str(folder), train_size=4, test_size=2), 5.0)
    assert (len(data.train), len(data.tests["test"]), data.reference_energies) == (4, 2, {})
    assert data.train.target.unit == "a0³" and not data.train.has_label("energy")
    gap = prepare(SetConfig(set="qm9", target="gap", folder=str(folder)), 5.0)
    assert gap.train.target.unit == "eV"


def test_scaled_forms_of_oc20_find_their_structures_in_the_sample(shared_data, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "user_cache_folder", lambda: tmp_path)
    for name in ("oc20-is2re", "oc20-is2rs", "oc20-is2rs-6"):
        recipe = read_entry(name, [f"data.folder={shared_data / 'oc20'}"], scaled=True, folder=None)
        assert isinstance(recipe.data, SetConfig)
        data = prepare(recipe.data, 2.0)
        assert len(data.train) + len(data.validation) + len(data.tests["test"]) == 514
        assert data.train.has_label("displacement") and data.train.declared["atoms", "displacement"].unit == "Å"


def test_frames_of_md17_have_energies_and_forces(folder):
    arrays = write_md17(folder / "md17_ethanol.npz", 1100, revised=False)
    data = prepare(SetConfig(set="md17", molecule="ethanol", folder=str(folder)), 5.0)
    order = np.random.default_rng(1).permutation(1100)
    assert (len(data.train), len(data.validation), len(data.tests["test"])) == (950, 50, 100)
    np.testing.assert_allclose(data.validation.energy, arrays["E"][order[950:1000], 0] * 0.0433641, rtol=1e-6)
    np.testing.assert_allclose(data.train[0].node_fields["forces"], arrays["F"][order[0]] * 0.0433641, rtol=1e-6)


def test_relaxations_are_divided_by_system(folder):
    folder.mkdir()
    for number in range(7):
        relaxation(folder / str(number), steps=3)[0]
        (folder / str(number) / "random1.traj").rename(folder / f"random{number}.traj")
    config = SetConfig(set="oc20-is2re", split="systems", folder=str(folder), noise=True)
    data = prepare(config, 5.0)
    assert (len(data.train), len(data.validation), len(data.tests["test"])) == (12, 3, 6)
    # What the rest of the relaxation gains: −3, −2 and −1 … 0 eV of three frames.
    assert sorted(set(data.train.energy.round(9).tolist())) == [-2, -1, 0]
    graph = data.train[0]
    assert {"tags", "displacement"} <= set(graph.node_fields) and np.isnan(graph.node_fields["displacement"][0]).all()
    assert data.train.noised and not data.validation.noised
    moved = [data.train.drawn(k, 0, 0).positions - data.train[k].positions for k in range(12)]
    assert 0 < sum(bool(np.abs(move).max() > 0) for move in moved) < 12


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"set": "qm9"}, "data.target is missing: qm9 needs one"),
        ({"set": "qm9", "target": "mu", "molecule": "ethanol"}, "data.molecule=ethanol does not go with data.set=qm9"),
        ({"set": "qm9", "target": "mu", "noise": True}, "data.noise=true goes with data.set=oc20-is2re"),
        ({"set": "qm9", "target": "mu", "split": "random"}, "QM9 has no split 'random'"),
        ({"set": "md17", "molecule": "ethanol", "split": "official-01"}, "md17 has no split 'official-01'"),
        (
            {"set": "rmd17", "molecule": "ethanol", "split": "official-04"},
            "there is no official split '04' here; there are: none",
        ),
    ],
)
def test_what_does_not_go_together_is_said(folder, fields, message):
    write_qm9(folder)
    write_md17(folder / "rmd17_ethanol.npz", 1100, revised=True)
    with pytest.raises(UserError, match=message):
        prepare(SetConfig(**fields, folder=str(folder)), 5.0)
