"""A WebSocket echo server: the library `websockets`, with compression for those who ask. Usage: echo.py PORT."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    # No pings of its own: the suite's long cases do not expect any, and fail with the first, which comes after 20 s.
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=1 << 25, ping_interval=None):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
