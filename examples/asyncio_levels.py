"""Print the levels of a live stream's sources, in an asyncio program.

python examples/asyncio_levels.py [DEVICE] [SECONDS]
"""

import asyncio
import sys

import numpy as np

import rtsep


async def levels(stream):
    async for stems in stream.blocks(size=stream.sample_rate // 4):
        rms = {name: float(np.sqrt(np.mean(stem**2))) for name, stem in stems.items()}
        print("  ".join(f"{name} {20 * np.log10(x + 1e-5):6.1f} dB" for name, x in rms.items()))


async def main(device="demo", seconds=5.0):
    with rtsep.live(device) as stream:
        print(f"{stream.name}, {stream.latency}")
        reading = asyncio.create_task(levels(stream))
        await asyncio.sleep(seconds)  # other work of the program
        reading.cancel()
        print(f"{stream.stats['deadline_misses']} misses")


asyncio.run(main(*sys.argv[1:2], *map(float, sys.argv[2:3])))
