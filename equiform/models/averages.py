"""Averages over QM9 that the published models normalise with; the default of a model whose data nobody measured."""

DEGREE = 15.57930850982666
"""Neighbours within 5 Å of an atom of QM9. Source: Equiformer's reference code, `_AVG_DEGREE`."""

ATOMS = 18.03065905448718
"""Atoms of a structure of QM9. Source: Equiformer's reference code, `_AVG_NUM_NODES`."""
