"""A link with a delay: what arrives at a port goes to another one of this machine so many seconds later.

python tools/bench/far.py DELAY_S PORT TO
"""

from __future__ import annotations

import asyncio
import sys


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Carry one direction to its end; what is on its way holds up nothing that follows."""
    clock = asyncio.get_running_loop().time
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def arrive() -> None:
        data = b"more"
        while data:
            due, data = await under_way.get()
            await asyncio.sleep(due - clock())
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    arriving = asyncio.create_task(arrive())
    data = b"more"
    while data:
        data = await reader.read(1 << 18)
        under_way.put_nowait((clock() + delay_s, data))
    await arriving


async def main(delay_s: float, port: int, to: int) -> None:
    """Serve until it is killed."""

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(carry(reader, back, delay_s), carry(there, writer, delay_s), return_exceptions=True)
        writer.close()
        back.close()

    async with await asyncio.start_server(join, "127.0.0.1", port) as server:
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
