"""Names mean what their words say together."""

import pytest

from equiform.data import units
from equiform.data.formats.words import ASKS, meaning, resembles, unit_of, weight_of, words_of
from equiform.data.units import parse_unit


@pytest.mark.parametrize(
    "name", ["REF_energy", "RefEnergy", "refenergy", "ref-energy", "energy_ref", "REFenergy", "ref.energy", "Reference Energy"]
)
def test_case_and_separators_do_not_matter(name):
    found = meaning(name)
    assert found is not None and (found.kind, found.rank) == ("energy", 0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("energy", "energy"), ("total_e", "energy"), ("E", "energy"), ("Etot", "energy"), ("U0", "energy"), ("TOTEN", "energy"),
        ("E_pbe", "energy"), ("uncorrected_total_energy", "energy"), ("forces", "forces"), ("F", "forces"),
        ("dft_force", "forces"),
        ("gradient", "forces"), ("stress", "stress"), ("virial_stress", "stress"), ("stress_virial", "stress"),
        ("virials", "virial"),
        ("REF_virial", "virial"),
    ],
)  # fmt: skip
def test_names_of_labels(name, kind):
    found = meaning(name)
    assert found is not None and found.kind == kind


@pytest.mark.parametrize(
    "name",
    [
        "config_energy_weight", "energy_weight", "energy_unit", "energy_error", "energy_std", "force_constants", "max_force",
        "stress_weight", "formation_energy", "hartree_energy", "zero_point_energy", "gibbs_free_energy", "energies",
        "fermi_energy",
        "kinetic_energy", "dispersion_energy", "free", "config_type", "enthalpy_H", "electric_field", "external_force",
        "step", "time",
        "energy_shift", "energy_cutoff", "von_mises_stress", "delta_energy", "energy_stdev", "energy_sigma", "w_energy",
        "energy_w", "site_energy", "conserved_energy", "energy_per_formula_unit", "e_form", "e_ads", "energy_G", "energy_H",
        "net_force", "residual_forces", "energy_contributions",
    ],
)  # fmt: skip
def test_names_that_only_contain_a_label(name):
    assert meaning(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "energy/atom",
        "energy_per_atom",
        "energy_atom",
        "atomic_energy",
        "energyPerAtom",
        "dft_energy_peratom",
        "energy/natoms",
        "E/N",
        "energy_per_n_atoms",
        "e_pa",
        "energy_pa",
    ],
)
def test_energies_per_atom_are_recognised(name):
    found = meaning(name)
    assert found is not None and found.per_atom


def test_order_of_preference():
    names = [
        "REF_energy",
        "dft_energy",
        "energy",
        "total_energy",
        "energy_U0",
        "free_energy",
        "energy_U",
        "energy_pbe",
        "predicted_energy",
    ]
    ranks = [meaning(name).rank for name in names]
    assert ranks == sorted(ranks) and ranks[-2] == ASKS


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("energy_hartree", "Hartree"), ("energy_Ha", "Hartree"), ("energy(eV)", "eV"), ("energy_kcal_mol", "kcal/mol"),
        ("forces_ev_ang", "eV/Å"), ("forces_hartree_bohr", "Hartree/Bohr"), ("stress_GPa", "GPa"), ("stress_kbar", "kbar"),
    ],
)  # fmt: skip
def test_a_unit_at_the_end_of_a_name(name, unit):
    found = meaning(name)
    assert found is not None and parse_unit(found.unit) == parse_unit(unit) and found.rank < 30


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("config_weight", "structure"), ("weight", "structure"), ("config_energy_weight", "energy"),
        ("forces_weight", "forces"),
        ("virials_weight", "stress"), ("stress_weight", "stress"), ("molecular_weight", None), ("atomic_weights", None),
        ("weighted_energy", None), ("energy", None),
    ],
)  # fmt: skip
def test_names_of_weights(name, of):
    assert weight_of(name) == of


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("energy_unit", "energy"), ("energyUnits", "energy"), ("unit_energy", "energy"), ("E_unit", "energy"), ("units", "all"),
        ("distance_unit", "length"), ("position_units", "length"), ("cell_unit", "cell"), ("forces-unit", "forces"),
        ("virial_unit", "virial"), ("energy_U0_unit", "energy u0"), ("homo_unit", "homo"), ("energy", None),
    ],
)  # fmt: skip
def test_names_of_units(name, of):
    assert unit_of(name) == of


def test_what_looks_like_a_label_is_noticed():
    assert resembles("formation_energy", "energy") and resembles("pressure", "stress")
    assert not resembles("energy_weight", "energy") and not resembles("step", "energy")


@pytest.mark.parametrize(
    ("text", "factor", "energy", "length"),
    [
        ("eV/Å", 1, 1, -1), ("ev*ang^-1", 1, 1, -1), ("eV per Angstrom", 1, 1, -1), ("kcal mol^-1 Å^-1", 0.0433641, 1, -1),
        ("kcal/(mol*A)", 0.0433641, 1, -1), ("Ha/a0", 51.42207, 1, -1), ("Hartree/Bohr^3", 183.6315, 1, -3),
        ("eV/A3", 1, 1, -3),
        ("GPa", 0.00624151, 1, -3), ("kJ mol-1 nm-1", 0.001036427, 1, -1), ("Ångström", 1, 0, 1), ("cm^-1", 1.239842e-4, 1, 0),
        ("mHa", 0.0272114, 1, 0), ("mEh", 0.0272114, 1, 0), ("Ry/au", 25.71103, 1, -1), ("mRy/au", 0.02571103, 1, -1),
        ("Hartree/particle", 27.21139, 1, 0), ("Mbar", 0.624151, 1, -3),
    ],
)  # fmt: skip
def test_units_in_the_ways_they_are_written(text, factor, energy, length):
    unit = parse_unit(text)
    assert unit is not None and (unit.energy, unit.length) == (energy, length)
    assert unit.factor == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("kind", ["energy", "length", "stress"])
def test_every_unit_of_the_tables_is_read_by_its_name(kind):
    table = {"energy": units.ENERGY, "length": units.LENGTH, "stress": units.PRESSURE}[kind]
    assert {name: units.FACTORS[kind](name) for name in table} == pytest.approx(table, rel=1e-12)


def test_a_gradient_with_its_sign_in_the_name_is_forces():
    found = meaning("negative_gradient")
    assert found is not None and found.kind == "forces" and not found.gradient


@pytest.mark.parametrize("text", ["foot-pound", "mbar", "", "eV/", "/Å", "1", "eV/mol/mol", "none"])
def test_other_texts_are_no_units(text):
    assert parse_unit(text) is None


def test_words_of_a_slash():
    assert words_of("energy/atom") == ("energy", "per", "atom")
