"""Adapters for other packages. Each module needs its package; cyllama itself imports none of them."""

__all__: list[str] = []
