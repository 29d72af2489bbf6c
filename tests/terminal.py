"""A terminal of a given width: what a person would see of what is written to it."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO


class Terminal:
    """The lines of a terminal, from what was written to it so far."""

    def __init__(self, columns: int) -> None:
        self._master, slave = pty.openpty()
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        self.stream: TextIO = os.fdopen(slave, "w", encoding="utf-8")
        os.set_blocking(self._master, False)
        self.columns, self.written, self._bytes = columns, "", b""

    def run(self, command: Sequence[str], **environment: str) -> tuple[int, str]:
        """Run a command with this as its standard error; its exit code and standard output."""
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.stream, env={**os.environ, **environment}
        )
        while process.poll() is None:  # who writes to a terminal that nobody reads from waits
            self._read()
            time.sleep(0.02)
        assert process.stdout is not None
        with process.stdout:
            return process.returncode, process.stdout.read().decode()

    def _read(self) -> None:
        try:
            while read := os.read(self._master, 65536):
                self._bytes += read
        except BlockingIOError:
            pass
        self.written = self._bytes.decode("utf-8", errors="ignore")

    def lines(self) -> list[str]:
        """The lines as they stand, wrapped where they are too long; the last is that of the bar."""
        self.stream.flush()
        self._read()
        rows, column = [""], 0
        for token in re.findall(r"\x1b\[K|\x1b\[A|[^\x1b]", self.written):
            if token == "\r":
                column = 0
            elif token == "\n":
                rows.append("")
            elif token == "\x1b[K":
                rows[-1] = rows[-1][:column]
            elif token != "\x1b[A":
                if column == self.columns:
                    rows.append("")
                    column = 0
                rows[-1] = rows[-1][:column].ljust(column) + token + rows[-1][column + 1 :]
                column += 1
        return [row.rstrip() for row in rows]

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@contextmanager
def terminal(columns: int) -> Iterator[Terminal]:
    """A terminal that is closed afterwards."""
    opened = Terminal(columns)
    try:
        yield opened
    finally:
        opened.close()
