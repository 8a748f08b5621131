"""What a caller's phone sends: RTP written as pcap files, which SIPp replays with exact timing.

Only telephone-events (RFC 4733) and silence: a recording of a voice would add nothing to what the tests ask.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

PACKET_MS = 20
CLOCK_PER_MS = 8
# The last packet of an event is sent three times, as RFC 4733 (2.5.1.4) asks: one of them will arrive.
END_PACKETS = 3
EVENTS = {key: number for number, key in enumerate("0123456789*#ABCD")}
PCMU, PCMA = 0, 8
SILENCE = {PCMU: b"\xff", PCMA: b"\xd5"}
# What nearly all phones say in their SDP.
EVENT_PAYLOAD = 101
# Minus 10 dBm0, a usual loudness.
VOLUME = 10
ETHERNET = 1


@dataclass(frozen=True, slots=True)
class Tone:
    """One key press: when it begins, counted from the beginning of the replay, and how long it sounds."""

    digit: str
    at_ms: int
    duration_ms: int

    def __post_init__(self) -> None:
        if self.digit not in EVENTS:
            raise ValueError(f"{self.digit!r} is no key of a telephone")
        if self.at_ms < 0 or self.duration_ms < PACKET_MS or self.duration_ms % PACKET_MS:
            raise ValueError(f"a tone lasts a whole number of packets of {PACKET_MS} ms")

    @property
    def end_ms(self) -> int:
        """When the key is let go."""
        return self.at_ms + self.duration_ms


def typed(digits: str, *, first_ms: int = 0, tone_ms: int = 100, gap_ms: int = 100) -> list[Tone]:
    """Give the tones of somebody who keys in these digits at an even pace."""
    return [Tone(digit, first_ms + i * (tone_ms + gap_ms), tone_ms) for i, digit in enumerate(digits)]


@dataclass(frozen=True, slots=True)
class Stalls:
    """A mobile network that now and then holds a packet, and then delivers it in a burst with those behind it.

    Each packet that finds the way free is held with probability ``share``, evenly for up to ``up_to_ms``.

    This is what makes Asterisk report a digit twice. If a tone begins less than 45 ms after the end of the one before
    (an end that came late), Asterisk overlooks that beginning, and when the end comes, it makes up a tone of 80 ms.
    While it does so, and 45 ms longer, it overlooks the next beginning too, and reports an end that comes then twice.
    """

    seed: int
    up_to_ms: int = 60
    share: float = 0.3

    def deliver(self, due_ms: Iterable[float]) -> Iterator[float]:
        """Say when each packet arrives that was sent, in order, at these times."""
        chance = random.Random(self.seed)
        free_at = 0.0
        for due in due_ms:
            if due >= free_at and chance.random() < self.share:
                free_at = due + chance.uniform(0, self.up_to_ms)
            yield max(due, free_at)


@dataclass(frozen=True, slots=True)
class Stream:
    """Where an RTP stream stands, so that a second file can go on where the first one ended."""

    ssrc: int = 0x1DBE11E0
    sequence: int = 1000
    timestamp: int = 160_000


@dataclass(frozen=True, slots=True)
class _Packet:
    due_ms: int
    kind: int
    clock_ms: int
    payload: bytes
    marker: bool = False


def _event(tone: Tone, kind: int) -> Iterator[_Packet]:
    number = EVENTS[tone.digit]
    for begin in range(0, tone.duration_ms, PACKET_MS):
        report = struct.pack("!BBH", number, VOLUME, (begin + PACKET_MS) * CLOCK_PER_MS)
        yield _Packet(tone.at_ms + begin, kind, tone.at_ms, report, marker=begin == 0)
    last = struct.pack("!BBH", number, 0x80 | VOLUME, tone.duration_ms * CLOCK_PER_MS)
    for again in range(END_PACKETS):
        yield _Packet(tone.end_ms + again * PACKET_MS, kind, tone.at_ms, last)


def _packets(tones: Sequence[Tone], event_payload: int, silence: int | None, lasting_ms: int) -> list[_Packet]:
    packets = [packet for tone in tones for packet in _event(tone, event_payload)]
    # SIPp sends the first packet at once, whatever its time: so there always is one that is due at once.
    end_ms = PACKET_MS
    if silence is not None:
        end_ms = max((tone.end_ms for tone in tones), default=0) + lasting_ms
    payload_type = PCMA if silence is None else silence
    packets += [
        _Packet(due, payload_type, due, SILENCE[payload_type] * PACKET_MS * CLOCK_PER_MS, marker=due == 0)
        for due in range(0, end_ms, PACKET_MS)
        if not any(tone.at_ms <= due < tone.end_ms + END_PACKETS * PACKET_MS for tone in tones)
    ]
    return sorted(packets, key=lambda packet: packet.due_ms)


def write_pcap(  # noqa: PLR0913 - each is a property of the phone
    path: Path,
    tones: Sequence[Tone],
    *,
    stalls: Stalls | None = None,
    silence_audio: bool = False,
    lasting_ms: int = 200,
    event_payload: int = EVENT_PAYLOAD,
    codec: int = PCMA,
    stream: Stream | None = None,
) -> Stream:
    """Write what the phone sends, and say where the stream stands after it.

    With ``silence_audio`` it sends silence wherever there is no tone, and ``lasting_ms`` after the last one, as
    real phones do; without, nothing but the tones.
    """
    at = stream or Stream()
    packets = _packets(tones, event_payload, codec if silence_audio else None, lasting_ms)
    arrivals = (stalls.deliver if stalls else iter)([packet.due_ms for packet in packets])
    sequence = at.sequence
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, ETHERNET))
        for packet, arrival in zip(packets, arrivals, strict=True):
            clock = at.timestamp + packet.clock_ms * CLOCK_PER_MS
            head = struct.pack(
                "!BBHII", 0x80, packet.marker << 7 | packet.kind, sequence & 0xFFFF, clock & 0xFFFFFFFF, at.ssrc
            )
            frame = _frame(head + packet.payload)
            # A minute after the epoch, only because a capture from its first moment looks broken.
            seconds, micros = divmod(60_000_000 + round(arrival * 1000), 1_000_000)
            file.write(struct.pack("<IIII", seconds, micros, len(frame), len(frame)) + frame)
            sequence += 1
    end = max((packet.due_ms for packet in packets), default=0) + PACKET_MS
    return Stream(at.ssrc, sequence, at.timestamp + end * CLOCK_PER_MS)


def _frame(payload: bytes) -> bytes:
    """Wrap it in Ethernet, IPv4 and UDP; SIPp puts the real ports in and sets the checksum."""
    udp = struct.pack("!HHHH", 40000, 40000, 8 + len(payload), 0) + payload
    loopback = bytes((127, 0, 0, 1))
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + loopback * 2
    return bytes(12) + b"\x08\x00" + ip + udp
