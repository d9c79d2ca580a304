"""Fixtures of the tests of latency."""

from tests.devices.conftest import own_folder

__all__ = ["own_folder"]
