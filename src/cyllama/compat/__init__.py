"""A replacement for llama-cpp-python: change ``from llama_cpp import Llama`` to ``from cyllama.compat import Llama``.

Names, defaults and the form of responses are those of llama-cpp-python; `cyllama.LLM` does the work. The modules have
its names too, such as ``cyllama.compat.llama_chat_format``. An argument has its effect, or is rejected by name.

These arguments have no effect: ``verbose`` (see `cyllama.log`), ``penalize_nl`` and ``local_dir_use_symlinks``, which
have none in llama-cpp-python either. The other differences are listed in docs/howto/integrations.md.
"""

from cyllama.compat._state import LlamaState
from cyllama.compat._states import LogitsProcessorList, StoppingCriteriaList
from cyllama.compat.llama import Llama
from cyllama.compat.llama_cache import BaseLlamaCache, LlamaCache, LlamaDiskCache, LlamaRAMCache
from cyllama.compat.llama_grammar import LlamaGrammar
from cyllama.compat.llama_speculative import LlamaPromptLookupDecoding
from cyllama.compat.llama_tokenizer import LlamaTokenizer

__all__ = [
    "BaseLlamaCache",
    "Llama",
    "LlamaCache",
    "LlamaDiskCache",
    "LlamaGrammar",
    "LlamaPromptLookupDecoding",
    "LlamaRAMCache",
    "LlamaState",
    "LlamaTokenizer",
    "LogitsProcessorList",
    "StoppingCriteriaList",
]
