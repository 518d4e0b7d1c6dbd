"""Measurements, outside the tests: `make bench`."""
