"""Comparisons of the package with the engines' native programs (make bench)."""
