"""Holds connections on which a part of a request is sent, and opens each anew when it ends; a process of its own.

Or who floods and who is to be served would wait for each other. Reads what to hold as JSON from standard input, in one
line, says when all of it was begun, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
from contextlib import suppress

BEGIN_SECONDS = 3.0
AGAIN_SECONDS = (2.0, 6.0)


async def insist(port: int, source: str, request: str) -> None:
    """Hold a connection from an address on which this and nothing more is sent; and another one when it ends."""
    await asyncio.sleep(BEGIN_SECONDS * random.random())
    while True:
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            try:
                writer.write(request.encode())
                while await reader.read(1 << 16):
                    pass
            finally:
                writer.close()
        # All together they would come in waves.
        await asyncio.sleep(random.uniform(*AGAIN_SECONDS))


async def main() -> None:
    wanted = json.loads(sys.stdin.readline())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, len(wanted) + 1000), hard))
    async with asyncio.TaskGroup() as group:
        holding = [group.create_task(insist(*one)) for one in wanted]
        await asyncio.sleep(BEGIN_SECONDS)
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        for task in holding:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
