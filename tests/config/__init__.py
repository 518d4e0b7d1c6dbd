"""Tests of wfpstream/config."""
