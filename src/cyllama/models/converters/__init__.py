"""Converters of model files to the formats of the engines."""
