"""RTP: keyed digits (RFC 4733) with exact timing, as pcap files that SIPp replays; and tones of phones.

A test gives each phone a tone of its own, and then sees who hears whom.
"""

from __future__ import annotations

import asyncio
import cmath
import math
import random
import struct
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, cast

from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

PAYLOAD_TYPE = 96
PCMA = 8
PCMA_SILENCE = b"\xd5" * 160
STREAM = 0x1DBE11E0
PACKET_MS = 20
SAMPLES_PER_MS = 8
END_PACKETS = 3
EVENTS = "0123456789*#"
KEYPAD = "123456789*0#"
ROW_HERTZ = (697, 770, 852, 941)
COLUMN_HERTZ = (1209, 1336, 1477)


@dataclass(frozen=True)
class Codec:
    """What a caller's phone speaks. ``silence``: 20 ms of it; ``clock``: RTP's units in a ms.

    ``in_band``: keys are tones in the audio, and telephone-event is not offered.
    """

    payload: int
    name: str
    silence: bytes
    clock: int = 8
    in_band: bool = False

    @property
    def sdp(self) -> str:
        """Give the lines that describe it, after the port."""
        offered = [(self.payload, self.name)]
        if not self.in_band:
            offered.append((PAYLOAD_TYPE, f"telephone-event/{self.clock * 1000}"))
        maps = "".join(f"\na=rtpmap:{payload} {name}" for payload, name in offered)
        events = "" if self.in_band else f"\na=fmtp:{PAYLOAD_TYPE} 0-15"
        return f"RTP/AVP {' '.join(str(payload) for payload, _ in offered)}{maps}{events}"


ALAW = Codec(PCMA, "PCMA/8000", PCMA_SILENCE)
ALAW_TONES = Codec(PCMA, "PCMA/8000", PCMA_SILENCE, in_band=True)
# RTP's clock for it is wrong by definition (RFC 3551).
G722 = Codec(9, "G722/8000", b"\xfa" * 160)
OPUS = Codec(107, "opus/48000/2", b"\xf8\xff\xfe", clock=48)


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


def write_pcap(
    path: Path, tones: Sequence[Tone], stalls: Stalls | None = None, *, part: int = 0, codec: Codec = ALAW
) -> None:
    """Write the packets of these keys, as they arrive; ``part``: the number of the replay within one call."""
    packets = list(_sung(tones, part) if codec.in_band else _packets(tones, part, codec))
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


def _packets(tones: Sequence[Tone], part: int, codec: Codec) -> Iterator[tuple[float, bytes]]:
    # In one stream sequence numbers and time only rise; what repeats them is taken for an old packet.
    sequence = count(1000 + 5000 * part)
    # SIPp replays from the first packet on: silence at the start makes that time 0.
    origin = (20_000 + 60_000 * part) * codec.clock
    yield 0, struct.pack(">BBHII", 0x80, codec.payload, next(sequence), origin, STREAM) + codec.silence
    for tone in tones:
        event = EVENTS.index(tone.key)
        started = origin + tone.at_ms * codec.clock
        updates = max(1, tone.duration_ms // PACKET_MS)
        for number in range(updates + END_PACKETS):
            last = number >= updates
            elapsed = tone.duration_ms if last else (number + 1) * PACKET_MS
            at = tone.at_ms + (tone.duration_ms if last else number * PACKET_MS)
            marker = 0x80 if number == 0 else 0
            header = struct.pack(">BBHII", 0x80, marker | PAYLOAD_TYPE, next(sequence), started, STREAM)
            body = struct.pack(">BBH", event, (0x80 if last else 0) | 10, elapsed * codec.clock)
            yield at, header + body


def _sung(tones: Sequence[Tone], part: int) -> Iterator[tuple[float, bytes]]:
    """Give keys as two tones at a time in the audio (ITU-T Q.23), with silence in between."""
    for number in range((tones[-1].at_ms + tones[-1].duration_ms) // PACKET_MS + 5):
        at = number * PACKET_MS
        key = next((tone.key for tone in tones if tone.at_ms <= at < tone.at_ms + tone.duration_ms), None)
        audio = PCMA_SILENCE
        if key:
            row, column = divmod(KEYPAD.index(key), 3)
            waves = (ROW_HERTZ[row], COLUMN_HERTZ[column])
            times = [(at * SAMPLES_PER_MS + n) / 8000 for n in range(160)]
            audio = bytes(
                _to_alaw(round(sum(TONE_AMPLITUDE * math.sin(2 * math.pi * hertz * t) for hertz in waves)))
                for t in times
            )
        when = (20_000 + 60_000 * part + at) * SAMPLES_PER_MS
        yield at, struct.pack(">BBHII", 0x80, PCMA, 1000 + 5000 * part + number, when, STREAM) + audio


def _ethernet(payload: bytes) -> bytes:
    udp = struct.pack(">HHHH", 4000, 4000, 8 + len(payload), 0) + payload
    loopback = bytes([127, 0, 0, 1])
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, loopback, loopback) + udp
    return bytes(12) + b"\x08\x00" + ip


# Tones. Each fits a packet a whole number of times, lies above all notes of the music on hold, and is no key's.

TONES = (1400, 1800, 2200, 2600, 3000)
TONE_AMPLITUDE = 6000
# A tone that is heard weaker than this is not there: what a codec makes of others is far below.
LEAST_AMPLITUDE = 1000
# Louder than this is music, a voice or a tone.
LEAST_LOUDNESS = 100
WINDOW_SECONDS = 0.2
LEAST_SAMPLES = 800
# For so many windows in a row the same must be heard.
WINDOWS = 2


class Sound(asyncio.DatagramProtocol):
    """Microphone and ear of one phone: it sounds its tone, and tells which tones it hears."""

    def __init__(self, tone: int) -> None:
        self.tone = tone
        self.port = free_ports(2)
        # Set by the phone: whether it is in a call.
        self.in_call: Callable[[], bool] = lambda: False
        self._frame = bytes(
            _to_alaw(round(TONE_AMPLITUDE * math.sin(2 * math.pi * tone * n / 8000))) for n in range(160)
        )
        self._peer: tuple[str, int] | None = None
        self._heard: deque[tuple[float, bytes]] = deque(maxlen=50)
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._peer = addr
        if data[1] & 0x7F == PCMA:
            self._heard.append((asyncio.get_running_loop().time(), data[12:]))

    async def sound(self) -> None:
        """Sound the tone to whoever sends us something, as long as there is a call."""
        loop = asyncio.get_running_loop()
        stream = random.getrandbits(32)
        started = loop.time()
        for number in count():
            await asyncio.sleep(max(0.0, started + number * PACKET_MS / 1000 - loop.time()))
            # What went on to a port of an earlier call could be taken for somebody's in a later one.
            if number % 5 == 0 and not self.in_call():
                self._peer = None
            if self._peer and self._transport:
                header = struct.pack(">BBHII", 0x80, PCMA, number & 0xFFFF, number * 160 & 0xFFFFFFFF, stream)
                self._transport.sendto(header + self._frame, self._peer)

    def tones(self) -> frozenset[int]:
        """Give the tones that are heard now."""
        samples = self._samples()
        return frozenset(tone for tone in TONES if _amplitude(samples, tone) > LEAST_AMPLITUDE)

    def loudness(self) -> float:
        """Give how loud it is now."""
        samples = self._samples()
        return math.sqrt(sum(sample * sample for sample in samples) / len(samples)) if samples else 0.0

    def besides(self) -> float:
        """Give how loud that is which is no tone."""
        samples = self._samples()
        if len(samples) < LEAST_SAMPLES:
            # Too little to tell a tone by, which would be taken for something else.
            return 0.0
        power = sum(sample * sample for sample in samples) / len(samples)
        return math.sqrt(max(0.0, power - sum(_amplitude(samples, tone) ** 2 / 2 for tone in TONES)))

    async def hears(self, *others: Sound, seconds: float = 5.0) -> None:
        """Wait until the tones of just these others are heard."""
        wanted = frozenset(other.tone for other in others)
        await self._until(lambda: self.tones() == wanted, f"tones {sorted(wanted)}", seconds)

    async def hears_music(self, *, seconds: float = 5.0) -> None:
        """Wait until something is heard, and nobody's tone."""
        await self._until(lambda: not self.tones() and self.loudness() > LEAST_LOUDNESS, "music", seconds)

    async def hears_nothing(self, *, seconds: float = 5.0) -> None:
        """Wait until it is quiet."""
        await self._until(lambda: self.loudness() < LEAST_LOUDNESS, "silence", seconds)

    async def _until(self, is_so: Callable[[], bool], what: str, seconds: float) -> None:
        in_a_row = 0
        try:
            async with asyncio.timeout(seconds):
                while in_a_row < WINDOWS:
                    await asyncio.sleep(WINDOW_SECONDS)
                    in_a_row = in_a_row + 1 if is_so() else 0
        except TimeoutError:
            heard = f"tones {sorted(self.tones())}, loudness {self.loudness():.0f}"
            raise AssertionError(f"the phone with tone {self.tone} hears not {what}, but {heard}") from None

    def _samples(self) -> list[int]:
        since = asyncio.get_running_loop().time() - WINDOW_SECONDS
        return [_FROM_ALAW[byte] for at, payload in self._heard if at >= since for byte in payload]


def _as_it_is(sound: Sound) -> Sound:
    return sound


@asynccontextmanager
async def sounds(number: int) -> AsyncIterator[list[Sound]]:
    """Give sounds for so many phones, each with a tone of its own."""
    loop = asyncio.get_running_loop()
    made = [Sound(tone) for tone in TONES[:number]]
    transports = []
    for sound in made:
        transport, _ = await loop.create_datagram_endpoint(
            partial(_as_it_is, sound), local_addr=("127.0.0.1", sound.port)
        )
        transports.append(transport)
    sounding = [asyncio.create_task(sound.sound()) for sound in made]
    try:
        yield made
    finally:
        for task in sounding:
            task.cancel()
        for transport in transports:
            transport.close()


def _amplitude(samples: Sequence[int], tone: int) -> float:
    """Give the amplitude of one frequency."""
    if len(samples) < LEAST_SAMPLES:
        return 0.0
    turn = cmath.exp(-2j * math.pi * tone / 8000)
    total, phase = 0j, 1 + 0j
    for sample in samples:
        total += sample * phase
        phase *= turn
    return 2 * abs(total) / len(samples)


def _to_alaw(sample: int) -> int:
    # ITU-T G.711; the sign bit is set for what is not negative.
    sign = 0x80 if sample >= 0 else 0
    size = min(abs(sample) >> 3, 0xFFF)
    exponent = max(0, size.bit_length() - 5)
    mantissa = (size >> max(1, exponent)) & 0x0F
    return (sign | exponent << 4 | mantissa) ^ 0x55


def _of_alaw(byte: int) -> int:
    byte ^= 0x55
    exponent, mantissa = byte >> 4 & 7, byte & 0x0F
    size = (mantissa << 1 | 1 | (0x20 if exponent else 0)) << max(0, exponent - 1)
    return (size << 3) * (1 if byte & 0x80 else -1)


_FROM_ALAW = [_of_alaw(byte) for byte in range(256)]
