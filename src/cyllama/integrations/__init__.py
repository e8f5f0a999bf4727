"""Adapters for other packages' interfaces; each module needs that package, and none is imported by cyllama itself."""
