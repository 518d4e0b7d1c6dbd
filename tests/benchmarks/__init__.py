"""The benchmarks' arithmetic, tables and load generator; nothing here is timed."""
