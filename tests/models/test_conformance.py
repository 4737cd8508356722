"""Every model in `equiform.models`, in small, passes the public conformance suite; planted faults and false traits do not."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.models import MODELS, build_model
from equiform.models.api import E3, Model, ModelConfig, all_decay
from equiform.models.demetar import DEMETArConfig
from equiform.models.egnn import EGNNConfig
from equiform.models.equiformer import EquiformerConfig
from equiform.models.gatr_atoms import AtomsGATrConfig
from equiform.models.gatr_motion import MotionGATrConfig
from equiform.models.gatr_surface import SurfaceGATrConfig
from equiform.models.presets import preset
from equiform.models.se3_transformer import SE3TransformerConfig
from equiform.models.token_motion import TokenMotionConfig
from equiform.models.torchmd_et import TorchMDETConfig
from equiform.tasks.api import Task
from equiform.tasks.energy import Potential
from equiform.tasks.motion import Motion
from equiform.testing import check, checks_for
from tests.models.test_node_fields import TINY

_SMALL = {
    "elements": (1, 6, 8),
    "num_layers": 2,
    "irreps": "8x0e+4x1e+2x2e",
    "irreps_head": "4x0e+2x1e+1x2e",
    "irreps_mlp": "8x0e+4x1e+2x2e",
    "irreps_feature": "8x0e+2x1e",
    "num_heads": 2,
    "basis": "exp",
    "num_basis": 8,
    "radial_widths": (8, 8),
    "vector_readouts": ("displacement",),
}
_TRUE_PARITY = _SMALL | {
    "irreps": "8x0e+2x0o+3x1e+4x1o+2x2e",
    "irreps_sh": "1x0e+1x1o+1x2e",
    "irreps_head": "4x0e+1x0o+1x1e+2x1o+1x2e",
    "irreps_mlp": "8x0e+2x0o+3x1e+4x1o+2x2e",
    "irreps_feature": "8x0e+2x1o",
    "basis": "gaussian",
}
_LINEAR = _SMALL | {"message": "linear", "vector_readouts": (), "irreps_feature": "8x0e", "basis": "bessel"}
_REFERENCE = _SMALL | {"norm": "per_degree", "cutoff_kind": "sharp", "num_tags": 3}

_ET = {"elements": (1, 6, 8), "num_layers": 2, "channels": 16, "num_heads": 4, "num_basis": 8}
_EGNN = {"elements": (1, 6, 8), "num_layers": 2, "channels": 16}
_DEMETAR = {"elements": (1, 6, 8), "channels": 16, "num_heads": 4, "num_basis": 8}
_SINGLE = {"node_layers": 1, "edge_layers": 1, "joint_layers": 1}
_SE3 = {"elements": (1, 6, 8), "channels": 8, "division": 2, "num_heads": 2, "num_basis": 8, "radial_width": 8}
_GATR = {"elements": (1, 6, 8), "channels": 4, "scalars": 8, "num_blocks": 2, "num_heads": 2}

_SE3_BODIES = {"l_max": 1, "channels": 4, "division": 2, "num_heads": 2, "num_layers": 1, "radial_width": 6}
_GATR_BODIES = {"channels": 2, "scalars": 8, "num_blocks": 2, "num_heads": 2}
_TOKENS = {"channels": 16, "num_blocks": 1, "num_heads": 2}
_DEMETAR_BODIES = {"channels": 16, "num_heads": 4}

QUICK: dict[str, Any] = {
    "equiformer": EquiformerConfig(**_SMALL),
    "egnn": EGNNConfig(**_EGNN, vector_readouts=("displacement",)),
    "torchmd-et": TorchMDETConfig(**_ET, vector_readouts=("displacement",)),
    "se3-transformer": SE3TransformerConfig(**_SE3, num_layers=2, l_max=1, vector_readouts=("displacement",)),
    "demetar": DEMETArConfig(**_DEMETAR, **_SINGLE, vector_readouts=("displacement",)),
    "gatr": AtomsGATrConfig(**_GATR),
}
QUICK_BODIES = {
    "se3-transformer of bodies": preset("se3-transformer-nbody", **_SE3_BODIES),
    "linear": preset("linear-nbody"),
    "linear, with positions": preset("linear-nbody", form="vectors"),
    "linear, full": preset("linear-nbody", form="full"),
    "deep sets": preset("deep-sets-nbody", num_layers=2, channels=16),
    "set transformer": preset("set-transformer-nbody", num_layers=2, channels=16),
    "transformer, centred": preset("transformer-nbody", num_layers=2, channels=16, centred=True),
    "gatr of bodies": MotionGATrConfig(**_GATR_BODIES),
    "gatr of surfaces": SurfaceGATrConfig(**_GATR_BODIES),
    "tokens": TokenMotionConfig(**_TOKENS, centred=True, output="displacement"),
}
THOROUGH_BODIES = {
    "tensor field network of bodies": preset("tfn-nbody", **_SE3_BODIES),
    "se3-transformer of bodies, l = 2": preset("se3-transformer-nbody", **_SE3_BODIES | {"l_max": 2, "num_layers": 2}),
    "equiformer of bodies": preset("equiformer-nbody", **TINY | {"vector_readouts": ("displacement", "velocity_change")}),
    "egnn of bodies": preset("egnn-nbody", channels=8, num_layers=2),
    "demetar of bodies": preset("demetar-nbody", **_DEMETAR_BODIES),
    "gatr of bodies, as published": MotionGATrConfig(**_GATR_BODIES, centred=False, init="published"),
    "gatr of bodies, projective": MotionGATrConfig(**_GATR_BODIES, algebra="projective"),
    "gatr of bodies, euclidean": MotionGATrConfig(**_GATR_BODIES, algebra="euclidean"),
    "gatr of bodies, conformal": MotionGATrConfig(**_GATR_BODIES, algebra="conformal"),
    "tokens, as published": TokenMotionConfig(**_TOKENS),
    "tokens side by side": TokenMotionConfig(network="mlp", channels=16, num_bodies=9),
    "demetar, a number per velocity": preset("demetar-nbody", **_DEMETAR_BODIES, vectors="velocity", edges=False),
    "demetar, as released": preset("demetar-published", **_DEMETAR_BODIES | {"dropout": 0.0}),
    "demetar, positions in and out": preset("demetar-published", **_DEMETAR_BODIES | {"dropout": 0.0, "vectors": "position"}),
}
THOROUGH = {
    "se3-transformer, attentive self-interaction": SE3TransformerConfig(
        **_SE3,
        num_layers=2,
        true_parity=False,
        self_interaction="attentive",
        last_self_interaction="attentive",
        add_direction=True,
        vector_readouts=("displacement", "velocity_change"),
    ),
    "se3-transformer, as published": SE3TransformerConfig(
        **_SE3 | {"num_basis": 0},
        num_layers=2,
        true_parity=False,
        nonlinearity="norm",
        cutoff_kind="sharp",
        embed=False,
        species="with_number",
        readout="max",
    ),
    "tensor field network": SE3TransformerConfig(
        **_SE3, num_layers=2, attention=False, vector_readouts=("displacement",), edge_chunk=50
    ),
    "torchmd-et, as published": TorchMDETConfig(**_ET, vector_cutoff=False, vector_norm="plain"),
    "demetar, a token for the structure": DEMETArConfig(**_DEMETAR, scope="graph", readout="graph"),
    "demetar, distances to the centre": DEMETArConfig(
        **_DEMETAR, **_SINGLE, scope="graph", readout="graph", centre_distance=True
    ),
    "demetar, long and short rows": DEMETArConfig(**_DEMETAR, dropout=0.1, max_edges=3, vector_readouts=("displacement",)),
    "egnn, still and without a gate": EGNNConfig(**_EGNN, gate=False, species="powers"),
    "egnn, as published": EGNNConfig(**_EGNN, species="powers", readout="graph", cutoff_kind="sharp"),
    "gatr, projective": AtomsGATrConfig(**_GATR, algebra="projective"),
    "gatr, euclidean": AtomsGATrConfig(**_GATR, algebra="euclidean", multi_query=False),
    "gatr, conformal": AtomsGATrConfig(**_GATR, algebra="conformal"),
    "equiformer, true parity": EquiformerConfig(**_TRUE_PARITY),
    "equiformer, linear messages": EquiformerConfig(**_LINEAR),
    "equiformer, dot-product attention": EquiformerConfig(**_LINEAR, attention="dot"),
    "equiformer, as published": EquiformerConfig(**_REFERENCE),
    "equiformer, attention as the readout": EquiformerConfig(**_SMALL, energy_readout="attention"),
}
ALWAYS = (
    "symmetries_are_as_declared",
    "forces_are_the_gradient",
    "smooth_through_the_cutoff",
    "padding_changes_nothing",
    "batches_are_independent",
    "degenerate_edges_are_finite",
)
"""What the models that take long to compile are asked in the default tests; the slow tests ask everything of all."""

COSTLY = {
    "gatr": ("smooth_through_the_cutoff", "far_apart_is_additive", "forces_are_the_gradient"),
    "gatr of bodies": ("outputs_are_as_declared", "needed_fields_are_as_declared"),
    "gatr of surfaces": ("outputs_are_as_declared", "needed_fields_are_as_declared"),
    "tokens": ("outputs_are_as_declared", "batches_are_independent"),
}
"""The same for the slowest to compile: checks that share one program, or need none."""


def _is_quick(model: str, name: str) -> bool:
    # Operation by operation is slow: two minutes.
    if name == "compiled_equals_eager" or model in THOROUGH or model in THOROUGH_BODIES:
        return False
    if model in COSTLY:
        return name in COSTLY[model]
    return model in QUICK_BODIES or model not in ("se3-transformer", "demetar") or name in ALWAYS


def task_of(config: ModelConfig, model: Model) -> Task:
    """The potential of a model, or the motion if its preset is one of bodies."""
    if config.elements == (0,):
        return Motion(model)
    # Energies that are no sum over atoms have no energy of an isolated atom to subtract.
    return Potential(model, scale=2.0, elements=config.elements, anchored=config.traits.additive)


class _Shell(Model):
    """A model's traits without its parameters."""

    config: Any = eqx.field(static=True)

    def __call__(self, graph, *, key=None):
        raise NotImplementedError

    def decay_mask(self):
        return all_decay(self)


def _cases() -> Iterator[Any]:
    for model, config in {**QUICK, **QUICK_BODIES, **THOROUGH, **THOROUGH_BODIES}.items():
        for name in checks_for(task_of(config, _Shell(config))):
            yield pytest.param(config, name, id=f"{model}-{name}", marks=() if _is_quick(model, name) else pytest.mark.slow)


def test_every_model_is_listed_here():
    assert {config.name for config in (*QUICK.values(), *QUICK_BODIES.values())} == set(MODELS)


@pytest.fixture(scope="module")
def task(request) -> Task:
    config = request.param
    model = build_model(config, key=jax.random.key(0))
    if config.name == "linear":  # It begins at zero, where every symmetry holds.
        rng = np.random.default_rng(0)
        model = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)) if eqx.is_array(leaf) else leaf, model)
    return task_of(config, model)


@pytest.mark.parametrize(("task", "name"), list(_cases()), indirect=["task"])
def test_conforms(task, name):
    check(name, task)


class _Claiming(Model):
    """A model under traits that are not its own, or with a planted fault."""

    model: Model
    changes: Any = eqx.field(static=True)
    fault: str | None = eqx.field(static=True, default=None)

    @property
    def config(self):
        return self.model.config

    @property
    def traits(self):
        return replace(self.model.traits, **dict(self.changes))

    def __call__(self, graph, *, key=None):
        outputs = dict(self.model(graph, key=key))
        if self.fault is None:
            return outputs
        size = len(graph.species)
        along = graph.positions[graph.senders, 0] - graph.positions[graph.receivers, 0]
        faults = {
            "axis": graph.positions[:, 0],
            "forgotten mask": jax.ops.segment_sum(along**2, graph.receivers, size),
            "counted edges": jax.ops.segment_sum(graph.edge_mask.astype(along.dtype), graph.receivers, size),
            "structure": (graph.sum_over_atoms(jnp.ones_like(along[:0].sum() + graph.positions[:, 0])) ** 2)[graph.graph_index],
        }
        return outputs | {"energy": outputs["energy"] + faults[self.fault]}

    def decay_mask(self):
        return all_decay(self)


FAULTS = [
    ("axis", "symmetries_are_as_declared", "rotations are claimed"),
    ("axis", "only_edges_are_read", "differs by"),
    ("forgotten mask", "padding_changes_nothing", "differs by"),
    ("counted edges", "smooth_through_the_cutoff", "differs by"),
    ("structure", "far_apart_is_additive", "differs by"),
]


@pytest.mark.parametrize(("fault", "name", "message"), FAULTS)
@pytest.mark.slow
def test_the_suite_finds_planted_faults(fault, name, message):
    model = _Claiming(build_model(QUICK["egnn"], key=jax.random.key(0)), (), fault)
    with pytest.raises(AssertionError, match=message):
        check(name, Potential(model, elements=(1, 6, 8)))


FALSE_TRAITS = [
    ("deep-sets-nbody", {"symmetries": ("permutations", "rotations")}, "symmetries_are_as_declared", "rotations are claimed"),
    ("linear-nbody", {"symmetries": E3[:2]}, "symmetries_are_as_declared", "rotations are not claimed"),
    ("deep-sets-nbody", {"edges_only": True}, "only_edges_are_read", "differs by"),
    ("deep-sets-nbody", {"additive": True}, "far_apart_is_additive", "differs by"),
    ("linear-nbody", {"outputs": preset("egnn-nbody").traits.outputs}, "outputs_are_as_declared", "declared are"),
    ("linear-nbody", {"needs": preset("oc20-nonlinear").traits.needs, "num_tags": 3}, "needed_fields_are_as_declared", "tags"),
]


@pytest.mark.parametrize(("name", "changes", "wanted", "message"), FALSE_TRAITS)
def test_false_traits_are_found(name, changes, wanted, message):
    model = build_model(preset(name), key=jax.random.key(0))
    if name == "linear-nbody":
        model = eqx.tree_at(lambda m: m.weight, model, jnp.asarray([[0.7, -0.2]]))
    with pytest.raises((AssertionError, ValueError), match=message):
        check(wanted, Motion(_Claiming(model, tuple(changes.items()))))


def test_a_sharp_cutoff_that_claims_to_be_smooth_is_found():
    config = EGNNConfig(**_EGNN, cutoff_kind="sharp")
    model = _Claiming(build_model(config, key=jax.random.key(0)), (("smooth", True),))
    with pytest.raises(AssertionError, match="differs by"):
        check("smooth_through_the_cutoff", Potential(model, elements=(1, 6, 8)))


def test_a_check_that_does_not_apply_is_refused():
    model = build_model(EGNNConfig(**_EGNN, cutoff_kind="sharp"), key=jax.random.key(0))
    with pytest.raises(ValueError, match="does not apply"):
        check("smooth_through_the_cutoff", Potential(model, elements=(1, 6, 8)))
