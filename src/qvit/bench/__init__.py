"""Benchmarks that users can run: the layer against its peers, a training step, the choice of engine, gradients.

Compared times are medians after warm-up, taken in the same run.
"""
