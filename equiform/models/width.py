"""One number that scales a model: channels, the channels of attention heads, and hidden sizes.

    widened(config, 2)        twice as many of each, so about four times the parameters

Each configuration declares the fields as `width_fields`: the name, and the fields whose product must divide the widened number.
Irreps are widened irrep by irrep. The numbers of heads, layers and basis functions do not change.
"""

from math import floor, isfinite, prod
from typing import Any

from equiform.algebra.so3.irreps import Chunk, Irreps
from equiform.errors import UserError

WidthFields = dict[str, tuple[str, ...]]
"""Field → the fields whose product divides it."""


def widened(config: Any, width: float | int) -> Any:
    """The configuration with its `width_fields` multiplied by `width` and rounded to a valid multiple; unchanged for 1.

    Raises:
        UserError: The width is not a positive number, reduces a field to zero, or the model has nothing to widen.
    """
    if not (isfinite(width) and width > 0):
        raise UserError(f"the width must be a positive number, not {width}")
    if width == 1:
        return config
    fields = config.model_dump()
    if not type(config).width_fields:
        raise UserError(f"{config.name} has no channels or hidden sizes: there is nothing for a width to scale")
    changes = {
        name: _scaled(name, fields[name], width, prod(fields[divisor] for divisor in divisors))
        for name, divisors in type(config).width_fields.items()
    }
    return type(config)(**(fields | changes))


def _scaled(name: str, value: Any, width: float | int, multiple: int) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        chunks = (Chunk(_scaled(f"{name}={value}", mul, width, multiple), irrep) for mul, irrep in Irreps.parse(value))
        return str(Irreps(tuple(chunks)))
    if isinstance(value, tuple):
        return tuple(_scaled(name, entry, width, multiple) for entry in value)
    scaled = multiple * floor(width * value / multiple + 0.5)
    if not scaled:
        least = f"{multiple} (it must be divisible)" if multiple > 1 else "one"
        raise UserError(f"a width of {width:g} reduces the {value} in {name} below {least}; choose a larger width")
    return scaled
