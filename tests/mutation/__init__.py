"""Mutation testing of the files that decide what becomes of a byte: `make mutate`, outside of CI."""
