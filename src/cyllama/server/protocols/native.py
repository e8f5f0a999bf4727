"""llama-server's own routes: its handlers get the checked fields, and their responses are passed on."""

from __future__ import annotations

from collections.abc import Callable

from cyllama.server.protocols.call import TextCall

__all__ = ["native"]

BEGIN = b"data: null\n\n"  # another choice begins


def native(handler: str) -> Callable[[TextCall], None]:
    """Return the function that calls a handler of llama-server."""

    def run(call: TextCall) -> None:
        fields = {name: value for name, value in call.fields.items() if name != "model"}
        if not fields.get("stream"):
            call.send(call.request(handler, fields))
            return
        call.expect_events()
        with call.llm.request(handler, fields, cancel=call.cancel) as response:
            response.raise_for_status()
            call.stream.start_events()
            while (part := response.next()) is not None:
                if part and part != BEGIN:
                    call.stream.write(part)

    return run
