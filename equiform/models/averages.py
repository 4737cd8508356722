"""QM9 averages that the published models normalise with; the defaults where the data set has not been measured."""

DEGREE = 15.57930850982666
"""Average number of neighbours within 5 Å of an atom in QM9. Source: Equiformer's reference code, `_AVG_DEGREE`."""

ATOMS = 18.03065905448718
"""Average number of atoms per molecule in QM9. Source: Equiformer's reference code, `_AVG_NUM_NODES`."""
