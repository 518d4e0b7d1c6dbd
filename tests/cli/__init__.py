"""Tests of wfpstream/cli."""
