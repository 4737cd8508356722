"""The structures and the toy potential that dynamics is tested with."""

from tests.simulate.conftest import cluster, crystal, predictor

__all__ = ["cluster", "crystal", "predictor"]
