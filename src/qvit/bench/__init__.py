"""Benchmarks that users can run: the layer against its peers, a training step, the choice of engine, gradients.

Every figure is a ratio taken in one run, medians after warm-up.
"""
