"""Conformance vectors: reading them, and playing them in any world that is given as an argument.

Owns the way from a file of `vectors/` to a list of problems; what a file may say is in docs/reference/vectors.md.
"""

from __future__ import annotations

from ._files import Vector, VectorCase, vector, vectors, vectors_schema
from ._run import can_run, run_case

__all__ = ["Vector", "VectorCase", "can_run", "run_case", "vector", "vectors", "vectors_schema"]
