"""The class of llama-cpp-python, for code that was written for it: change ``from llama_cpp import Llama`` and no more.

Names, defaults and the shape of what comes back are llama-cpp-python's; the work is done by `cyllama.LLM`. What differs
on purpose: an unknown argument is a TypeError, tools and JSON schemas of `create_chat_completion` work, a bad grammar
is a GrammarError, and what a prompt has in common with an earlier one is always reused (``set_cache`` is not needed).
"""

from cyllama.compat._arguments import LlamaPromptLookupDecoding
from cyllama.compat._llama import Llama, LlamaGrammar, LogitsProcessorList, StoppingCriteriaList

__all__ = ["Llama", "LlamaGrammar", "LlamaPromptLookupDecoding", "LogitsProcessorList", "StoppingCriteriaList"]
