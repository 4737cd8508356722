"""`width`: one number that scales every preset; 1 changes nothing, 2 about quadruples the parameters."""

import equinox as eqx
import jax
import numpy as np
import pytest

from equiform.errors import UserError
from equiform.models import MODELS, build_model, parse_config
from equiform.models.presets import ALL_PRESETS, preset
from equiform.models.width import widened

WITHOUT = [name for name, fields in ALL_PRESETS.items() if fields.get("name") == "linear"]
"""A linear map has no hidden sizes."""
WIDENED = [name for name in ALL_PRESETS if name not in WITHOUT]


def of(name, **changes):
    elements = None if "elements" in ALL_PRESETS[name] else (1, 6, 8)
    return preset(name, elements=elements, **changes)


def num_parameters(config):
    """Counted from shapes alone: nothing is initialised."""
    shapes = eqx.filter_eval_shape(lambda key: build_model(config, key=key), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(shapes, lambda x: hasattr(x, "size"))))


@pytest.mark.parametrize("name", ALL_PRESETS)
def test_a_width_of_one_changes_nothing(name):
    assert of(name, width=1) == of(name) == widened(of(name), 1.0)


@pytest.mark.parametrize("name", WIDENED)
def test_every_preset_can_be_twice_as_wide(name):
    once, twice = of(name), of(name, width=2)
    changed = {field for field, value in once.model_dump().items() if twice.model_dump()[field] != value}
    assert changed == {field for field in type(once).width_fields if getattr(once, field) is not None}


SAMPLES = ("tiny", "md17-l2", "equiformer-nbody", "egnn-nbody", "torchmd-et-md17", "se3-transformer-nbody", "demetar-nbody")
BASELINES = ("set-transformer-nbody", "transformer-nbody", "deep-sets-nbody")


@pytest.mark.parametrize("name", [*SAMPLES, *BASELINES])
def test_parameters_grow_quadratically(name):
    counts = [num_parameters(of(name, width=width)) for width in (1, 2, 3, 4)]
    # a + b w + c w²: no third difference, and c of weight. The attentive self-interaction alone has a cubic part.
    attentive = getattr(of(name), "last_self_interaction", None) == "attentive"
    assert abs(np.diff(counts, 3)[0]) <= (0.05 * counts[0] if attentive else 0)
    assert np.diff(counts, 2)[0] / 2 > 0.3 * counts[0]


def test_only_what_is_declared_is_scaled():
    twice = of("tiny", width=2)
    assert twice.irreps == "64x0e+32x1e+16x2e"
    assert twice.irreps_head == "32x0e+16x1e+8x2e"
    assert twice.radial_widths == (64, 64)
    assert (twice.num_heads, twice.num_layers, twice.num_basis, twice.irreps_message) == (2, 2, 32, None)


def test_fractions_are_rounded_to_what_heads_can_share():
    assert of("torchmd-et-md17", width=0.7).channels == 88  # 89.6, in eighths
    assert of("se3-transformer-nbody", width=1.4).channels == 8  # 11.2, in eighths: division 4, 2 heads
    assert of("tiny", width=1.1).irreps == "35x0e+18x1e+9x2e"


def test_given_fields_stay_as_given():
    assert of("tiny", width=2, irreps_mlp="10x0e").irreps_mlp == "10x0e"


@pytest.mark.parametrize("width", [0, -1, float("nan"), float("inf")])
def test_a_width_must_be_a_positive_number(width):
    with pytest.raises(UserError, match="width must be a positive number"):
        of("tiny", width=width)


def test_a_width_that_leaves_nothing_is_refused():
    with pytest.raises(UserError, match=r"a width of 0\.05 reduces the 8 in irreps=32x0e\+16x1e\+8x2e below one"):
        of("tiny", width=0.05)
    with pytest.raises(UserError, match=r"reduces the 128 in channels below 8 \(it must be divisible\)"):
        of("torchmd-et-md17", width=0.01)


@pytest.mark.parametrize("name", WITHOUT)
def test_what_has_no_width_says_so(name):
    with pytest.raises(UserError, match="linear has no channels or hidden sizes"):
        of(name, width=2)


def test_every_model_says_what_its_width_is():
    for name, (config, _) in MODELS.items():
        assert set(config.width_fields) <= set(config.model_fields), name
        assert bool(config.width_fields) == (name != "linear")
        # Fields that hold sizes are all declared.
        starts = ("irreps", "radial_widths", "scalars")
        sizes = {field for field in config.model_fields if "channels" in field or field.startswith(starts)}
        assert sizes - {"irreps_sh"} == set(config.width_fields), name


def test_architectures_by_name_can_be_wider():
    for name in MODELS:
        if name != "linear":
            assert widened(parse_config({"name": name, "elements": (0, 1)}), 2).name == name
