"""The private Asterisk of the demo and the tests: what is told when it cannot be set up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from idbellen.demo.pbx import Pbx, PbxError, PbxSettings

if TYPE_CHECKING:
    from pathlib import Path


def test_prompts_that_cannot_be_copied_are_told_in_one_line(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts"
    for folder in ("nl/idbellen", "moh"):
        (prompts / folder).mkdir(parents=True)
    for number in range(40):
        (prompts / f"nl/idbellen/place-{number}.wav").symlink_to(tmp_path / "nowhere")
    pbx = Pbx(
        PbxSettings(
            directory=tmp_path / "pbx", prompts=prompts, ari_port=1, sip_port=2, rtp_start=10, rtp_end=20, agents=()
        )
    )
    told = f"cannot copy prompts to {tmp_path}/pbx/data/sounds/nl/idbellen: [Errno 2] No such file or directory"
    with pytest.raises(PbxError, match=f"^{re.escape(told)}$"):
        pbx.write()
