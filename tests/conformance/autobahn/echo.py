"""A WebSocket echo server: the library `websockets`, with compression for those who ask. Usage: echo.py PORT."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=1 << 25):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
