"""Runs as if trained on made-up files."""

from suite.runs import few_will_do, make_npz, train_as_if  # noqa: F401 - fixtures
