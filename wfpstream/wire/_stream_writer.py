"""TCP streams made anew around bytes: sequence numbers, segmentation and acknowledgements of both directions.

Such that Wireshark finds nothing to complain about. Knows nothing of files, nor of where the bytes come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ._synthesis import FrameMaker, handshake_options

_FIN, _SYN, _RST, _PSH, _ACK, _URG = 1, 2, 4, 8, 16, 32
_MODULUS_MASK = 0xFFFFFFFF
_WINDOW_SHIFT = 7
# Well below 65,535 bytes, which is what a reader that missed the handshake's window scale believes in.
_SEGMENTS_PER_ACK = 16
# From one try of a refused connection to the next; any number will do.
_TRY_DISTANCE = 64_000


class StreamWriter:
    """Synthesizes one TCP stream of a capture.

    Directions are 0 (client to server) and 1 (server to client). Times are nanoseconds since 1970; all frames
    of one call have that call's time. What a call needs before it (the handshake) is written first, what has
    happened already (a second SYN, FIN) is not written again, and nothing at all follows a reset.
    State is a few numbers, however long the stream.
    """

    __slots__ = (
        "_acknowledged", "_closed", "_established", "_finished", "_makers", "_next", "_segment_size",
        "_syn_sent", "_write",
    )  # fmt: skip

    def __init__(
        self,
        write: Callable[[int, bytes], object],
        client: tuple[bytes, int],
        server: tuple[bytes, int],
        client_isn: int,
        server_isn: int,
    ) -> None:
        """
        Args:
            write: Takes the time and each Ethernet frame.
            client: Packed address (4 or 16 bytes) and port.
            server: As `client`.
            client_isn: The sequence number of the client's SYN, 0 to 2**32 - 1.
            server_isn: That of the server's SYN,ACK; 2**32 - 1 becomes 0.

        Raises:
            ValueError: The addresses are not of one kind.
        """
        self._write = write
        self._makers = (
            FrameMaker(client[0], server[0], client[1], server[1]),
            FrameMaker(server[0], client[0], server[1], client[1], is_server=True),
        )
        # Ethernet's 1,500 bytes without the IP and TCP headers.
        self._segment_size = 1_460 if len(client[0]) == 4 else 1_440
        # The client's first ACK would be 0, as the field of its SYN is: Wireshark takes that for a duplicate.
        if server_isn == _MODULUS_MASK:
            server_isn = 0
        self._next = [client_isn, server_isn]
        self._syn_sent = self._established = self._closed = False
        self._finished = [False, False]

    def syn(self, time_ns: int) -> None:
        """The client's SYN."""
        if self._syn_sent or self._closed:
            return
        self._syn_sent = True
        self._write_syn(time_ns, 0, _SYN, 0)

    def syn_again(self, time_ns: int) -> None:
        """After a refusal the client tries once more: a connection of its own to whoever reads the capture.

        Its SYN has another number, because the same one would be a repetition of the first.
        """
        if self._established or not self._closed:
            return
        self._closed = self._syn_sent = False
        self._next[0] = (self._next[0] + _TRY_DISTANCE) & _MODULUS_MASK
        self.syn(time_ns)

    def refused(self, time_ns: int) -> None:
        """The server's RST,ACK in answer to the SYN; to an established stream simply its reset."""
        self.reset(time_ns, 1)

    def established(self, time_ns: int) -> None:
        """The server's SYN,ACK and the client's ACK."""
        if self._established or self._closed:
            return
        self.syn(time_ns)
        self._established = True
        self._write_syn(time_ns, 1, _SYN | _ACK, self._next[0])
        self._write_control(time_ns, 0, _ACK)

    def data(self, time_ns: int, direction: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Bytes of one direction, in full segments and a last one with PSH, all of them acknowledged.

        Raises:
            ValueError: After this direction's FIN.
        """
        data = b"".join(pieces)
        if not data or not self._can_send(time_ns, direction):
            return
        write, frame = self._write, self._makers[direction].frame
        sequence, acknowledgement = self._next[direction], self._next[1 - direction]
        segment_size, size = self._segment_size, len(data)
        since_ack = 0
        for start in range(0, size, segment_size):
            segment = data[start : start + segment_size]
            sent = start + len(segment)
            flags = _ACK | _PSH if sent == size else _ACK
            write(time_ns, frame(sequence, acknowledgement, flags, segment))
            sequence = (sequence + len(segment)) & _MODULUS_MASK
            since_ack += 1
            if since_ack == _SEGMENTS_PER_ACK or sent == size:
                self._next[direction] = sequence
                self._write_control(time_ns, 1 - direction, _ACK)
                since_ack = 0

    def urgent(self, time_ns: int, direction: int, byte: bytes | memoryview) -> None:
        """Urgent data (one byte, in WFP's expedited sense) in a segment of its own.

        The urgent pointer says the byte behind the last one, as implementations do (RFC 6093).

        Raises:
            ValueError: After this direction's FIN, or if `byte` is empty or more than a segment.
        """
        if not 0 < len(byte) <= self._segment_size:
            raise ValueError(f"urgent data is 1 to {self._segment_size} bytes, not {len(byte)}")
        if not self._can_send(time_ns, direction):
            return
        frame = self._makers[direction].frame(
            self._next[direction],
            self._next[1 - direction],
            _ACK | _PSH | _URG,
            byte,
            urgent=len(byte),
        )
        self._write(time_ns, frame)
        self._advance(direction, len(byte))
        self._write_control(time_ns, 1 - direction, _ACK)

    def fin(self, time_ns: int, direction: int) -> None:
        """The direction's FIN,ACK and the other side's ACK; the other direction stays as open as it was."""
        if self._finished[direction] or not self._can_send(time_ns, direction):
            return
        self._finished[direction] = True
        self._write_control(time_ns, direction, _FIN | _ACK)
        self._advance(direction, 1)
        self._write_control(time_ns, 1 - direction, _ACK)

    def reset(self, time_ns: int, direction: int) -> None:
        """The RST that the direction's sender sends; nothing follows it, whatever is called.

        Before the stream is established it is the client giving up, or the server refusing (RFC 9293, 3.10.7).
        """
        if self._closed:
            return
        if not self._syn_sent:
            self.syn(time_ns)
        if self._established:
            self._write_control(time_ns, direction, _RST | _ACK)
        elif direction == 0:
            # Nothing of the server to acknowledge yet.
            self._write(time_ns, self._makers[0].frame(self._next[0], 0, _RST))
        else:
            # An answer to a segment without ACK has the sequence number 0.
            self._write(time_ns, self._makers[1].frame(0, self._next[0], _RST | _ACK))
        self._closed = True

    def _can_send(self, time_ns: int, direction: int) -> bool:
        """Whether anything may still be sent; establishes the stream if it is not yet."""
        if self._closed:
            return False
        if self._finished[direction]:
            raise ValueError("nothing follows a FIN in its direction")
        self.established(time_ns)
        return True

    def _advance(self, direction: int, count: int) -> None:
        self._next[direction] = (self._next[direction] + count) & _MODULUS_MASK

    def _write_syn(self, time_ns: int, direction: int, flags: int, acknowledgement: int) -> None:
        options = handshake_options(self._segment_size, _WINDOW_SHIFT)
        frame = self._makers[direction].frame(self._next[direction], acknowledgement, flags, options=options)
        self._write(time_ns, frame)
        self._advance(direction, 1)

    def _write_control(self, time_ns: int, direction: int, flags: int) -> None:
        """One segment without data, that acknowledges all the other side has sent."""
        frame = self._makers[direction].frame(self._next[direction], self._next[1 - direction], flags)
        self._write(time_ns, frame)
