"""How fast Equiform is on this machine: counted operations, measured roofs, cases, scaling curves."""
