"""Fuzzing of everything that reads data of others: see docs/dev/fuzzing-and-sanitizers.md."""
