"""Official checkpoints: read, recognised, predicted with, and written back unchanged."""

import equinox as eqx
import jax
import numpy as np
import pytest

from benchmarks.official import SMALL, graph_of
from equiform.errors import UserError
from equiform.graph import to_device
from equiform.models.equiformer import Equiformer
from equiform.models.presets import preset
from equiform.persist.modelfile import load_model, save_model
from equiform.persist.official.convert import convert, export, model_from_state, read_state
from equiform.persist.official.inference import infer_fields
from equiform.persist.official.names import official_state
from equiform.tasks.energy import Potential


def _small_state(**changes):
    config = preset(
        "qm9-l2-nonlinear", irreps="12x0e+8x1e+4x2e", irreps_head="6x0e+4x1e+2x2e", irreps_mlp="20x0e+9x1e+5x2e",
        irreps_feature="16x0e", num_heads=2, num_layers=2, num_basis=8, radial_widths=(8, 8), **changes,
    )  # fmt: skip
    return config, official_state(Equiformer(config, key=jax.random.key(1)))


@pytest.mark.slow
def test_a_checkpoint_goes_in_and_out_unchanged(tmp_path):
    _, state = _small_state()
    np.savez(tmp_path / "official.npz", **state)
    report = convert(tmp_path / "official.npz", tmp_path / "model")
    assert report.matched is None
    assert report.num_parameters == sum(array.size for array in state.values())
    export(tmp_path / "model", tmp_path / "back.npz")
    back = np.load(tmp_path / "back.npz")
    assert list(back.files) == list(state)
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array.astype(np.float32))


@pytest.mark.parametrize("changes", [{}, {"message": "linear"}, {"message": "linear", "attention": "dot"}])
def test_sizes_are_read_off_names_and_shapes(changes):
    config, state = _small_state(**changes)
    fields, notes = infer_fields(state)
    names = {"irreps", "irreps_sh", "irreps_head", "irreps_mlp", "irreps_feature", "num_heads", "num_layers", "message"}
    if config.attention == "dot":
        # Queries of 2 heads of 6 scalars and of 4 heads of 3 have the same shapes.
        assert any("number of heads" in note for note in notes)
        names -= {"num_heads", "irreps_head"}
    assert {name: fields[name] for name in names} == {name: getattr(config, name) for name in names}


def test_a_preset_is_recognised():
    state = official_state(Equiformer(preset("qm9-l2-bessel"), key=jax.random.key(0)))
    assert model_from_state(state)[1].matched == "qm9-l2-bessel"


@pytest.mark.parametrize("case", [case for case in SMALL if not case.endswith("e3")])
def test_stored_models_are_recognised(parity_folder, case):
    import json

    fields, _ = infer_fields(read_state(parity_folder / case / "state_f32.npz"))
    stored = json.loads((parity_folder / case / "meta.json").read_text())["config"]
    names = {"irreps": "irreps_node_embedding", "irreps_head": "irreps_head", "irreps_mlp": "irreps_mlp_mid"}
    assert {ours: fields[ours] for ours in names} == {ours: stored[theirs] for ours, theirs in names.items()}


@pytest.mark.slow
def test_a_converted_model_predicts_the_official_energies(parity_folder, tmp_path):
    folder = parity_folder / "qm9_small_bessel"
    convert(folder / "state_f32.npz", tmp_path / "model")
    potential = jax.tree.map(
        lambda x: x.astype(np.float64) if eqx.is_inexact_array(x) else x, load_model(tmp_path / "model").task
    )
    graph = to_device(graph_of(np.load(folder / "inputs_main.npz")), np.float64)
    energy = eqx.filter_jit(potential)(graph, forces=False)["energy"]
    np.testing.assert_allclose(energy, np.load(folder / "outputs_f64_main.npz")["out.energy"][:, 0], rtol=1e-9)


def test_what_is_not_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        convert(tmp_path / "absent.npz", tmp_path / "model")
    (tmp_path / "junk.npz").write_bytes(b"not a zip")
    with pytest.raises(UserError, match="not a readable"):
        convert(tmp_path / "junk.npz", tmp_path / "model")
    np.savez(tmp_path / "other.npz", weight=np.zeros(3))
    with pytest.raises(UserError, match="holds no Equiformer parameters"):
        convert(tmp_path / "other.npz", tmp_path / "model")
    np.savez(tmp_path / "pickled.npz", **{"blocks.0.x": np.array([{}], dtype=object)})
    with pytest.raises(UserError, match="not a readable"):
        convert(tmp_path / "pickled.npz", tmp_path / "model")
    _, state = _small_state()
    del state["head.0.tp.weight"]
    np.savez(tmp_path / "incomplete.npz", **state)
    with pytest.raises(UserError, match=r"missing head\.0\.tp\.weight"):
        convert(tmp_path / "incomplete.npz", tmp_path / "model")


def test_our_own_presets_are_not_exported(tmp_path):
    config = preset("tiny", elements=(1, 6))
    save_model(tmp_path / "model", Potential(Equiformer(config, key=jax.random.key(0))), {})
    with pytest.raises(UserError, match="would compute something else"):
        export(tmp_path / "model", tmp_path / "out.npz")


def test_a_file_that_is_no_checkpoint_is_said_to_be_none(tmp_path):
    path = tmp_path / "data.xyz"
    path.write_text("1\n\nH 0 0 0\n")
    with pytest.raises(UserError, match=r"neither an \.npz of named arrays nor a PyTorch file"):
        read_state(path)


def test_the_scale_and_shift_that_are_given_are_those_that_are_reported() -> None:
    from equiform.models.equiformer import EquiformerConfig
    from equiform.persist.official.convert import ConversionReport

    report = ConversionReport(EquiformerConfig(elements=(1, 6)), None, 5, (), ())
    assert "set --scale and --shift" in report.lines()[-1]
    given = ConversionReport(EquiformerConfig(elements=(1, 6)), None, 5, (), (), scale=0.21, shift=-17630.5)
    assert given.lines()[-1] == "energy = 0.21 eV × output + -17630.5 eV per structure"
