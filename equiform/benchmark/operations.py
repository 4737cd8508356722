"""Minimum number of multiply–adds of an Equiformer, by the shortest exact algorithm that we know.

Counted, per edge: the radial networks, the rotations into and out of the edge frame, the first product with the linear map
that follows it (per output irrep and |m| only the rows that reach it), the second product folded into its linear map, the
dot products of the logits, and the attention-weighted sum; the degree embedding without its linear map, which acts on
atoms. Per atom: the linear maps, the feed-forward networks, the readout. Not counted: activations, normalisations, the
softmax, the radial basis, the rotation matrices (once for all layers), and the species embedding. Of the last layer only
what the readout depends on is counted.

A derivative with respect to positions costs as much again as the function, one with respect to weights twice as much: the
multiples of the energy's count are in `MULTIPLES`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from equiform.algebra.so3.irreps import SCALAR, Chunk, Irrep, Irreps
from equiform.algebra.so3.products import Path, Paths
from equiform.models.equiformer import EquiformerConfig
from equiform.models.equiformer_attention import AttentionConfig
from equiform.models.equiformer_gate import gate_input

MULTIPLES = {"energy": 1, "energy step": 3, "energy + forces": 2, "energy + forces step": 6}
"""Cost in units of one energy: with derivatives with respect to weights (×3), to positions (×2), to both (×6)."""

Components = set[tuple[Irrep, int]]
"""Components of features in the edge frame: irrep and |m|."""


@dataclass
class Operations:
    """Multiply–adds of one energy.

    Attributes:
        edge: Per edge, by part; all layers together.
        atom: Per atom, by part; all layers together.
    """

    edge: dict[str, int] = field(default_factory=dict)
    atom: dict[str, int] = field(default_factory=dict)

    def total(self, num_atoms: int, num_edges: int) -> int:
        """Multiply–adds for a structure or a batch."""
        return num_atoms * sum(self.atom.values()) + num_edges * sum(self.edge.values())

    def add(self, edge: Mapping[str, int], atom: Mapping[str, int]) -> None:
        """Add the operations of one layer."""
        for mine, more in ((self.edge, edge), (self.atom, atom)):
            for name, count in more.items():
                mine[name] = mine.get(name, 0) + count


def equiformer_operations(config: EquiformerConfig) -> Operations:
    """The operation count of a configuration."""
    node, feature = Irreps.parse(config.irreps), Irreps.parse(config.irreps_feature)
    hidden = Irreps.parse(config.irreps_mlp)
    every = {irrep for _, irrep in node}
    # Per-degree norms do not couple degrees, so the energy's scalars do not depend on the others of the last layer.
    scalars_only = config.norm == "per_degree" and not config.vector_readouts and config.energy_readout == "mlp"
    required = {SCALAR} if scalars_only else {irrep for _, irrep in feature}
    alive = required if config.norm == "per_degree" else every
    operations = Operations()
    operations.add(*_degree_embedding(config, node))
    for layer in range(config.num_layers):
        last = layer == config.num_layers - 1
        outputs = alive if last else every
        operations.add(*attention_operations(config.attention_config(node, node), outputs))
        out = _only(feature, required) if last else node
        inner = _only(hidden, {irrep for _, irrep in out} | {SCALAR})
        count = linear_operations(node, gate_input(inner)) + linear_operations(inner, out)
        count += linear_operations(node, out) if last and feature != node else 0
        operations.add({}, {"feed-forward": count})
    if config.energy_readout == "attention":
        scalar = Irreps((Chunk(1, SCALAR),))
        edge, atom = attention_operations(config.attention_config(feature, scalar, config.irreps_energy_message), {SCALAR})
        operations.add({"readout": sum(edge.values())}, {"readout": sum(atom.values())})
    else:
        size = feature.count(SCALAR)
        operations.add({}, {"readout": size * size + size})
    if config.vector_readouts:
        vector = Irreps((Chunk(len(config.vector_readouts), config.vector_irrep),))
        edge, atom = attention_operations(config.attention_config(feature, vector), {chunk.irrep for chunk in vector})
        operations.add({"vector readout": sum(edge.values())}, {"vector readout": sum(atom.values())})
    return operations


def attention_operations(config: AttentionConfig, outputs: Iterable[Irrep]) -> tuple[dict[str, int], dict[str, int]]:
    """Operations of one attention layer: per edge and per atom, by part.

    Args:
        config: The layer.
        outputs: The output irreps that are used.
    """
    live, heads = set(outputs), config.irreps_head * config.num_heads
    values = _only(heads, live)
    message = config.irreps_message
    edge: dict[str, int] = {}
    num_logits = config.num_heads * config.alpha_channels
    if config.kind == "nonlinear":
        value_paths = Paths(message, config.irreps_sh, heads)
        edge["second product"], required = folded_product_operations(value_paths, values)
        paths = Paths(message, config.irreps_sh, message)
        # Gates of unused channels are left out.
        columns = {irrep: mul for mul, irrep in gate_input(_only(message, {irrep for irrep, _ in required} | {SCALAR}))}
        columns[SCALAR] += num_logits
        edge["logits"] = num_logits
    else:
        alpha = Irreps((Chunk(num_logits, SCALAR),)) if config.kind == "linear" else heads
        whole = (alpha + heads).merged()
        paths = Paths(message, config.irreps_sh, whole)
        retained = (alpha + values).merged()
        columns = {irrep: mul for mul, irrep in retained}
        required = {(irrep, m) for _, irrep in retained for m in range(irrep.l + 1)}
        edge["logits"] = alpha.dim
    required = required | {(SCALAR, 0)}
    edge["first product"], edge["path scalings"], used, active = radial_product_operations(paths, columns, required)
    edge["radial network"] = _chain(config.radial_widths) + config.radial_widths[-1] * sum(path.mul for path in active)
    rotated = values if config.kind != "dot" else values + heads
    edge["rotations"] = _rotation(message, used) + _rotation(rotated, None)
    edge["weighted sum"] = values.dim
    used_message = _only(message, {message[i].irrep for i, _ in used})
    atom = {"attention": 2 * linear_operations(config.irreps_in, used_message)}
    atom["attention"] += linear_operations(values, _only(config.irreps_out, live))
    if config.kind == "dot":
        atom["attention"] += linear_operations(config.irreps_in, heads)
    return edge, atom


def radial_product_operations(
    paths: Paths, columns: Mapping[Irrep, int], required: Components
) -> tuple[int, int, set[tuple[int, int]], set[Path]]:
    """Operations per edge of a product with weights for each edge and the linear map that follows it.

    Args:
        paths: Paths of the product.
        columns: Output channels of the linear map, per irrep.
        required: The output components that are used.

    Returns:
        Multiply–adds of the linear map, multiplications by path weights, input components (chunk, |m|) and paths in use.
    """
    linear, scalings = 0, 0
    used: set[tuple[int, int]] = set()
    active: set[Path] = set()
    for irrep, m in required:
        reaching = [path for path in paths.to(irrep) if _reaches(path, m)]
        rows = (2 if m else 1) * sum(path.mul for path in reaching)
        linear += rows * columns[irrep]
        scalings += rows
        used |= {(path.source, m) for path in reaching}
        active |= set(reaching)
    return linear, scalings, used, active


def folded_product_operations(paths: Paths, outputs: Irreps) -> tuple[int, Components]:
    """Operations per edge of a product with shared weights, folded into its linear map; and its inputs in use.

    From one input chunk to one output irrep it is one matrix per |m| and parity of l1 + l2 + l3, however many paths there are.
    """
    count, used = 0, set()
    for columns, irrep in outputs:
        for source, (mul, irrep_in) in enumerate(paths.irreps_in):
            for odd in (False, True):
                mine = [path for path in paths.to(irrep) if path.source == source and path.odd == odd]
                for m in range(min(irrep_in.l, irrep.l) + 1):
                    if any(_reaches(path, m) for path in mine):
                        count += (2 if m else 1) * mul * columns
                        used.add((irrep_in, m))
    return count, used


def linear_operations(irreps_in: Irreps, irreps_out: Irreps) -> int:
    """Operations of a linear map, per atom."""
    return sum(irreps_in.count(irrep) * mul * irrep.dim for mul, irrep in irreps_out)


def least_traffic(config: EquiformerConfig, num_atoms: int, num_edges: int, num_parameters: int) -> int:
    """Minimum memory traffic of one energy, bytes, in single precision, if only atom features are ever stored.

    The parameters once. Per layer and edge: the vector, the two ends, and the sender's message features, which are gathered
    from all over memory; per atom the features read and written by attention and by the feed-forward network.
    """
    node = Irreps.parse(config.irreps).dim
    message = Irreps.parse(config.irreps_message or config.irreps).dim
    numbers = config.num_layers * (num_edges * (3 + 2 + message) + num_atoms * (4 * node + 2 * message))
    return 4 * (numbers + num_parameters)


def _degree_embedding(config: EquiformerConfig, node: Irreps) -> tuple[dict[str, int], dict[str, int]]:
    paths = Paths(node, Irreps.parse(config.irreps_sh), node)
    mine = paths.of([irrep for _, irrep in node].index(SCALAR))  # the constant source has scalars only
    widths = (config.num_basis, *config.radial_widths)
    edge = _chain(widths) + widths[-1] * sum(path.mul for path in mine)
    edge += sum(path.mul * path.irrep.dim for path in mine)
    atom = sum(path.mul * path.irrep.dim * node.count(path.irrep) for path in mine)
    return {"degree embedding": edge}, {"degree embedding": atom}


def _reaches(path: Path, m: int) -> bool:
    return m <= path.l1 and abs(path.coefficient(m)) > 1e-12


def _rotation(irreps: Irreps, used: set[tuple[int, int]] | None) -> int:
    """Operations of a rotation into or out of the edge frame, restricted to some components (chunk, |m|)."""
    count = 0
    for i, (mul, irrep) in enumerate(irreps):
        for m in range(irrep.l + 1):
            if irrep.l and (used is None or (i, m) in used):
                count += (2 if m else 1) * irrep.dim * mul
    return count


def _chain(widths: tuple[int, ...]) -> int:
    return sum(a * b for a, b in pairwise(widths))


def _only(irreps: Irreps, retained: set[Irrep]) -> Irreps:
    return Irreps(tuple(chunk for chunk in irreps if chunk.irrep in retained))
