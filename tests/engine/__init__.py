"""The facade and its border."""
