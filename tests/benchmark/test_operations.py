"""The count of operations, against counts by hand and against the non-zero entries of the Clebsch–Gordan tables."""

import numpy as np
import pytest

from equiform.algebra.so3.clebsch_gordan import wigner_3j
from equiform.algebra.so3.irreps import SCALAR, Irreps
from equiform.algebra.so3.products import Paths
from equiform.benchmark.operations import (
    attention_operations,
    equiformer_operations,
    folded_product_operations,
    linear_operations,
    radial_product_operations,
)
from equiform.models.presets import preset

NODE = Irreps.parse("128x0e+64x1e+32x2e")


def layer(name, **changes):
    config = preset(name, **changes)
    node = Irreps.parse(config.irreps)
    return attention_operations(config.attention_config(node, node), {irrep for _, irrep in node})


def test_published_layer_agrees_with_a_count_by_hand():
    edge, atom = layer("qm9-l2-nonlinear")
    # l = 0: 224 rows to 128 + 64 + 32 + 4·32 columns; l = 1: 288 rows at m = 0 and twice 256; l = 2: 256, 224, 96 rows.
    assert edge["first product"] == 224 * 352 + (288 + 2 * 256) * 64 + (256 + 2 * 224 + 2 * 96) * 32 == 158_720
    # |m| = 0: 224 to 224 channels; |m| = 1 and 2: ((A, −B), (B, A)) on 96 and on 32 channels.
    assert edge["second product"] == 224**2 + 4 * 96**2 + 4 * 32**2 == 91_136
    assert edge["path scalings"] == 1920  # numbers per edge behind the first product
    assert edge["radial network"] == 128 * 64 + 64 * 64 + 64 * 960
    assert edge["rotations"] == 2 * (9 * 64 + 25 * 32)
    assert atom["attention"] == 3 * (128**2 + 3 * 64**2 + 5 * 32**2)


def tables_by_component(paths, irrep):
    """Per path to an irrep, which output components m the edge frame's table reaches at all."""
    for path in paths.to(irrep):
        table = wigner_3j(path.l1, path.l2, irrep.l)[:, path.l2, :]  # only the harmonic of m = 0 is there
        yield path, np.abs(table).max(axis=0) > 1e-9


@pytest.mark.parametrize("sh", ["1x0e+1x1e+1x2e+1x3e", "1x0e+1x1o+1x2e"])
def test_first_product_counts_the_rows_that_the_tables_reach(sh):
    irreps = Irreps.parse("7x0e+5x1o+4x1e+3x2e+2x3o" if "o" in sh else "7x0e+5x1e+3x2e+2x3e")
    paths = Paths(irreps, Irreps.parse(sh), irreps)
    columns = {irrep: 11 + irrep.l for _, irrep in paths.irreps_out}
    every = {(irrep, m) for _, irrep in paths.irreps_out for m in range(irrep.l + 1)}
    linear, scalings, _, active = radial_product_operations(paths, columns, every)
    rows = {
        irrep: sum(path.mul * int(reached.sum()) for path, reached in tables_by_component(paths, irrep))
        for _, irrep in paths.irreps_out
    }
    assert scalings == sum(rows.values())
    assert linear == sum(count * columns[irrep] for irrep, count in rows.items())
    assert active == set(paths.created)


@pytest.mark.parametrize("sh", ["1x0e+1x1e+1x2e+1x3e", "1x0e+1x1o+1x2e"])
def test_folded_product_counts_the_entries_of_its_matrices(sh):
    irreps = Irreps.parse("7x0e+5x1o+4x1e+3x2e+2x3o" if "o" in sh else "7x0e+5x1e+3x2e+2x3e")
    outputs = irreps * 2
    paths = Paths(irreps, Irreps.parse(sh), outputs)
    count, _ = folded_product_operations(paths, outputs)
    expected = 0
    for columns, irrep in outputs:
        for source, (mul, irrep_in) in enumerate(irreps):
            # The sum of all tables between two irreps, with weights that do not cancel: its non-zero entries are products.
            total = np.zeros((irrep_in.dim, irrep.dim))
            for path in paths.to(irrep):
                if path.source == source:
                    total += (1 + path.l2) * np.abs(wigner_3j(path.l1, path.l2, irrep.l)[:, path.l2, :])
            expected += mul * columns * int((total > 1e-9).sum())
    assert count == expected


def test_dot_products_and_linear_messages_count_keys_queries_and_values():
    edge, atom = layer("qm9-l2-dot")
    heads = Irreps.parse("32x0e+16x1e+8x2e") * 4
    assert edge["first product"] == 224 * 256 + 800 * 128 + 896 * 64  # keys and values: twice the channels of all heads
    assert edge["logits"] == edge["weighted sum"] == heads.dim == 480
    assert atom["attention"] == 3 * linear_operations(NODE, NODE) + linear_operations(NODE, heads)
    edge, _ = layer("qm9-l2-linear")
    assert edge["first product"] == 224 * (128 + 128) + 800 * 64 + 896 * 32
    assert "second product" not in edge


def test_dead_ends_of_the_last_layer_are_not_counted():
    edge, atom = attention_operations(preset("qm9-l2-nonlinear").attention_config(NODE, NODE), {SCALAR})
    assert edge["second product"] == 224 * 128
    assert edge["first product"] == 224 * 352 + 288 * 64 + 256 * 32  # m = 0 only
    assert edge["rotations"] == 3 * 64 + 5 * 32  # in, one row of each matrix; scalars need no way out
    assert atom["attention"] == 2 * linear_operations(NODE, NODE) + 128 * 128
    one, two = (equiformer_operations(preset("qm9-l2-nonlinear", num_layers=layers)) for layers in (1, 2))
    assert one.edge["second product"] == 224 * 128
    assert one.atom["feed-forward"] == 128 * 384 + 384 * 512 + 128 * 512  # scalars only, and the shortcut
    assert two.edge["second product"] - one.edge["second product"] == 91_136
    # The joint norm lets every degree act on the scalars: nothing is dead.
    joint = equiformer_operations(preset("qm9-l2-nonlinear", norm="joint", num_layers=1))
    assert joint.edge["second product"] == 91_136


def test_totals_add_atoms_and_edges():
    operations = equiformer_operations(preset("tiny", elements=(1, 6)))
    per_edge, per_atom = sum(operations.edge.values()), sum(operations.atom.values())
    assert operations.total(3, 7) == 3 * per_atom + 7 * per_edge
    vector = equiformer_operations(preset("oc20-is2rs"))
    assert vector.edge["vector readout"] > 0 and vector.atom["vector readout"] > 0
