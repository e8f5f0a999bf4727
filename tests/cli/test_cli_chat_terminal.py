"""``cyllama chat`` on a real terminal: Ctrl-C, lines of earlier talks, and the end."""

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

SECONDS = 60.0  # more than enough; a guard against hanging
CTRL_C, CTRL_D, UP = b"\x03", b"\x04", b"\x1b[A"


class Terminal:
    """The program in a terminal of its own."""

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
        """Type."""
        self.seen = b""
        os.write(self.master, data)

    def interrupt(self, typed: bytes = b"") -> None:
        """Type Ctrl-C, until the program asks again.

        The kernel throws away what waits to be read as it sends the signal: if that was the new prompt, an empty line
        brings another one.
        """
        self.write(typed + CTRL_C)
        for _ in range(int(SECONDS)):
            with contextlib.suppress(AssertionError):
                return self.wait_for(b"> ", seconds=2.0)
            self.write(b"\n")
        raise AssertionError("the program does not ask again")

    def wait_for(self, text: bytes, *, more: int = 0, seconds: float = SECONDS) -> None:
        """Until a text is shown, and so many bytes after it."""
        end = time.monotonic() + seconds
        while text not in self.seen or len(self.seen) - self.seen.index(text) - len(text) < more:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 4096)

    def close(self) -> int:
        """The exit code."""
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


def test_a_talk(tmp_path: Path) -> None:
    options = ("-c", "2048", "--temp", "0", "--ignore-eos")
    terminal = Terminal(tmp_path, *options)
    terminal.wait_for(b"> ")
    terminal.write(b"Tell a very long story.\n")
    terminal.wait_for(b"story.", more=40)  # the answer has begun
    terminal.interrupt()
    terminal.interrupt(b"never finished")  # a line that is given up
    terminal.write(b"/save talk.json\n")
    terminal.wait_for(b"> ")
    terminal.write(CTRL_D)
    assert terminal.close() == 0
    question, answer = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert question["content"] == "Tell a very long story." and 10 < len(answer["content"]) < 8000

    again = Terminal(tmp_path, *options)
    again.wait_for(b"> ")
    again.write(UP + b"\n")  # the last line of the talk before
    again.wait_for(b"> ")
    again.write(b"/exit\n")
    assert again.close() == 0
    assert json.loads((tmp_path / "talk.json").read_text()) == {"system": None, "messages": []}
