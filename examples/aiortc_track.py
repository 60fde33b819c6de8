"""aiortc hears speech alone: a track around another track.

python examples/aiortc_track.py IN.wav OUT.wav

Here a player is the other track and a recorder the listener; `peer.addTrack` takes the track too.
"""

import asyncio
import sys

from aiortc.contrib.media import MediaPlayer, MediaRecorder

from rtsep.integrations.webrtc import SeparatedTrack


async def main(source, target):
    track = SeparatedTrack(MediaPlayer(source).audio, "speech")
    recorder = MediaRecorder(target)
    recorder.addTrack(track)
    ended = asyncio.Event()
    track.track.on("ended", ended.set)
    await recorder.start()
    await ended.wait()
    await recorder.stop()
    print(f"{track.latency_ms:.0f} ms late")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
