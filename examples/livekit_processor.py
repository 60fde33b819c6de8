"""LiveKit hears speech alone: the audio stream of a track has a frame processor.

python examples/livekit_processor.py IN.wav OUT.wav

Here the track is a local one that plays a mono file, so no server is needed. With a room, make the
stream in the handler of "track_subscribed", with the same processor.
"""

import asyncio
import sys

import numpy as np
import soundfile
from livekit import rtc

from rtsep.integrations.livekit import RtsepProcessor

RATE = 24000  # of the agent


async def play(source, samples, rate):
    for part in np.array_split(samples, len(samples) * 100 // rate):
        await source.capture_frame(rtc.AudioFrame(part.tobytes(), rate, 1, len(part)))


async def listen(stream, heard):
    async for event in stream:
        heard.append(np.frombuffer(event.frame.data, np.int16))


async def main(source, target):
    samples, rate = soundfile.read(source, dtype="int16")
    microphone = rtc.AudioSource(rate, 1)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", microphone)
    processor = RtsepProcessor("speech", sample_rate=RATE)
    stream = rtc.AudioStream.from_track(
        track=track,
        sample_rate=RATE,
        frame_size_ms=50,
        noise_cancellation=processor,
    )
    heard = []
    listening = asyncio.create_task(listen(stream, heard))
    await play(microphone, samples, rate)
    await microphone.wait_for_playout()
    await asyncio.sleep(0.2)  # for the last frames
    await stream.aclose()
    await listening
    processor._close()
    print(f"{processor.latency_ms:.0f} ms and one frame late; {processor.late} frames were late")
    soundfile.write(target, np.concatenate(heard), RATE)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
