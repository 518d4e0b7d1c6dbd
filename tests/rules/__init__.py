"""Tests that name the rules of the semantics, one family of rules a file."""
