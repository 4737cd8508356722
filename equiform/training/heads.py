"""Two readouts on one model, for fine-tuning: one for the new level of theory, one that keeps the old one.

Everything below the readout is shared and learns from both. An atom of the old level has the atomic number Z + `OLD_LEVEL`: so
it has its own readout, isolated atom and binding energy, and a batch may hold structures of both levels. After training each
readout is an ordinary model with the shared rest.

Source: the idea of MACE's multihead fine-tuning (Batatia et al., arXiv:2401.00096). Differs: two heads, both starting from the
old readout; each ends as a model of its own.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray
from pydantic import SerializeAsAny

from equiform.errors import UserError
from equiform.graph import Graph
from equiform.models.api import Model, ModelConfig, Traits
from equiform.persist.parameters import is_parameter, named
from equiform.tasks.api import Task
from equiform.tasks.energy import Potential

OLD_LEVEL = 1000
"""Added to the atomic numbers of structures of the old level."""


class HeadsConfig(ModelConfig):
    """The configuration of the model that is shared; elements are those of both levels."""

    name: Literal["heads"] = "heads"
    elements: tuple[int, ...]
    body: SerializeAsAny[ModelConfig]

    @property
    def traits(self) -> Traits:
        """Those of the body."""
        return self.body.traits


class Heads(Model):
    """The model; call it on a graph. As equivariant as its body. Never in a model file: see `heads_of`.

    Attributes:
        body: The model with the readout of the new level.
        old_readout: The parameters of the other readout, by name.
    """

    body: Model
    old_readout: dict[str, Array]
    config: HeadsConfig = eqx.field(static=True)

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """Outputs of each atom's own readout.

        Args:
            graph: The batch.
            key: PRNG key for the body's dropout; None means evaluation.
        """
        old = graph.species >= OLD_LEVEL
        plain = graph.replace(species=jnp.where(old, graph.species - OLD_LEVEL, graph.species))
        own = readout_of(self.body)
        both = {name: jnp.stack([own[name], self.old_readout[name]]) for name in own}
        # Only what depends on the readout is computed twice.
        outputs = jax.vmap(lambda readout: with_readout(self.body, readout)(plain, key=key))(both)
        return {name: jnp.where(old.reshape(-1, *(1,) * (two.ndim - 2)), two[1], two[0]) for name, two in outputs.items()}

    def decay_mask(self) -> "Heads":
        """The body's weight-decay mask; that of its readout for both."""
        mask: Any = self.body.decay_mask()
        leaves = named(mask)
        old = {name: leaves[name] for name in self.old_readout}
        return eqx.tree_at(lambda heads: (heads.body, heads.old_readout), self, (mask, old))


def readout_of(model: Model) -> dict[str, Any]:
    """The parameters of a model's readout, by name."""
    parts = [entry.partition("[")[0] for entry in model.parts.get("readout", ())]
    leaves = named(eqx.filter(model, is_parameter))
    return {name: leaf for name, leaf in leaves.items() if any(name == part or name.startswith(f"{part}.") for part in parts)}


def with_readout(model: Model, readout: dict[str, Any]) -> Model:
    """The model with these parameters in its readout."""
    arrays, rest = eqx.partition(model, is_parameter)
    leaves = named(arrays)
    return eqx.combine(
        jax.tree.unflatten(jax.tree.structure(arrays), [readout.get(name, leaves[name]) for name in leaves]), rest
    )


def two_heads(task: Potential) -> Potential:
    """The potential with two readouts, both that of its model.

    Raises:
        UserError: The model declares no readout.
    """
    model = task.model
    readout, scalar = readout_of(model), model.traits.scalar
    if not readout or scalar is None or scalar.axis != "atoms":
        raise UserError(f"finetune.keep_head: {type(model).__name__} declares no readout that could be doubled; leave it out")
    elements = tuple(model.config.elements)
    config = HeadsConfig(elements=(*elements, *(z + OLD_LEVEL for z in elements)), body=model.config)
    doubled = Heads(body=model, old_readout={name: jnp.copy(leaf) for name, leaf in readout.items()}, config=config)
    settings = task.settings()
    settings["elements"] = [*settings["elements"], *(z + OLD_LEVEL for z in settings["elements"])]
    settings["cohesion"] = 2 * settings["cohesion"]
    return Potential.from_settings(doubled, settings)


def heads_of(task: Task) -> list[Task]:
    """The ordinary tasks of a task with two heads, the new level first; any other task alone."""
    model = task.model
    if not isinstance(model, Heads):
        return [task]
    settings = task.settings()
    settings["elements"] = [z for z in settings["elements"] if z < OLD_LEVEL]
    settings["cohesion"] = settings["cohesion"][: len(settings["cohesion"]) // 2]
    return [Potential.from_settings(each, settings) for each in (model.body, with_readout(model.body, model.old_readout))]


def of_old_level(graph: Graph) -> Graph:
    """A structure whose labels are of the old level."""
    return graph.replace(species=graph.species + OLD_LEVEL)
