"""Models of the package: they load by name, keep their conventions, and have a card."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

import equiform
from equiform.persist.find import find_model
from equiform.persist.shipped import about_shipped, shipped_models

NAMES = list(shipped_models())


def test_the_organic_model_comes_with_the_package():
    assert "organic-gfn2" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_what_data_errors_limits_and_licence(name):
    about = about_shipped(shipped_models()[name])
    for heading in ("## Data", "## Method", "## Errors", "## Where it fails", "## Licence"):
        assert heading in about.card, heading
    assert about.megabytes <= 4 and about.about
    assert "DFT" not in about.about


def test_a_folder_of_that_name_goes_before_the_model_of_the_package(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    assert find_model(Path("organic-gfn2")) == shipped_models()["organic-gfn2"]
    (tmp_path / "organic-gfn2").mkdir()
    assert find_model(Path("organic-gfn2")) == Path("organic-gfn2")


def test_the_organic_model_knows_atoms_and_molecules():
    predictor = equiform.load("organic-gfn2", dtype="float64")
    assert set(predictor.elements) == {1, 6, 7, 8, 9, 14, 16, 17}
    water = molecule("H2O")
    turned = water.copy()
    turned.rotate(40, (1, 2, 3))
    carbon, straight, rotated = predictor.predict([Atoms("C"), water, turned])
    # GFN2-xTB's energy of a carbon atom, eV (the table in equiform/data/sets/polymers.py): the model is anchored there.
    assert carbon.energy == pytest.approx(-48.7981, abs=1e-6)
    # Source: the documentation of tblite.ase, GFN2-xTB of ase.build.molecule("H2O"); the card's errors are of this size.
    assert straight.energy == pytest.approx(-137.968, abs=1.0)
    assert rotated.energy == pytest.approx(straight.energy, abs=1e-9)
    assert np.abs(straight.forces.sum(axis=0)).max() < 1e-9
