"""The protocols of text routes: requests become calls of `cyllama.LLM`, and its results the protocol's responses."""
