"""The scenarios that SIPp plays, as XML.

Each ``<log>`` line is ``EVENT CALL-ID [DETAIL]``; `tests.sip.sipp` says how Python hears them and steers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sip.rtp import EVENT_PAYLOAD, PCMA, Stalls

if TYPE_CHECKING:
    from pathlib import Path

REFUSALS = (400, 401, 403, 404, 405, 408, 410, 415, 420, 480, 481, 482, 483, 484, 486, 487, 488, 491, 500, 501, 502,
            503, 504, 600, 603, 604, 606)  # fmt: skip
NAMES = {480: "Temporarily Unavailable", 486: "Busy Here", 603: "Decline"}


@dataclass(frozen=True, slots=True)
class Handset:
    """What kind of phone the caller has, and the network it is in."""

    codec: int = PCMA
    event_payload: int = EVENT_PAYLOAD
    silence_audio: bool = False
    lasting_ms: int = 200
    stalls: Stalls | None = None


def _send(message: str, *, again: bool = True, then: str = "") -> str:
    # Not a <nop next=...> after it: while a request is unanswered, SIPp waits there, and takes no message.
    following = f' next="{then}"' if then else ""
    retrans = ' retrans="500"' if again else ""
    return f"<send{retrans}{following}><![CDATA[\n\n{message.strip()}\n\n]]></send>\n"


def _sdp(handset: Handset) -> str:
    # SIPp takes the port that it sends RTP from out of the m= line: Python's, four above its own.
    codec, event = handset.codec, handset.event_payload
    return f"""Content-Type: application/sdp
        Content-Length: [len]

        v=0
        o=phone 1 1 IN IP4 [local_ip]
        s=-
        c=IN IP4 [media_ip]
        t=0 0
        m=audio [media_port+4] RTP/AVP {codec} {event}
        a=rtpmap:{codec} {"PCMA" if codec == PCMA else "PCMU"}/8000
        a=rtpmap:{event} telephone-event/8000
        a=fmtp:{event} 0-15
        a=ptime:20
        a=sendrecv"""


def _answer(
    status: str, *, to: str = "[last_To:]", extra: str = "Content-Length: 0", cseq: str = "[last_CSeq:]"
) -> str:
    """Answer the request that came last."""
    return f"""
        SIP/2.0 {status}
        [last_Via:]
        [last_From:]
        {to}
        [last_Call-ID:]
        {cseq}
        Contact: <sip:phone@[local_ip]:[local_port]>
        {extra}"""


def _play(pcap: Path | None) -> str:
    return f'<nop><action><exec play_pcap_audio="{pcap}"/></action></nop>\n' if pcap else ""


def _log(line: str) -> str:
    return f'<nop><action><log message="{line}"/></action></nop>\n'


def _label(name: str) -> str:
    return f'<label id="{name}"/>\n'


def _scenario(name: str, steps: list[str], unused: str) -> str:
    """Variables that are set only to be tested or left must be named, or SIPp refuses the scenario."""
    body = "".join(steps)
    return (
        f'<?xml version="1.0" encoding="UTF-8" ?>\n<scenario name="{name}">\n{body}'
        f'<label id="gone"/>\n<nop/>\n<Reference variables="{unused}"/>\n</scenario>\n'
    )


_ORDERS = """
    <action>
      <ereg regexp="hangup" search_in="hdr" header="Subject:" assign_to="hangup"/>
      <ereg regexp="info ([0-9*#A-D]) ([0-9]+)" search_in="hdr" header="Subject:" assign_to="info,digit,duration"/>
    </action>
"""


def caller(
    number: str, own_number: str, handset: Handset, pcap: Path | None, *, hang_up_on_answer: bool = False
) -> str:
    """A citizen's phone: calls, sends a first round of tones when it is answered, and then does as it is told."""

    def request(method: str, uri: str = "[next_url]", cseq: str = "[cseq]", body: str = "Content-Length: 0") -> str:
        return f"""
        {method} {uri} SIP/2.0
        Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]x[cseq]
        From: <sip:{own_number}@[local_ip]:[local_port]>;tag=[pid]t[call_number]
        To: <sip:{number}@[remote_ip]:[remote_port]>{"" if method == "INVITE" else "[peer_tag_param]"}
        Call-ID: [call_id]
        CSeq: {cseq} {method}
        Contact: <sip:{own_number}@[local_ip]:[local_port]>
        Max-Forwards: 70
        {body}"""

    target = f"sip:{number}@[remote_ip]:[remote_port]"
    where = '<action><ereg regexp="m=audio ([0-9]+)" search_in="msg" assign_to="media,port"/></action>'
    relay = "Content-Type: application/dtmf-relay\nContent-Length: [len]\n\nSignal=[$digit]\nDuration=[$duration]\n"
    return _scenario(
        "caller",
        [
            _send(request("INVITE", target, body=_sdp(handset))),
            *(f'<recv response="{code}" optional="true"/>\n' for code in (100, 180, 181, 182, 183)),
            *(
                f'<recv response="{code}" optional="true" next="refused">'
                f'<action><log message="ended [call_id] refused {code}"/></action></recv>\n'
                for code in REFUSALS
            ),
            f'<recv response="200" rrs="true">{where}</recv>\n',
            _send(request("ACK", cseq="1"), again=False),
            _play(pcap),
            _log("answered [call_id] [$port]"),
            '<nop next="bye-out"/>\n' if hang_up_on_answer else "",
            _label("wait"),
            '<recv request="BYE" optional="true" next="bye-in"/>\n',
            f'<recv request="MESSAGE">{_ORDERS}</recv>\n',
            '<nop next="bye-out" test="hangup"/>\n',
            _send(request("INFO", body=relay)),
            '<recv request="BYE" optional="true" next="bye-in"/>\n',
            '<recv response="200" next="wait"><action><log message="told [call_id]"/></action></recv>\n',
            _label("bye-in"),
            _send(_answer("200 OK"), again=False),
            '<nop next="gone"><action><log message="ended [call_id] pbx"/></action></nop>\n',
            _label("bye-out"),
            _send(request("BYE")),
            _label("crossed"),
            '<recv request="BYE" optional="true" next="late"/>\n',
            '<recv request="MESSAGE" optional="true" next="crossed"/>\n',
            '<recv response="481" optional="true" next="gone-there"/>\n',
            '<recv response="200"/>\n',
            _label("gone-there"),
            '<nop next="gone"><action><log message="ended [call_id] phone"/></action></nop>\n',
            _label("late"),
            _send(_answer("200 OK"), again=False, then="crossed"),
            _label("refused"),
            _send(
                f"""
                ACK {target} SIP/2.0
                [last_Via:]
                [last_From:]
                [last_To:]
                Call-ID: [call_id]
                CSeq: 1 ACK
                Max-Forwards: 70
                Content-Length: 0""",
                again=False,
            ),
        ],
        "media,info,digit,duration,hangup,port",
    )


def player(pcap: Path, lasting_ms: int, media_port: int, own_media_port: int) -> str:
    """Send a further round of tones from the media port of a phone that has a call.

    SIPp reads its pcap files when it starts, so this is a SIPp of its own; it asks Python where the RTP goes.
    """
    return _scenario(
        "player",
        [
            _send(f"""
                MESSAGE sip:where@[remote_ip]:[remote_port] SIP/2.0
                Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]x[cseq]
                From: <sip:player@[local_ip]:[local_port]>;tag=[pid]
                To: <sip:where@[remote_ip]:[remote_port]>
                Call-ID: [call_id]
                CSeq: [cseq] MESSAGE
                Content-Type: application/sdp
                Content-Length: [len]

                v=0
                c=IN IP4 [media_ip]
                m=audio [media_port{media_port - own_media_port:+d}] RTP/AVP 8"""),
            '<recv response="200"/>\n',
            _play(pcap),
            _log("playing [call_id]"),
            f'<pause milliseconds="{lasting_ms}"/>\n',
        ],
        "",
    ).replace('<Reference variables=""/>\n', "")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What an agent's phone does with a call: made by `answer`, `busy`, `decline`, `unavailable` and `silent`."""

    status: int
    after_ms: int = 0
    hangup_after_ms: int | None = None
    audio_ms: int = 0


def answer(after_ms: int = 0, hangup_after_ms: int | None = None, audio_ms: int = 0) -> Behaviour:
    """Ring, answer after a while, send silence for ``audio_ms``, and perhaps hang up after a while."""
    return Behaviour(200, after_ms, hangup_after_ms, audio_ms)


def busy() -> Behaviour:
    """Say 486."""
    return Behaviour(486)


def decline() -> Behaviour:
    """Say 603, as a phone does on which somebody pressed the red button."""
    return Behaviour(603)


def unavailable() -> Behaviour:
    """Say 480."""
    return Behaviour(480)


def silent() -> Behaviour:
    """Ring until the other side gives up."""
    return Behaviour(180)


def _timeout(milliseconds: int | None, then: str) -> str:
    return "" if milliseconds is None else f' timeout="{max(milliseconds, 1)}" ontimeout="{then}"'


_TAGGED = "[last_To:];tag=[pid]a[call_number]"


def _cancelled() -> list[str]:
    ended = '<action><log message="ended [call_id] cancelled"/></action>'
    return [
        _label("cancelled"),
        _send(_answer("200 OK", to=_TAGGED), again=False),
        _send(_answer("487 Request Terminated", to=_TAGGED, cseq="CSeq: [last_cseq_number] INVITE")),
        f'<recv request="ACK" next="gone">{ended}</recv>\n',
    ]


def _answering(behaviour: Behaviour, handset: Handset, pcap: Path | None) -> list[str]:
    bye = """
        BYE [next_url] SIP/2.0
        Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]x[cseq]
        From: [$us];tag=[pid]a[call_number]
        To: [$them]
        Call-ID: [call_id]
        CSeq: [cseq] BYE
        Max-Forwards: 70
        Content-Length: 0"""
    ringing = f'<recv request="CANCEL" next="cancelled"{_timeout(behaviour.after_ms, "answer")}/>\n'
    hanging_up = _timeout(behaviour.hangup_after_ms, "bye-out")
    return [
        ringing if behaviour.after_ms else "",
        _label("answer"),
        _send(_answer("200 OK", to=_TAGGED, extra=_sdp(handset))),
        _label("unacknowledged"),
        '<recv request="CANCEL" optional="true" next="late-cancel"/>\n',
        '<recv request="ACK"/>\n',
        _play(pcap),
        _log("answered [call_id]"),
        # SIPp heeds the timeout of the first of several that it waits for.
        f'<recv request="BYE" optional="true" next="bye-in"{hanging_up}/>\n',
        '<recv request="MESSAGE"/>\n',
        _label("bye-out"),
        _send(bye),
        _label("crossed"),
        '<recv request="BYE" optional="true" next="late-bye"/>\n',
        '<recv request="MESSAGE" optional="true" next="crossed"/>\n',
        '<recv response="481" optional="true" next="gone-there"/>\n',
        '<recv response="200"/>\n',
        _label("gone-there"),
        '<nop next="gone"><action><log message="ended [call_id] phone"/></action></nop>\n',
        _label("late-bye"),
        _send(_answer("200 OK"), again=False, then="crossed"),
        _label("late-cancel"),
        _send(_answer("200 OK", to=_TAGGED), again=False, then="unacknowledged"),
        _label("bye-in"),
        _send(_answer("200 OK"), again=False),
        '<nop next="gone"><action><log message="ended [call_id] pbx"/></action></nop>\n',
        *(_cancelled() if behaviour.after_ms else ()),
    ]


def _registering(name: str, password: str) -> list[str]:
    def register(extra: str) -> str:
        return _send(f"""
        REGISTER sip:[remote_ip]:[remote_port] SIP/2.0
        Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]x[cseq]
        From: <sip:{name}@[remote_ip]:[remote_port]>;tag=[pid]r[call_number]
        To: <sip:{name}@[remote_ip]:[remote_port]>
        Call-ID: [call_id]
        CSeq: [cseq] REGISTER
        Contact: <sip:{name}@[local_ip]:[local_port]>
        {extra}Expires: [$expires]
        Max-Forwards: 70
        Content-Length: 0""")

    refusals = (
        f'<recv response="{code}" optional="true" next="gone">'
        f'<action><log message="registered [call_id] {code}"/></action></recv>\n'
        for code in (401, 403, 404, 503)
    )
    return [
        _label("order"),
        '<nop next="hello" test="hello"/>\n',
        # A SIPp that serves sends to whom it last heard from; -rsa would take another port, and break the contact.
        '<nop><action><setdest host="[remote_ip]" port="[remote_port]" protocol="udp"/></action></nop>\n',
        register(""),
        '<recv response="401" auth="true"/>\n',
        register(f"[authentication username={name} password={password}]\n        "),
        *refusals,
        '<recv response="200" next="gone"><action><log message="registered [call_id] 200"/></action></recv>\n',
        _label("hello"),
        '<nop next="gone"><action><log message="hello [call_id]"/></action></nop>\n',
    ]


def agent(name: str, password: str, behaviour: Behaviour, handset: Handset, pcap: Path | None) -> str:
    """An agent's phone: registers when told so, says that it is there, and treats each call in one way."""
    orders = """<action>
      <ereg regexp="hello" search_in="hdr" header="Subject:" assign_to="hello"/>
      <ereg regexp="register ([0-9]+)" search_in="hdr" header="Subject:" assign_to="order,expires"/>
    </action>"""
    parties = """<action>
      <ereg regexp="&lt;.*" search_in="hdr" header="From:" assign_to="them"/>
      <ereg regexp="&lt;.*" search_in="hdr" header="To:" assign_to="us"/>
      <log message="rung [call_id] [$them]"/>
    </action>"""
    steps = [
        '<recv request="OPTIONS" optional="true" next="options"/>\n',
        f'<recv request="MESSAGE" optional="true" next="order">{orders}</recv>\n',
        f'<recv request="INVITE" rrs="true">{parties}</recv>\n',
    ]
    match behaviour.status:
        case 180:
            steps += [
                _send(_answer("180 Ringing", to=_TAGGED), again=False),
                '<recv request="CANCEL"/>\n',
                *_cancelled(),
            ]
        case 200:
            steps += [_send(_answer("180 Ringing", to=_TAGGED), again=False), *_answering(behaviour, handset, pcap)]
        case code:
            ended = f'<action><log message="ended [call_id] refused {code}"/></action>'
            steps += [
                _send(_answer(f"{code} {NAMES[code]}", to=_TAGGED)),
                f'<recv request="ACK" next="gone">{ended}</recv>\n',
            ]
    steps += [_label("options"), _send(_answer("200 OK", to=_TAGGED), again=False), '<nop next="gone"/>\n']
    return _scenario("agent", [*steps, *_registering(name, password)], "hello,order,expires,them,us")
