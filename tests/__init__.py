"""The tests of wfpstream."""
