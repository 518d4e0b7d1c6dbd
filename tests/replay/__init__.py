"""Tests of `wfpstream.replay`."""
