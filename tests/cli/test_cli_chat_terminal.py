"""``cyllama chat`` on a pseudo-terminal: Ctrl-C, history of input lines, exit."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

from cyllama import models

SECONDS = 60.0  # guards against hanging
CTRL_C, CTRL_D, UP = b"\x03", b"\x04", b"\x1b[A"


class Terminal:
    """The program on a pseudo-terminal."""

    def __init__(self, home: Path, *options: str) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "cyllama", "chat", "-m", str(models.get("smollm2-135m-instruct")), *options]
        environment = os.environ | {"HOME": str(home), "TERM": "xterm"}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=home, env=environment, start_new_session=True,
            preexec_fn=take_terminal,
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def write(self, data: bytes) -> None:
        """Type bytes."""
        self.seen = b""
        os.write(self.master, data)

    def interrupt(self, typed: bytes = b"") -> None:
        """Type Ctrl-C, and wait for the next prompt.

        The kernel discards unread output when it sends the signal. If that was the prompt, an empty line prints
        another one.
        """
        self.write(typed + CTRL_C)
        for _ in range(int(SECONDS)):
            with contextlib.suppress(AssertionError):
                return self.wait_for(b"> ", seconds=2.0)
            self.write(b"\n")
        raise AssertionError("there is no prompt")

    def wait_for(self, text: bytes, *, more: int = 0, seconds: float = SECONDS) -> None:
        """Wait until a text is shown, followed by `more` bytes."""
        end = time.monotonic() + seconds
        while text not in self.seen or len(self.seen) - self.seen.index(text) - len(text) < more:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 4096)

    def close(self) -> int:
        """Return the exit code."""
        try:
            return self.process.wait(SECONDS)
        finally:
            self.process.kill()
            os.close(self.master)


def take_terminal() -> None:
    import fcntl
    import signal
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_interrupts_responses_and_restores_history(tmp_path: Path) -> None:
    options = ("-c", "2048", "--temp", "0", "--ignore-eos")
    terminal = Terminal(tmp_path, *options)
    terminal.wait_for(b"> ")
    terminal.write(b"Tell a very long story.\n")
    terminal.wait_for(b"story.", more=40)  # the response has begun
    terminal.interrupt()
    terminal.interrupt(b"never finished")  # discards the line
    terminal.write(b"/save chat.json\n")
    terminal.wait_for(b"> ")
    terminal.write(CTRL_D)
    assert terminal.close() == 0
    message, response = json.loads((tmp_path / "chat.json").read_text())["messages"]
    assert message["content"] == "Tell a very long story." and 10 < len(response["content"]) < 8000

    again = Terminal(tmp_path, *options)
    again.wait_for(b"> ")
    again.write(UP + b"\n")  # the last line of the first chat
    again.wait_for(b"> ")
    again.write(b"/exit\n")
    assert again.close() == 0
    assert json.loads((tmp_path / "chat.json").read_text()) == {"system": None, "messages": []}
