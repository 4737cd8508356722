"""Recipes: what is wrong is told with its place and the key that was meant; what is right is kept exactly."""

import json
from pathlib import Path

import pytest

from equiform.data.formats.shipped import shipped_data
from equiform.errors import UserError
from equiform.recipes.schema import (
    ModelChoice,
    builtin_recipes,
    data_on_disk,
    find_recipe,
    json_schema,
    load_recipe,
    model_config,
)
from equiform.recipes.yaml_lines import dump, load_with_lines, parse_value

GOOD = """\
data:
  train: data.xyz
  test: {hot: hot.xyz}
model:
  preset: tiny
  num_layers: 3
training:
  learning_rate: 1e-3
  losses:
    forces: {weight: 5}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def error_of(path: Path | None, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-2.", -2.0),
        ("4", 4),
        ("010", 10),
        ("1_000", 1000),
        ("true", True),
        ("no", "no"),
        ("No", "No"),
        ("2024-01-01", "2024-01-01"),
        ("null", None),
        ("", None),
        ("'4'", "4"),
        ("[1, 2e-5]", [1, 2e-5]),
        ("{H: -13.6}", {"H": -13.6}),
    ],
)
def test_scalars_are_read_as_people_mean_them(text, value):
    read = parse_value(text)
    assert read == value and type(read) is type(value)


def test_what_is_dumped_is_read_back_the_same(tmp_path):
    tree = {"a": {"b": 1e-30, "c": "1e-3", "d": "no", "e": "true", "f": None, "Å": [1, "x: y", 0.1 + 0.2]}}
    path = write(tmp_path, dump(tree))
    assert load_with_lines(path)[0] == tree


def test_a_good_recipe_is_read(tmp_path):
    recipe, _ = load_recipe(write(tmp_path, GOOD))
    assert recipe.training.learning_rate == 1e-3
    assert recipe.training.losses.forces is not None and recipe.training.losses.forces.weight == 5
    assert recipe.model.fields == {"num_layers": 3}
    assert recipe.data.train == str(tmp_path / "data.xyz")
    assert recipe.data.test == {"hot": str(tmp_path / "hot.xyz")}


def test_an_effective_recipe_reads_back_the_same(tmp_path):
    recipe, _ = load_recipe(write(tmp_path, GOOD))
    again, _ = load_recipe(write(tmp_path, recipe.to_yaml()))
    assert again == recipe


@pytest.mark.parametrize(
    ("wrong", "line", "parts"),
    [
        (GOOD.replace("learning_rate", "learning_rat"), 8, ["learning_rat", "did you mean 'learning_rate'?"]),
        (GOOD.replace("num_layers", "num_layer"), 6, ["num_layer", "did you mean 'num_layers'?"]),
        (GOOD.replace("training:", "trainig:"), 7, ["trainig", "did you mean 'training'?"]),
        (GOOD.replace("weight: 5", "wieght: 5"), 10, ["wieght", "training.losses.forces", "'weight'"]),
        (GOOD.replace("1e-3", "fast"), 8, ["training.learning_rate", "valid number", "'fast'"]),
        (GOOD.replace("1e-3", "-1"), 8, ["training.learning_rate", "greater than 0", "-1"]),
        (
            GOOD.replace("num_layers: 3", "num_layers: many"),
            6,
            ["model.num_layers", "valid integer", "'many'"],
        ),
        (GOOD.replace("preset: tiny", "preset: tinny"), 5, ["'tinny'", "did you mean 'tiny'?"]),
        (GOOD.replace("test: {hot: hot.xyz}", "test: 3"), 3, ["data.test", "3 was given"]),
        (GOOD + "batch_size: 4\n", 11, ["batch_size", "did you mean 'training.batch_size'?"]),
        (GOOD + "data:\n  train: x\n", 11, ["'data' was already given on line 1"]),
        (GOOD.replace("{weight: 5}", "{weight: 5"), 11, ["not valid YAML"]),
        (GOOD.replace("train: data.xyz", "train: [a.xyz, 7]"), 2, ["data.train", "7 was given"]),
    ],
)
def test_a_mistake_is_told_with_file_line_and_what_was_meant(tmp_path, wrong, line, parts):
    path = write(tmp_path, wrong)
    message = error_of(path)
    assert message.startswith(f"{path}:{line}: "), message
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_every_mistake_is_told(tmp_path):
    path = write(tmp_path, GOOD.replace("1e-3", "fast").replace("train: data", "trian: data"))
    lines = error_of(path).splitlines()
    assert len(lines) == 3 and "trian" in " ".join(lines) and "data.train is missing" in " ".join(lines)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.batchsize=4", ["'training.batchsize=4': ", "did you mean 'batch_size'?"]),
        ("training.batch_size=four", ["'training.batch_size=four': ", "valid integer", "'four'"]),
        ("model.num_layer=4", ["'model.num_layer=4': ", "did you mean 'num_layers'?"]),
        ("batch_size=4", ["'batch_size=4'", "section.key=value", "did you mean 'training.batch_size'?"]),
        ("x.xyz", ["'x.xyz'", "section.key=value"]),
        ("data.train.x=4", ["'data.train.x=4'", "data.train is a value"]),
        ("model.irreps=[", ["'model.irreps=['", "cannot be parsed"]),
        ("model.irreps=8x0f", ["'model.irreps=8x0f'", "8x0f"]),
    ],
)
def test_a_mistaken_override_is_told_with_its_text(tmp_path, override, parts):
    message = error_of(write(tmp_path, GOOD), override)
    for part in parts:
        assert part in message, message


def test_overrides_win_and_are_typed(tmp_path):
    path = write(tmp_path, GOOD)
    changes = [
        "model.num_layers=4",
        "training.max_minutes=5",
        "training.losses.forces=null",
        "data.test.hot=b.xyz",
    ]
    recipe, _ = load_recipe(path, changes)
    assert recipe.model.fields["num_layers"] == 4
    assert recipe.training.max_minutes == 5.0
    assert recipe.training.losses.forces is None
    assert recipe.data.test == {"hot": str(Path.cwd() / "b.xyz")}


def test_a_preset_on_the_command_line_replaces_a_name_in_the_file(tmp_path):
    recipe, _ = load_recipe(write(tmp_path, GOOD.replace("preset: tiny", "name: equiformer")), ["model.preset=small"])
    assert recipe.model.preset == "small" and recipe.model.name is None


def test_data_paths_are_relative_to_the_recipe_or_else_to_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "here.xyz").touch()
    (tmp_path / "recipes" / "beside.xyz").touch()
    monkeypatch.chdir(tmp_path)
    text = "data: {train: ['beside.xyz@:10', here.xyz, 'equiform:a.xyz', '*.xyz']}"
    recipe, _ = load_recipe(write(tmp_path / "recipes", text))
    assert recipe.data.train == [
        str(tmp_path / "recipes/beside.xyz@:10"),
        str(tmp_path / "here.xyz"),
        "equiform:a.xyz",
        str(tmp_path / "recipes/*.xyz"),
    ]


def test_a_model_section_becomes_a_configuration():
    config = model_config(ModelChoice(preset="tiny", num_layers=7), elements=(1, 8), preset_if_auto=None)
    assert config.num_layers == 7 and config.elements == (1, 8)
    auto = model_config(ModelChoice(preset="auto"), elements=(1,), preset_if_auto="tiny")
    assert auto == model_config(ModelChoice(preset="tiny"), elements=(1,), preset_if_auto=None)


def test_one_word_chooses_an_architecture_or_a_preset(tmp_path):
    path = write(tmp_path, GOOD)
    recipe, _ = load_recipe(path, ["model=egnn", "model.channels=8"])
    assert recipe.model.name == "egnn" and recipe.model.preset is None
    recipe, _ = load_recipe(path, ["model=egnn-nbody"])
    assert recipe.model.preset == "egnn-nbody" and recipe.model.name is None
    message = error_of(path, "model=smal")
    assert "there is no preset 'smal'; did you mean 'small'?" in message


def test_name_and_preset_together_are_refused(tmp_path):
    message = error_of(write(tmp_path, GOOD.replace("preset: tiny", "preset: tiny\n  name: equiformer")))
    assert "both given" in message


def test_shipped_data_are_found_by_name():
    with pytest.raises(UserError, match="no such data file"):
        shipped_data("nothing.extxyz")
    recipe, _ = load_recipe(None, ["data.train=equiform:nothing.extxyz"])
    with pytest.raises(UserError, match="no such data file"):
        data_on_disk(recipe.data)


def test_builtin_recipes_are_valid_and_listed():
    assert "ethanol" in builtin_recipes()
    for path in builtin_recipes().values():
        load_recipe(path)
    with pytest.raises(UserError, match="did you mean 'ethanol'"):
        find_recipe("etanol")


def test_the_schema_has_every_key_with_a_description():
    schema = json.loads(json.dumps(json_schema()))
    definitions = schema["$defs"]
    assert definitions["ModelChoice"]["additionalProperties"] is False
    assert {"preset", "name", "num_layers", "cutoff"} <= set(definitions["ModelChoice"]["properties"])
    for name in ("DataConfig", "TrainingConfig"):
        for key, entry in definitions[name]["properties"].items():
            assert entry.get("description"), f"{name}.{key}"


def test_files_that_are_no_recipes_are_refused(tmp_path):
    assert "no such file" in error_of(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert "not a text file" in error_of(tmp_path / "binary.yaml")
    assert "mapping of sections" in error_of(write(tmp_path, "- a\n- b\n"))
    assert "refers to itself" in error_of(write(tmp_path, "data: &a [*a]\n"))
    assert "data is missing" in error_of(write(tmp_path, "")) or "data.train" in error_of(write(tmp_path, ""))


def test_a_width_scales_the_preset_and_is_not_stored_beside_what_it_made():
    wide = model_config(ModelChoice(preset="tiny", width=2), elements=(1, 8), preset_if_auto=None)
    assert wide.irreps == "64x0e+32x1e+16x2e"
    assert model_config(ModelChoice(preset="tiny", width=1), (1, 8), None) == model_config(
        ModelChoice(preset="tiny"), (1, 8), None
    )
    given = model_config(ModelChoice(name="egnn", width=0.5, num_layers=2), elements=(1,), preset_if_auto=None)
    assert (given.channels, given.num_layers) == (64, 2)
    effective = ModelChoice(**wide.model_dump(mode="json"))
    assert effective.width is None
    assert model_config(effective, elements=(1, 8), preset_if_auto=None) == wide


def test_a_width_that_cannot_be_is_told_with_its_place():
    none = error_of(None, "data.train=a.xyz", "model.width=0")
    assert none.startswith("'model.width=0': model.width should be greater than 0")
    little = error_of(None, "data.train=a.xyz", "model.width=.01")
    assert "'model.width=.01': model.width=0.01: a width of 0.01 reduces" in little
    assert "did you mean 'width'" in error_of(None, "data.train=a.xyz", "model.widht=2")
    scaled = ("model.name=egnn", "model.channels=32", "model.width=2")
    assert "model.width=2 has nothing to scale: channels are given too" in error_of(None, "data.train=a.xyz", *scaled)
