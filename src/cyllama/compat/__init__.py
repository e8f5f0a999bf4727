"""A replacement for llama-cpp-python: change ``from llama_cpp import Llama`` to ``from cyllama.compat import Llama``.

Names, defaults and the form of responses are those of llama-cpp-python; `cyllama.LLM` does the work. Differences: an
unknown argument is a TypeError, tools and JSON schemas of `create_chat_completion` work, an invalid grammar is a
GrammarError, and the prompt cache is always used (``set_cache`` is not needed).
"""

from cyllama.compat._arguments import LlamaPromptLookupDecoding
from cyllama.compat._llama import Llama, LlamaGrammar, LogitsProcessorList, StoppingCriteriaList

__all__ = ["Llama", "LlamaGrammar", "LlamaPromptLookupDecoding", "LogitsProcessorList", "StoppingCriteriaList"]
