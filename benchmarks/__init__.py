"""Benchmarks: each prints one table, says what it compares, and ends in one JSON line."""
