"""Short runs of tests/support/faults.py with fixed seeds, one of each setting; ``make soak`` is a long one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.faults import KINDS, Scale, on_stage, perform, plan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.support.faults import Kind, Setting
    from tests.support.sipp import Phones

SECONDS, APART = 30.0, 2.0
# With two processes only what makes them take turns; make soak has the rest too.
SHORT: dict[Setting, Sequence[Kind]] = {
    **KINDS,
    "Redis, two processes": ("kill -9", "planned restart", "turn lapses", "one without Redis"),
}


@pytest.mark.parametrize(("seed", "setting"), list(enumerate(SHORT, 1)), ids=list(SHORT))
async def test_callers_agents_and_faults_at_random(  # noqa: PLR0913, PLR0917 - one thing each
    pbx: Pbx, telephony: Phones, keys_folder: Path, tmp_path: Path, seed: int, setting: Setting
) -> None:
    faults = plan(seed, SHORT[setting], SECONDS, APART)
    async with on_stage(seed, pbx, keys_folder, tmp_path, telephony, setting=setting) as stage:
        figures = await perform(stage, faults, Scale())
    # Shown when one of these does not hold.
    sys.stdout.write(f"{figures}\n")
    assert figures.faults["kill -9"]
    assert figures.calls["answered in the history"] > 3
    assert figures.checks["screens"]
