"""Two readouts on one model: each structure is predicted as by the ordinary model of its level of theory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.errors import UserError
from equiform.graph import batch, to_device
from equiform.models import build_model, parse_config
from equiform.persist.parameters import named, split
from equiform.tasks.energy import Potential
from equiform.training.config import TrainingConfig
from equiform.training.heads import OLD_LEVEL, heads_of, of_old_level, two_heads
from equiform.training.step import TrainingStep
from tests.training.toys import learner, molecule

FIELDS = {"name": "torchmd-et", "elements": (1, 6, 8), "num_layers": 1, "channels": 4, "num_heads": 1, "num_basis": 4}
FIELDS |= {"cutoff": 4.0}


@pytest.fixture(scope="module")
def task():
    """Two readouts that differ."""
    model = build_model(parse_config(FIELDS), key=jax.random.key(0))
    start = Potential(model, scale=2.0, elements=(1, 6, 8), anchored=True, cohesion=(-0.1, -0.2, -0.3))
    rng, doubled = np.random.default_rng(0), two_heads(start)
    moved = {name: leaf + jnp.asarray(rng.normal(size=leaf.shape)) for name, leaf in doubled.model.old_readout.items()}
    return eqx.tree_at(lambda potential: potential.model.old_readout, doubled, moved)


def test_each_readout_becomes_an_ordinary_model(task):
    new, old = heads_of(task)
    assert new.settings() == old.settings()
    assert new.elements == (1, 6, 8)
    assert new.model.config == old.model.config == parse_config(FIELDS)
    ours, theirs = named(split(new.model)[0]), named(split(old.model)[0])
    differ = {name.partition(".")[0] for name in ours if not np.array_equal(ours[name], theirs[name])}
    assert differ == {"norm", "blocks"}  # TorchMD-NET's readout
    assert heads_of(new) == [new]


def test_both_readouts_are_trained_under_the_same_decay(task):
    config = TrainingConfig(dtype="float64", devices=1)
    decays = named(TrainingStep(task, config, config.losses.terms(), lambda _: None)._decays)
    for name, decay in decays.items():
        if name.startswith("model.old_readout."):
            assert decay == decays[name.replace("old_readout", "body")]


@pytest.mark.slow  # It compiles three models.
def test_a_batch_of_both_levels_has_the_energies_and_forces_of_each(task):
    rng = np.random.default_rng(1)
    graphs = [molecule(rng, 4), molecule(rng, 3)]
    mixed, plain = (to_device(batch([graphs[0], second]), "float64") for second in (of_old_level(graphs[1]), graphs[1]))
    assert int(mixed.species.max()) > OLD_LEVEL
    both = jax.jit(lambda graph: task(graph))(mixed)
    new, old = (jax.jit(lambda graph, one=one: one(graph))(plain) for one in heads_of(task))
    assert np.allclose(both["energy"][:2], [new["energy"][0], old["energy"][1]], rtol=0, atol=1e-12)
    assert np.allclose(both["forces"][:7], np.concatenate([new["forces"][:4], old["forces"][4:7]]), rtol=0, atol=1e-12)
    assert abs(float(new["energy"][1] - old["energy"][1])) > 1e-3


def test_a_model_without_a_declared_readout_is_refused():
    with pytest.raises(UserError, match="Learner declares no readout"):
        two_heads(learner())
