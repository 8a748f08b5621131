"""Short runs of tests/faults.py with fixed seeds, one with each store; ``make soak`` is a long one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults import WITH_REDIS, WITH_SQLITE, Scale, on_stage, perform, plan

if TYPE_CHECKING:
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.sipp import Phones

SECONDS, APART = 30.0, 2.0


@pytest.mark.parametrize(("redis", "seed"), [(False, 1), (True, 2)], ids=["SQLite", "Redis"])
async def test_callers_agents_and_faults_at_random(  # noqa: PLR0913 - one thing each
    pbx: Pbx, telephony: Phones, keys_folder: Path, tmp_path: Path, seed: int, *, redis: bool
) -> None:
    faults = plan(seed, WITH_REDIS if redis else WITH_SQLITE, SECONDS, APART)
    async with on_stage(seed, pbx, keys_folder, tmp_path, telephony, redis=redis) as stage:
        figures = await perform(stage, faults, Scale())
    # Shown when one of these does not hold.
    sys.stdout.write(f"{figures}\n")
    assert figures.faults["kill -9"]
    assert figures.calls["answered in the history"] > 3
    assert figures.checks["screens"]
