"""The bytes of an event stream, as they are read from a socket, into the data of its events.

Everything happens once per read: lines are found in what is there, an unfinished line waits for the next read. The data
stay bytes, so that a character split between two reads is whole again before anyone decodes it.
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """One event is larger than the decoder may hold."""


class SSEDecoder:
    """Takes reads, gives the data of the events they complete.

    All three line endings, comments, events of several data lines (joined by a line feed) and fields without a space
    after the colon are understood; fields other than ``data`` do not matter to us and are skipped.
    """

    def __init__(self, max_event_bytes: int = 1_048_576) -> None:
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()  # the beginning of a line whose end has not come
        self._data: list[bytes] = []  # data lines of the event that is not complete
        self._data_bytes = 0
        self._after_cr = False  # the last read ended between CR and LF, perhaps
        self._first_line = True

    def feed(self, read: bytes) -> list[bytes]:
        """The data of every event that ``read`` completes, in order.

        Raises EventTooLarge; the decoder cannot be used after that.
        """
        if read.startswith(b"data: ") and (whole := self._whole(read)) is not None:
            return whole
        if self._after_cr and read:
            self._after_cr = False
            if read[0] == 0x0A:
                read = read[1:]
        if b"\r" in read:
            self._after_cr = read[-1] == 0x0D
            read = read.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = read.rfind(b"\n")
        if end < 0:
            self._line += read
            self._bound()
            return []
        block = read[:end]
        if self._line:
            block = bytes(self._line) + block
        self._line = bytearray(read[end + 1 :])
        if self._first_line:
            block = block.removeprefix(_BOM)
            self._first_line = False
        events: list[bytes] = []
        for line in block.split(b"\n"):
            if not line:
                if self._data:
                    events.append(self._event())
            elif line.startswith(b"data:"):
                data = line[6:] if line[5:6] == b" " else line[5:]
                self._data.append(data)
                self._data_bytes += len(data) + 1
        self._bound()
        return events

    def _whole(self, read: bytes) -> list[bytes] | None:
        """The events of a read that is nothing but whole events of a line each, as nearly all are; None for any other."""
        if self._line or self._data or not read.endswith(b"\n\n") or b"\r" in read or len(read) > self._max_event_bytes:
            return None
        events = read[6:-2].split(b"\n\ndata: ")
        if read.count(b"\n") != 2 * len(events):
            return None
        self._after_cr = self._first_line = False
        return events

    def flush(self) -> list[bytes]:
        """What an ended stream left without its empty line: providers that close right behind the last line do that."""
        rest = self.feed(b"\n") if self._line else []
        if self._data:
            rest.append(self._event())
        return rest

    def _event(self) -> bytes:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._data_bytes = 0
        return data

    def _bound(self) -> None:
        if len(self._line) + self._data_bytes > self._max_event_bytes:
            raise EventTooLarge(f"an event of more than {self._max_event_bytes} bytes")
