"""Tests of the torture suite, and of our own proxy by it."""
