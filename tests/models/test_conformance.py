"""Every model in `equiform.models`, in small, passes the public conformance suite."""

import equinox as eqx
import jax
import pytest

from equiform.models import MODELS, build_model
from equiform.models.demetar import DEMETArConfig
from equiform.models.egnn import EGNNConfig
from equiform.models.equiformer import EquiformerConfig
from equiform.models.presets import preset
from equiform.models.se3_transformer import SE3TransformerConfig
from equiform.models.torchmd_et import TorchMDETConfig
from equiform.tasks.energy import Potential
from equiform.testing.conformance import CHECKS, check
from tests.models.test_particle_conformance import QUICK as PARTICLES

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
    "vector_readout": "displacement",
}
_TRUE_PARITY = _SMALL | {
    "irreps": "8x0e+2x0o+3x1e+4x1o+2x2e",
    "irreps_sh": "1x0e+1x1o+1x2e",
    "irreps_head": "4x0e+1x0o+1x1e+2x1o+1x2e",
    "irreps_mlp": "8x0e+2x0o+3x1e+4x1o+2x2e",
    "irreps_feature": "8x0e+2x1o",
    "basis": "gaussian",
}
_LINEAR = _SMALL | {"message": "linear", "vector_readout": None, "irreps_feature": "8x0e", "basis": "bessel"}
_REFERENCE = _SMALL | {"norm": "per_degree", "cutoff_kind": "sharp", "num_tags": 3}

_ET = {"elements": (1, 6, 8), "num_layers": 2, "channels": 16, "num_heads": 4, "num_basis": 8}
_EGNN = {"elements": (1, 6, 8), "num_layers": 2, "channels": 16}
_DEMETAR = {"elements": (1, 6, 8), "channels": 16, "num_heads": 4, "num_basis": 8}
_SINGLE = {"node_layers": 1, "edge_layers": 1, "joint_layers": 1}
_SE3 = {"elements": (1, 6, 8), "channels": 8, "division": 2, "num_heads": 2, "num_basis": 8, "radial_width": 8}

QUICK = {
    "equiformer": EquiformerConfig(**_SMALL),
    "egnn": EGNNConfig(**_EGNN, displacement="displacement"),
    "torchmd-et": TorchMDETConfig(**_ET, vector_readout="displacement"),
    "se3-transformer": SE3TransformerConfig(**_SE3, num_layers=2, l_max=1, vector_readouts=("displacement",)),
    "demetar": DEMETArConfig(**_DEMETAR, **_SINGLE, displacement="displacement"),
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
    "demetar, long and short rows": DEMETArConfig(**_DEMETAR, dropout=0.1, max_edges=3, displacement="displacement"),
    "egnn, still and without a gate": EGNNConfig(**_EGNN, gate=False, species="powers"),
    "egnn, as published": EGNNConfig(**_EGNN, species="powers", readout="graph", cutoff_kind="sharp"),
    "equiformer, true parity": EquiformerConfig(**_TRUE_PARITY),
    "equiformer, linear messages": EquiformerConfig(**_LINEAR),
    "equiformer, dot-product attention": EquiformerConfig(**_LINEAR, attention="dot"),
    "equiformer, as published": EquiformerConfig(**_REFERENCE),
}
ALWAYS = (
    "invariant_under_rotations",
    "forces_are_the_gradient",
    "smooth_through_the_cutoff",
    "padding_changes_nothing",
    "batches_are_independent",
    "degenerate_edges_are_finite",
)
"""What the models that take long to compile are asked in the default tests; the slow tests ask everything of all."""


WITHOUT = {
    # The distance to the centre has no derivative at the centre, nor the largest of several equal ones: the energy is asked
    # for by `invariant_under_rotations`, forces at exact symmetry do not exist.
    "demetar, distances to the centre": ("invariant_at_symmetric_geometries",),
}
"""What a model is not asked, and why."""


def _is_quick(model: str, name: str) -> bool:
    # Operation by operation is slow: two minutes.
    return (
        model in QUICK and name != "compiled_equals_eager" and (model not in ("se3-transformer", "demetar") or name in ALWAYS)
    )


_CASES = [
    pytest.param(config, name, id=f"{model}-{name}", marks=() if _is_quick(model, name) else pytest.mark.slow)
    for model, config in {**QUICK, **THOROUGH}.items()
    for name in CHECKS
    if name not in WITHOUT.get(model, ())
]


def test_every_model_is_listed_here_or_among_those_of_particles():
    of_particles = {preset(name).name for name, _ in PARTICLES.values()}
    assert {config.name for config in QUICK.values()} | of_particles == set(MODELS)


@pytest.fixture(scope="module")
def potential(request) -> Potential:
    config = request.param
    model = build_model(config, key=jax.random.key(0))
    # Energies that are no sum over atoms have no energy of an isolated atom to subtract.
    return Potential(model, scale=2.0, elements=config.elements, anchored=getattr(config, "additive", True))


@pytest.mark.parametrize(("potential", "name"), _CASES, indirect=["potential"])
def test_conforms(potential, name):
    check(name, potential)


class _Jumping(eqx.Module):
    """Plants a fault: adds something that depends on the x axis, on the number of slots, or on an edge's presence."""

    model: eqx.Module
    fault: str = eqx.field(static=True)

    @property
    def config(self):
        return self.model.config

    def __call__(self, graph, *, key=None):
        outputs = dict(self.model(graph, key=key))
        size = len(graph.species)
        along = graph.positions[graph.senders, 0] - graph.positions[graph.receivers, 0]
        faults = {
            "axis": graph.positions[:, 0],
            "forgotten mask": jax.ops.segment_sum(along**2, graph.receivers, size),
            "counted edges": jax.ops.segment_sum(graph.edge_mask.astype(along.dtype), graph.receivers, size),
        }
        outputs["energy"] = outputs["energy"] + faults[self.fault]
        return outputs


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("axis", "invariant_under_rotations"),
        ("forgotten mask", "padding_changes_nothing"),
        ("counted edges", "smooth_through_the_cutoff"),
    ],
)
@pytest.mark.slow
def test_the_suite_finds_planted_faults(fault, name):
    config = QUICK["equiformer"]
    model = _Jumping(build_model(config, key=jax.random.key(0)), fault)
    with pytest.raises(AssertionError, match="differs by"):
        check(name, Potential(model, elements=config.elements, anchored=True))
