"""Keyed digits as RTP packets (RFC 4733) with exact timing, as pcap files that SIPp replays."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PAYLOAD_TYPE = 96
PCMA = 8
PCMA_SILENCE = b"\xd5" * 160
STREAM = 0x1DBE11E0
PACKET_MS = 20
SAMPLES_PER_MS = 8
END_PACKETS = 3
EVENTS = "0123456789*#"


@dataclass(frozen=True)
class Tone:
    """One key, pressed ``at_ms`` after the start of the replay for ``duration_ms``."""

    key: str
    at_ms: int
    duration_ms: int


def typed(keys: str, *, first_ms: int = 0, tone_ms: int = 100, gap_ms: int = 100) -> list[Tone]:
    """Give keys that are pressed one after the other."""
    step = tone_ms + gap_ms
    return [Tone(key, first_ms + position * step, tone_ms) for position, key in enumerate(keys)]


@dataclass(frozen=True)
class Stalls:
    """A mobile network that at times holds packets back and then lets them through in a burst."""

    seed: int
    up_to_ms: int = 60
    share: float = 0.3

    def arrivals(self, sent: Sequence[float]) -> list[float]:
        """Give when packets arrive that were sent at these times, in ms; their order stays."""
        chance = random.Random(self.seed)
        arrivals: list[float] = []
        free_at = 0.0
        for at in sent:
            if at >= free_at and chance.random() < self.share:
                free_at = at + chance.uniform(0, self.up_to_ms)
            arrivals.append(max(at, free_at, arrivals[-1] if arrivals else 0.0))
        return arrivals


def write_pcap(path: Path, tones: Sequence[Tone], stalls: Stalls | None = None, *, part: int = 0) -> None:
    """Write the packets of these keys, as they arrive; ``part``: the number of the replay within one call."""
    packets = list(_packets(tones, part))
    times = [at for at, _ in packets]
    if stalls:
        times = stalls.arrivals(times)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for at, (_, payload) in zip(times, packets, strict=True):
            frame = _ethernet(payload)
            seconds, micros = divmod(round(at * 1000), 1_000_000)
            # SIPp takes a time of 0 for none, and would not wait after that packet.
            file.write(struct.pack("<IIII", 1 + seconds, micros, len(frame), len(frame)) + frame)


def _packets(tones: Sequence[Tone], part: int) -> Iterator[tuple[float, bytes]]:
    # In one stream sequence numbers and time only rise; what repeats them is taken for an old packet.
    sequence = count(1000 + 5000 * part)
    # SIPp replays from the first packet on: silence at the start makes that time 0.
    origin = 160_000 + 60_000 * part * SAMPLES_PER_MS
    yield 0, struct.pack(">BBHII", 0x80, PCMA, next(sequence), origin, STREAM) + PCMA_SILENCE
    for tone in tones:
        event = EVENTS.index(tone.key)
        started = origin + tone.at_ms * SAMPLES_PER_MS
        updates = max(1, tone.duration_ms // PACKET_MS)
        for number in range(updates + END_PACKETS):
            last = number >= updates
            elapsed = tone.duration_ms if last else (number + 1) * PACKET_MS
            at = tone.at_ms + (tone.duration_ms if last else number * PACKET_MS)
            marker = 0x80 if number == 0 else 0
            header = struct.pack(">BBHII", 0x80, marker | PAYLOAD_TYPE, next(sequence), started, STREAM)
            body = struct.pack(">BBH", event, (0x80 if last else 0) | 10, elapsed * SAMPLES_PER_MS)
            yield at, header + body


def _ethernet(payload: bytes) -> bytes:
    udp = struct.pack(">HHHH", 4000, 4000, 8 + len(payload), 0) + payload
    loopback = bytes([127, 0, 0, 1])
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, loopback, loopback) + udp
    return bytes(12) + b"\x08\x00" + ip
