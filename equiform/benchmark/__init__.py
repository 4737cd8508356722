"""Benchmarks of Equiform on this machine: operation counts, measured roofline, cases, scaling curves."""
