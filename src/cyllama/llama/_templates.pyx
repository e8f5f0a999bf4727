"""Chat templates: render a conversation as a prompt."""

cimport cython
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector

from cyllama._native._core cimport start_call
from cyllama._native._handle cimport Handle
from cyllama.llama cimport libtemplates as lib
from cyllama.llama._model cimport LlamaModel

from cyllama.errors import EngineError, UnsupportedError
from cyllama.llama._model import llama_chat_builtin_templates


@cython.no_gc_clear
cdef class ChatTemplate(Handle):
    """A chat template.

    Parameters
    ----------
    model : LlamaModel
    template : str, optional
        A Jinja template, or the name of one of llama.cpp's own (``llama_chat_builtin_templates``); default: the
        model's.
    jinja : bool, optional
        False takes the engine's own code for the templates that it knows by heart, as upstream's multimodal program
        does; it leaves out what a template adds by itself, such as a system message. Default: Jinja, but for a name.

    Raises
    ------
    UnsupportedError
        The model has no template, and none is given.
    ValueError
        It cannot be parsed.

    Notes
    -----
    Thread safety: may be shared by threads. Source: ``common_chat_templates_init``, common/chat.h.
    """

    cdef lib.chat_templates * _ptr

    def __cinit__(self, LlamaModel model not None, template=None, *, jinja=None):
        model._check()
        if template is not None and not isinstance(template, str):
            raise TypeError(f"template is {template!r}, expected a str or None")
        if not template and not model.chat_template():
            raise UnsupportedError(f"the model has no chat template; give one, such as one of "
                                   f"{', '.join(llama_chat_builtin_templates())}")
        cdef string text = (template or "").encode()
        cdef bint c_jinja = template not in llama_chat_builtin_templates() if jinja is None else jinja
        start_call()
        try:
            self._ptr = new lib.chat_templates(model._ptr, text, c_jinja)
        except EngineError as error:
            raise ValueError(f"the chat template cannot be parsed: {error.message}") from error
        self._opened("ChatTemplate", None)

    def __init__(self, model: LlamaModel, template: str | None = None, *, jinja: bool | None = None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.chat_templates * c_templates = self._ptr
        self._ptr = NULL
        with nogil:
            del c_templates
        return 0

    @property
    def source(self) -> str:
        """The text of the template. Source: ``common_chat_templates_source``, common/chat.h."""
        self._check()
        return self._ptr.source().decode("utf-8", "replace")

    def apply(self, messages: list, add_generation_prompt: bool = True) -> str:
        """Render a conversation as a prompt.

        Parameters
        ----------
        messages : sequence of (role, content)
        add_generation_prompt : bool
            End with the tokens that begin the assistant's message.

        Raises
        ------
        ValueError
            The template rejects the conversation, for example two messages of one role in a row.

        Notes
        -----
        Releases the GIL. Source: ``common_chat_templates_apply``, common/chat.h.
        """
        cdef vector[pair[string, string]] c_messages
        cdef string prompt
        cdef bint generate = add_generation_prompt
        self._check()
        for role, content in messages:
            c_messages.push_back(pair[string, string](<string> role.encode(), <string> content.encode()))
        start_call()
        self._hold()
        try:
            with nogil:
                prompt = self._ptr.apply(c_messages, generate)
        except EngineError as error:
            raise ValueError(f"the chat template refuses the conversation: {error.message}") from error
        finally:
            self._unhold()
        return prompt.decode("utf-8", "replace")
