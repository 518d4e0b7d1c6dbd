"""The built-in callouts, and how they are found and configured."""
