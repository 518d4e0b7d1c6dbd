"""The stream layer against a second, small implementation of it, and against every way of cutting its input."""
