"""Accuracy, stability, speed and memory of the reconstruction: ``python -m benchmarks --help``."""
