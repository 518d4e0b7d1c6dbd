"""Real programs through the real proxy."""
