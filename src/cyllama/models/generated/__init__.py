"""Models whose weights are generated, with fixed seeds or from data of the package."""
