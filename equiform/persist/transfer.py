"""A trained model with further elements: the old ones keep their weights, so predictions for them do not change."""

from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp

from equiform.errors import UserError
from equiform.models import build_model, parse_config
from equiform.models.api import Model
from equiform.persist.parameters import is_parameter, named


def with_elements(model: Model, elements: Iterable[int], *, seed: int) -> Model:
    """The model for its own and further elements.

    The weights of a new element are initialised as in a new model. Tables are widened along the axis of the elements; all
    other weights are copied.

    Args:
        model: The trained model.
        elements: Atomic numbers, known or new.
        seed: Seed of the new weights.

    Raises:
        UserError: The architecture has weights whose shapes depend on the number of elements in another way.
    """
    old = tuple(model.config.elements)
    new = tuple(sorted(set(elements) - set(old)))
    if not new:
        return model
    config = parse_config(model.config.model_dump() | {"elements": (*old, *new)})
    wide = build_model(config, key=jax.random.key(seed))
    arrays, rest = eqx.partition(wide, is_parameter)
    trained, filled = named(eqx.filter(model, is_parameter)), {}
    for name, fresh in named(arrays).items():
        have = trained.get(name)
        if have is None:
            raise UserError(f"{type(model).__name__} cannot be given further elements: it would have new weights {name}")
        fresh = fresh.astype(have.dtype)
        if have.shape == fresh.shape:
            filled[name] = jnp.asarray(have)
            continue
        grown = [axis for axis, (a, b) in enumerate(zip(have.shape, fresh.shape, strict=True)) if a != b]
        if len(grown) != 1 or have.shape[grown[0]] != len(old) or fresh.shape[grown[0]] != len(old) + len(new):
            raise UserError(
                f"{type(model).__name__} cannot be given further elements: its weights {name} depend on their number "
                f"({list(have.shape)} would become {list(fresh.shape)})"
            )
        filled[name] = jnp.concatenate(
            [have, jnp.take(fresh, jnp.arange(len(old), len(old) + len(new)), axis=grown[0])], grown[0]
        )
    leaves = [filled[name] for name in named(arrays)]
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), leaves), rest)


def element_tables(model: Model) -> list[str]:
    """Names of the weights with a row for each element: those that grow with the number of elements.

    Empty for a model that does not distinguish elements.
    """
    config = model.config
    new = next(number for number in range(1, len(config.elements) + 2) if number not in config.elements)
    wider = parse_config(config.model_dump() | {"elements": (*config.elements, new)})
    # Only shapes are needed, so the weights are never computed.
    shapes = jax.eval_shape(lambda: eqx.filter(build_model(wider, key=jax.random.key(0)), is_parameter))
    grown = {name: shape.shape for name, shape in named(shapes).items()}
    return [name for name, leaf in named(eqx.filter(model, is_parameter)).items() if grown.get(name, leaf.shape) != leaf.shape]
