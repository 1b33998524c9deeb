"""Benchmarks: scripts that print ratios against a named baseline measured in the same run."""

from fkd.data import get_data_set


def default_dataset() -> str:
    """MNIST where its files are, else digits, which is always there."""
    return "mnist" if get_data_set("mnist").is_available() else "digits"
