"""Fine-tuning: the old model is kept where it should be, and its energies are moved to the new level of theory."""

import json
import shutil
from pathlib import Path

import ase.io
import equinox as eqx
import jax
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from equiform.deploy.predictor import load
from equiform.errors import UserError
from equiform.jobs import finetune
from equiform.jobs.train import resume
from equiform.models import build_model, parse_config
from equiform.models.presets import preset
from equiform.persist.modelfile import load_model, save_model
from equiform.persist.parameters import named, split, with_dtype
from equiform.persist.transfer import with_elements
from equiform.recipes.schema import load_recipe
from equiform.tasks.energy import Potential
from equiform.training.config import TrainingConfig
from equiform.training.frozen import free_mask, num_free
from tests.jobs.tuned import interrupted, run, write

OLD = {"H": -13.0, "O": -2000.0, "N": -1500.0}
NEW = {"H": -14.0, "O": -2003.0, "N": -1502.0}
STEPS = ["training.max_steps=4", "training.checkpoint_every=2", "data.validation=0.25"]
EQUIFORMER = {"name": "equiformer", "elements": (1, 8), "num_layers": 3, "irreps": "4x0e+2x1e", "irreps_sh": "1x0e+1x1e"}
EQUIFORMER |= {"irreps_head": "2x0e+2x1e", "irreps_mlp": "4x0e+2x1e", "irreps_feature": "4x0e", "num_heads": 1}
EQUIFORMER |= {"num_basis": 4, "radial_widths": (4,)}
TORCHMD = {"name": "torchmd-et", "elements": (8, 1), "num_layers": 2, "channels": 8, "num_heads": 2, "num_basis": 4}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """An untrained model: what matters is that its energies are known."""
    folder = tmp_path_factory.mktemp("base")
    model = build_model(parse_config(TORCHMD | {"cutoff": 3.0}), key=jax.random.key(0))
    task = Potential(with_dtype(model, "float64"), scale=0.5, elements=(1, 8), cohesion=(-0.1, -0.2), anchored=True)
    return save_model(folder / "model", task, {1: OLD["H"], 8: OLD["O"]}, {})


def data_of(base: Path, path: Path, count: int, seed: int, offsets: dict[str, float]) -> Path:
    """Water with the energies of the model, at the level of theory of these reference energies; no forces, to compile less."""
    frames = ase.io.read(write(path, "H2O", count, seed, OLD), ":")
    predictions = load(base, dtype="float64").predict(frames)
    for atoms, prediction in zip(frames, predictions):
        shift = sum(offsets[symbol] - OLD[symbol] for symbol in atoms.get_chemical_symbols())
        atoms.calc = SinglePointCalculator(atoms, energy=prediction.energy + shift)
    ase.io.write(path, frames, format="extxyz")
    return path


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    """Water at another level of theory: other reference energies, the same interactions."""
    folder = tmp_path_factory.mktemp("tuned")
    data, old = data_of(base, folder / "new.xyz", 12, 1, NEW), data_of(base, folder / "old.xyz", 3, 2, OLD)
    settings = [f"from={base}", "freeze=embedding,blocks[:1]", "training.dtype=float64", "training.batch_size=4"]
    settings += [f"finetune.old_test={old}", f"finetune.replay={old}", *STEPS]
    return *run(folder / "run", data, *settings), folder / "run"


@pytest.fixture(scope="module")
def adapted(base, tmp_path_factory):
    """The same water, learnt with adapters."""
    folder = tmp_path_factory.mktemp("adapted")
    data = data_of(base, folder / "new.xyz", 12, 1, NEW)
    settings = [f"from={base}", "adapters=1", "training.dtype=float64", "training.batch_size=4", *STEPS]
    return *run(folder / "run", data, *settings), folder / "run"


@pytest.fixture(scope="module")
def headed(base, tmp_path_factory):
    """Water at a level whose energies are not those of the old one, with a readout for each."""
    folder = tmp_path_factory.mktemp("headed")
    data, old = write(folder / "new.xyz", "H2O", 12, 1, NEW), data_of(base, folder / "old.xyz", 6, 2, OLD)
    settings = [f"from={base}", "finetune.keep_head=true", f"finetune.replay={old}", f"finetune.old_test={old}"]
    settings += ["training.optimizer=muon"]
    settings += ["training.dtype=float64", "training.batch_size=4", "training.losses.forces=null", *STEPS]
    return *run(folder / "run", data, *settings), folder / "run"


def tasks(**fields):
    config = parse_config(fields)
    return Potential(build_model(config, key=jax.random.key(0)))


def mask_of(task, *frozen):
    return named(free_mask(task, split(task)[0], frozen))


def test_blocks_are_frozen_row_by_row():
    masks = mask_of(tasks(**EQUIFORMER), "embedding", "blocks[:2]")
    assert not masks["model.species_embedding.bias"].any()
    rows = next(mask for name, mask in masks.items() if name.startswith("model.attention_layers"))
    assert rows.ravel().tolist() == [False, False, True]
    rows = next(mask for name, mask in masks.items() if name.startswith("model.feed_forwards"))
    assert rows.ravel().tolist() == [False, False]  # of all blocks but the last one
    assert all(mask.all() for name, mask in masks.items() if name.startswith(("model.last_feed_forward", "model.energy")))


def test_the_last_block_has_its_own_feed_forward_network():
    task = tasks(**EQUIFORMER)
    masks = mask_of(task, "blocks[-1]")
    assert not any(mask.any() for name, mask in masks.items() if name.startswith("model.last_feed_forward"))
    assert all(mask.all() for name, mask in masks.items() if name.startswith("model.feed_forwards"))
    params = split(task)[0]
    assert num_free(free_mask(task, params, ["readout"]), params) == sum(
        leaf.size for name, leaf in named(params).items() if name.split(".")[1] not in ("norm", "energy_hidden", "energy_out")
    )


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("head", "no part 'head'"),
        ("blocks[9]", "no block 9"),
        ("em bedding", "not a part"),
        ("readout[0]", "cannot be divided"),
    ],
)
def test_a_part_that_is_not_there_is_named(part, said):
    with pytest.raises(UserError, match=said):
        mask_of(tasks(**TORCHMD), part)


def test_nothing_left_to_train_is_an_error():
    with pytest.raises(UserError, match="nothing is left to train"):
        mask_of(tasks(**TORCHMD), "embedding", "blocks", "readout")


@pytest.mark.parametrize("fields", [TORCHMD, EQUIFORMER], ids=["torchmd-et", "equiformer"])
def test_old_elements_keep_their_weights(fields):
    model = build_model(parse_config(fields), key=jax.random.key(0))
    wide = with_elements(model, (1, 6, 8), seed=3)
    assert wide.config.elements == (*fields["elements"], 6)
    old, new = (named(eqx.filter(m, eqx.is_inexact_array)) for m in (model, wide))
    assert old.keys() == new.keys()
    grown = [name for name in old if old[name].shape != new[name].shape]
    assert grown
    for name in old:
        assert np.array_equal(old[name], new[name][tuple(slice(size) for size in old[name].shape)]), name
    for name in grown:
        assert np.abs(np.asarray(new[name])[-1]).max() > 0


@pytest.mark.slow  # It trains.
def test_reference_energies_move_to_the_new_level_of_theory(tuned):
    outcome, lines, folder = tuned
    found = load_model(folder / "best").reference_energies
    # One composition: the change of its sum is known, and the smallest such change is twice as large for H as for O.
    change = 2 * (NEW["H"] - OLD["H"]) + NEW["O"] - OLD["O"]
    assert found[1] - OLD["H"] == pytest.approx(2 * change / 5, abs=1e-6)
    assert found[8] - OLD["O"] == pytest.approx(change / 5, abs=1e-6)
    assert any("refitted" in line and "(was" in line for line in lines)
    # Before any training no error is left, on the new data or on the old.
    for name in ("validation, before", "old data, before"):
        assert outcome.errors[name]["energy_per_atom"]["mae"] < 1e-6
    assert set(outcome.errors) == {"validation", "old data", "validation, before", "old data, before"}


@pytest.mark.slow  # It trains.
def test_frozen_parts_do_not_move_and_others_do(tuned):
    _, _, folder = tuned
    start, end = (named(load_model(folder / name).task.model) for name in ("start", "last"))
    for name in start:
        if name.startswith(("embedding", "neighbor_embedding")):
            assert np.array_equal(start[name], end[name]), name
    weight = "layers.query.weight"
    assert np.array_equal(start[weight][0], end[weight][0])
    assert not np.array_equal(start[weight][1], end[weight][1])


@pytest.mark.slow  # It trains.
def test_a_tenth_of_the_learning_rate_is_the_default(tuned):
    _, lines, folder = tuned
    assert any("training.learning_rate=5e-05" in line for line in lines)
    assert load_recipe(folder / "recipe.yaml")[0].training.learning_rate == pytest.approx(5e-5)


@pytest.mark.slow  # It trains.
def test_an_interrupted_run_resumes_exactly(tuned, base, tmp_path):
    _, _, folder = tuned
    copy = interrupted(folder, tmp_path / "copy")
    resume(copy, [], say=str, warn=str, progress=False)
    ends = [named(load_model(place / "last").task.model) for place in (folder, copy)]
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])
    errors = [json.loads((place / "errors.json").read_text()) for place in (folder, copy)]
    assert errors[0] == errors[1]


@pytest.mark.slow  # It trains.
def test_adapters_start_from_the_old_model_and_change_each_map_by_their_rank(adapted):
    outcome, lines, folder = adapted
    assert any("training.learning_rate=0.0005" in line for line in lines)  # not a tenth of it
    assert outcome.errors["validation, before"]["energy_per_atom"]["mae"] < 1e-6
    start, end = (load_model(folder / name).task.model for name in ("start", "last"))
    assert start.config == end.config  # an ordinary model
    start, end = named(split(start)[0]), named(split(end)[0])
    for name in ("query", "keys", "values", "out", "vectors"):
        change = np.asarray(end[f"layers.{name}.weight"]) - np.asarray(start[f"layers.{name}.weight"])
        # The first block has no vectors to map yet.
        assert np.linalg.matrix_rank(change, tol=1e-12).tolist() == [int(name != "vectors"), 1], name
    frozen = [name for name in start if name.startswith("layers.") and not name.endswith(".weight")]
    assert frozen
    assert all(np.array_equal(start[name], end[name]) for name in [*frozen, "layers.norm.weight"])


@pytest.mark.slow  # It trains.
def test_a_model_with_merged_adapters_is_equivariant(adapted):
    from scipy.spatial.transform import Rotation

    predictor = load(adapted[2] / "last", dtype="float64")
    atoms = ase.io.read(adapted[2].parent / "new.xyz")
    rotation = Rotation.random(random_state=0).as_matrix()
    turned = atoms.copy()
    turned.positions = atoms.positions @ rotation.T
    one, two = predictor.predict([atoms, turned])
    assert one.interaction_energy == pytest.approx(two.interaction_energy, abs=1e-10)
    assert np.allclose(one.forces @ rotation.T, two.forces, rtol=0, atol=1e-10)


@pytest.mark.slow  # It trains.
def test_interrupted_adapters_resume_exactly_and_on_their_own_model_only(adapted, tmp_path):
    _, _, folder = adapted
    copy = interrupted(folder, tmp_path / "copy")
    other = interrupted(folder, tmp_path / "other")
    resume(copy, [], say=str, warn=str, progress=False)
    ends = [named(load_model(place / "last").task.model) for place in (folder, copy)]
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])
    begin = load_model(other / "start")
    moved = jax.tree.map(lambda leaf: 1.5 * leaf if isinstance(leaf, jax.Array) else leaf, begin.task)
    save_model(other / "start", moved, begin.reference_energies, begin.metadata, overwrite=True)
    with pytest.raises(UserError, match="its adapters are of another model") as error:
        resume(other, [], say=str, warn=str, progress=False)
    assert "\n" not in str(error.value)


@pytest.mark.slow  # It trains.
def test_a_kept_head_ends_as_a_model_of_the_old_level(headed):
    outcome, _, folder = headed
    new, old = load_model(folder / "best"), load_model(folder / "best-old-head")
    assert old.reference_energies == pytest.approx({1: OLD["H"], 8: OLD["O"]})
    assert new.reference_energies[1] != pytest.approx(OLD["H"], abs=0.1)
    assert new.task.model.config == old.task.model.config
    ours, theirs, start = (named(split(task.model)[0]) for task in (new.task, old.task, load_model(folder / "start").task))
    differ = {name for name in ours if not np.array_equal(ours[name], theirs[name])}
    assert {"norm.weight", "blocks.0.mix.first.weight"} < differ
    assert all(name.startswith(("norm", "blocks")) for name in differ)  # the readout
    assert not np.array_equal(start["norm.weight"], theirs["norm.weight"])
    assert not np.array_equal(start["embedding"], theirs["embedding"])
    assert {"validation", "old data", "old data, old head", "old data, before"} < set(outcome.errors)
    assert outcome.errors["old data, before"]["energy_per_atom"]["mae"] < 1e-6


@pytest.mark.slow  # It trains.
def test_an_interrupted_run_with_two_heads_resumes_exactly(headed, tmp_path):
    folder = headed[2]
    copy = interrupted(folder, tmp_path / "copy")
    shutil.rmtree(copy / "best-old-head")
    resume(copy, [], say=str, warn=str, progress=False)
    for name in ("last", "last-old-head", "best-old-head"):
        ends = [named(load_model(place / name).task.model) for place in (folder, copy)]
        assert all(np.array_equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "give finetune.replay=FILE"),
        (["finetune.replay=old.xyz", "adapters=2"], "cannot be combined with training.adapters"),
        (["finetune.replay=old.xyz", "training.losses.energy=null"], "training.losses.energy is off"),
    ],
)
def test_a_kept_head_with_a_setting_that_excludes_it_is_one_clear_line(base, tmp_path, settings, said):
    with pytest.raises(UserError, match=said) as error:
        run(tmp_path / "run", tmp_path / "none.xyz", f"from={base}", "finetune.keep_head=true", *settings)
    assert "\n" not in str(error.value)


def test_adapters_need_a_model_to_adapt(tmp_path):
    with pytest.raises(UserError, match=r"training.adapters=4: .*give from=MODEL"):
        run(tmp_path / "run", tmp_path / "none.xyz", "adapters=4")


def test_a_new_element_needs_a_reference_energy(base, tmp_path):
    data = write(tmp_path / "ammonia.xyz", "NH3", 6, 3, NEW)
    with pytest.raises(
        UserError, match=r"N: new to the model, and the compositions of .* do not determine .*reference_energies=\{N: …\}"
    ):
        run(tmp_path / "run", data, f"from={base}", *STEPS)


@pytest.mark.slow
def test_a_new_element_with_its_reference_energy_is_learnt(base, tmp_path):
    data = write(tmp_path / "ammonia.xyz", "NH3", 8, 3, NEW)
    settings = [f"from={base}", "training.dtype=float64", "data.reference_energies={H: -14.0, N: -1502.0}", *STEPS]
    outcome, lines = run(tmp_path / "run", data, *settings)
    assert load_model(outcome.model).task.known_elements == (1, 7, 8)
    assert any(line.startswith("new elements: N") for line in lines)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["from=nowhere"], "no such model"),
        (["model=tiny"], "the model is that of from="),
        (["data.reference_energies=none"], "needs reference energies"),
        (["finetune.replay=gone.xyz"], "finetune.replay="),
        (["finetune.replay_structures=20"], "finetune.replay_structures .* give finetune.replay=FILE"),
        (["finetune.replay_labels=model"], "finetune.replay_labels .* give finetune.replay=FILE"),
        (["freeze=nothing"], "no part 'nothing'"),
    ],
    ids=["no model", "another model", "no references", "no replay file", "nothing to replay", "nothing to label", "no part"],
)
def test_bad_input_is_one_clear_line(base, tmp_path, settings, said):
    data = data_of(base, tmp_path / "new.xyz", 6, 1, NEW)
    with pytest.raises(UserError, match=said) as error:
        run(tmp_path / "run", data, f"from={base}", "training.dtype=float64", *STEPS, *settings)
    assert "\n" not in str(error.value)


def test_settings_are_those_of_the_preset_that_the_model_was_built_from():
    config = preset("tiny", elements=(1, 6))
    found = finetune._recommended(config, TrainingConfig())
    assert found["optimizer"] == "muon" and found["learning_rate"] == 1e-2
    assert finetune._recommended(config, TrainingConfig(adapters=4))["optimizer"] == "adam"
    assert finetune._recommended(preset("md17-l2"), TrainingConfig())["learning_rate"] == TrainingConfig().learning_rate
