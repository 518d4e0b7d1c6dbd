"""Tests of wfpstream/control."""
