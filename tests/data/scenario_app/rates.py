"""Something that takes its time and is not the database."""

from __future__ import annotations

import asyncio


async def exchange_rate(currency: str) -> float:
    await asyncio.sleep(0)
    return 1.0
