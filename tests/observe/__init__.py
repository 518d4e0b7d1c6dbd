"""Tests of wfpstream/observe."""
