"""What a caller's or an agent's phone does, as SIPp has it: texts for tests/support/sipp.py to run.

A scenario waits for a SIP MESSAGE in its own dialog where a test is to say when it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.rtp import ALAW, Codec

if TYPE_CHECKING:
    from tests.support.rtp import Sound

CALLER_NUMBER = "0687654321"
# With UPDATE Asterisk asks by that whether a phone is still there, and not by another INVITE.
ALLOW = "Allow: INVITE, ACK, BYE, CANCEL, INFO, MESSAGE, NOTIFY, OPTIONS, UPDATE"


def audio(sound: Sound | None, codec: Codec = ALAW) -> str:
    """Give the description of the audio: the test's own, or what SIPp replays."""
    port = str(sound.port) if sound else "[media_port]"
    return f"""v=0
o=sipp 1 1 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=audio {port} {codec.sdp}"""


def _headers(number: str, *, branch: str = "branch", tag: str = "[peer_tag_param]") -> str:
    return f"""Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[{branch}]
From: <sip:{number}@[local_ip]:[local_port]>;tag=caller
To: <sip:[service]@[remote_ip]:[remote_port]>{tag}
Call-ID: [call_id]
Contact: <sip:{number}@[local_ip]:[local_port]>
{ALLOW}
Max-Forwards: 70"""


CALLER_HEADERS = _headers(CALLER_NUMBER)

OK_TO_REQUEST = """<send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>"""


def log(text: str) -> str:
    return f'<nop><action><log message="{text}"/></action></nop>'


def cdata(text: str, *, body: str = "") -> str:
    length = "Content-Type: application/sdp\nContent-Length: [len]" if body else "Content-Length: 0"
    return f"<![CDATA[\n{text}\n{length}\n\n{body}\n]]>"


def _request(method: str, cseq: str, *, body: str = "", headers: str = CALLER_HEADERS) -> str:
    text = f"{method} sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n{headers}\nCSeq: {cseq} {method}"
    retransmit = "" if method == "ACK" else ' retrans="500"'
    return f"<send{retransmit}>{cdata(text, body=body)}</send>"


def invite(sdp: str) -> str:
    return f"""
{_request("INVITE", "1", body=sdp)}
{_ANSWERED}
{_request("ACK", "1")}
"""


_ANSWERED = """
<recv response="100" optional="true"/>
<recv response="180" optional="true"/>
<recv response="183" optional="true"/>
<recv response="200"><action>
<ereg regexp="tag=[^;]*" search_in="hdr" header="To:" assign_to="theirs"/>
<log message="dialog [$theirs]"/>
</action></recv>
"""
WAIT = """
<recv request="BYE" optional="true" next="1"/>
<recv request="MESSAGE"/>
"""
# Both may hang up in the same moment: then each answers the other.
_BYES_CROSSED = f"""
{OK_TO_REQUEST}
<recv response="481" optional="true" next="8"/>
<recv response="200"/>
<label id="8"/>
<nop/>
"""
_ENDED = f"""
<recv request="BYE" optional="true" next="7"/>
<recv response="200"/>
{log("ended by caller")}
<nop next="2"/>
<label id="7"/>
{_BYES_CROSSED}
{log("ended by asterisk")}
<nop next="2"/>
<label id="1"/>
{OK_TO_REQUEST}
{log("ended by asterisk")}
<label id="2"/>
<nop/>
"""
HANG_UP = f"""
{_request("BYE", "900")}
{_ENDED}
"""


def dial(agent: str, password: str) -> str:
    """Give the scenario of an agent's phone that calls, proves who it is, and waits for the end."""
    headers = _headers(agent)
    sdp = audio(None)
    # To the transaction that was refused; the second try is no part of its dialog.
    refused = _headers(agent, branch="branch-3")
    proof = f"{_headers(agent, tag='')}\n[authentication username={agent} password={password}]"
    return f"""
{_request("INVITE", "1", body=sdp, headers=headers)}
<recv response="100" optional="true"/>
<recv response="401" auth="true"/>
{_request("ACK", "1", headers=refused)}
{_request("INVITE", "2", body=sdp, headers=proof)}
{_ANSWERED}
{_request("ACK", "2", headers=headers)}
{log("answered")}
{WAIT}
{_request("BYE", "900", headers=headers)}
{_ENDED}
"""


def key_by_info(key: str) -> str:
    info = (
        f"INFO sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n{CALLER_HEADERS}\nCSeq: [cseq] INFO\n"
        f"Content-Type: application/dtmf-relay\nContent-Length: [len]\n\nSignal={key}\nDuration=100"
    )
    return f"""
<send retrans="500"><![CDATA[\n{info}\n]]></send>
<recv response="200"/>
<pause milliseconds="120"/>
"""


# Asterisk asks with OPTIONS whether a phone is still there.
TAKE_INVITE = """
<recv request="OPTIONS" optional="true" next="9"/>
<recv request="INVITE"><action>
<ereg regexp=".*" search_in="hdr" header="From:" assign_to="from"/>
<ereg regexp=".*" search_in="hdr" header="To:" assign_to="to"/>
<ereg regexp=".*" search_in="hdr" header="Via:" assign_to="via"/>
<ereg regexp="[0-9]+" search_in="hdr" header="CSeq:" assign_to="cseq"/>
<ereg regexp="sip:[^&gt;]*" search_in="hdr" header="Contact:" assign_to="contact"/>
<log message="rung [call_id]"/>
</action></recv>
<Reference variables="from,to,via,cseq,contact"/>
"""


# RFC 3261, 17.2.2: who asks again is answered again, since an Asterisk that starts hears no answer yet. Asterisk waits
# 2 s for one (qualify_timeout).
END = f"""
<nop next="10"/>
<label id="9"/>
{OK_TO_REQUEST}
<pause milliseconds="4000"/>
<label id="10"/>
<nop/>
"""


# RFC 3261, 13.3.1.4: an ACK that got lost comes again.
UNTIL_ACK = ' retrans="500"'


def reply(status: str, *, body: str = "", retransmit: str = "") -> str:
    text = (
        f"SIP/2.0 {status}\nVia:[$via]\nFrom:[$from]\nTo:[$to];tag=agent[call_number]\n[last_Call-ID:]\n"
        f"CSeq: [$cseq] INVITE\nContact: <sip:agent@[local_ip]:[local_port]>\n{ALLOW}"
    )
    return f"<send{retransmit}>{cdata(text, body=body)}</send>"


def refuse(status: str) -> str:
    return f'{TAKE_INVITE}{reply("180 Ringing")}{reply(status)}<recv request="ACK"/>{log("over")}{END}'


def in_dialog(method: str, cseq: int) -> str:
    """Give a request of a phone that was rung, up to its own headers."""
    return (
        f"{method} [$contact] SIP/2.0\nVia: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]\n"
        f"From:[$to];tag=agent[call_number]\nTo:[$from]\nCall-ID: [call_id]\nCSeq: {cseq} {method}\nMax-Forwards: 70"
    )


def hold_key(cseq: int, sdp: str, *, on: bool) -> str:
    """Give the steps of a phone that was rung, and whose hold key is pressed (RFC 3264, 8.4)."""
    invite = f"{in_dialog('INVITE', cseq)}\nContact: <sip:agent@[local_ip]:[local_port]>"
    body = f"{sdp}\na={'sendonly' if on else 'sendrecv'}".replace("o=sipp 1 1 ", f"o=sipp 1 {cseq} ")
    return f"""<send retrans="500">{cdata(invite, body=body)}</send>
<recv response="100" optional="true"/>
<recv response="200"/>
<send>{cdata(in_dialog("ACK", cseq))}</send>"""


# What the test sends to a phone that talks, for its hold key; it can be pressed so often in a call.
HOLD_KEY = "INFO"
PRESSED_AT_MOST = 4


def _talk(sdp: str) -> str:
    """Give the steps of a phone that talks until it is told to hang up (label 20), and whose hold key works."""
    steps = []
    for number in range(PRESSED_AT_MOST):
        on = number % 2 == 0
        steps += [
            '<recv request="BYE" optional="true" next="2"/>',
            f'<recv request="{HOLD_KEY}" optional="true" next="{21 + number}"/>',
            f'<recv request="MESSAGE"/>\n<nop next="20"/>\n<label id="{21 + number}"/>',
            hold_key(800 + number, sdp, on=on),
            log("holds" if on else "resumes"),
        ]
    return "\n".join(
        [*steps, '<recv request="BYE" optional="true" next="2"/>\n<recv request="MESSAGE"/>\n<label id="20"/>']
    )


def answer(after_ms: int, sdp: str, *, talks_ms: int = 0) -> str:
    """Give the scenario of a phone that answers and talks until it is told to hang up, or for so long."""
    until = _talk(sdp)
    if talks_ms:
        until = f"""<recv request="BYE" next="2" timeout="{talks_ms}" ontimeout="6"/>
<label id="6"/>
<nop/>"""
    return f"""
{TAKE_INVITE}
{reply("180 Ringing")}
<recv request="CANCEL" next="4" timeout="{max(1, after_ms)}" ontimeout="1"><action>
<ereg regexp=".*" search_in="hdr" header="Reason:" assign_to="reason"/>
<log message="cancelled [$reason]"/>
</action></recv>
<label id="1"/>
{reply("200 OK", body=sdp, retransmit=UNTIL_ACK)}
<recv request="ACK"/>
{log("talking")}
{until}
<send retrans="500">{cdata(in_dialog("BYE", 900))}</send>
<recv request="BYE" optional="true" next="7"/>
<recv response="200" next="5"/>
<label id="7"/>
{_BYES_CROSSED}
<nop next="5"/>
<label id="2"/>
{OK_TO_REQUEST}
<label id="5"/>
{log("talked")}
<nop next="3"/>
<label id="4"/>
{OK_TO_REQUEST}
{reply("487 Request Terminated")}
<recv request="ACK"/>
<label id="3"/>
{log("over")}
{END}
"""


def register(name: str, password: str, expires: int) -> str:
    """Give the scenario of a phone that registers for so many seconds; 0: it unregisters."""

    def request(number: int, proof: str = "") -> str:
        return f"""<send retrans="500"><![CDATA[
REGISTER sip:[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:{name}@127.0.0.1>;tag=register
To: <sip:{name}@127.0.0.1>
Call-ID: [call_id]
CSeq: {number} REGISTER
Contact: <sip:{name}@[local_ip]:[local_port]>
Expires: {expires}
{proof}Max-Forwards: 70
Content-Length: 0

]]></send>"""

    proof = f"[authentication username={name} password={password}]\n"
    return f"""
{request(1)}
<recv response="401" auth="true"/>
{request(2, proof)}
<recv response="200"/>
"""
