"""Pipecat hears speech alone: the transport's input passes the filter before everything else.

python examples/pipecat_filter.py IN.wav OUT.wav

Here the transport plays a mono file. With a microphone, give its parameters to another transport.
"""

import asyncio
import sys

import numpy as np
import soundfile
from pipecat.frames.frames import EndFrame, InputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

from rtsep.integrations.pipecat import RtsepFilter


class File(BaseInputTransport):
    """Plays samples as fast as they are heard."""

    def __init__(self, params, samples, rate):
        super().__init__(params)
        self.samples, self.rate = samples, rate

    async def start(self, frame):
        await super().start(frame)
        await self.set_transport_ready(frame)
        for part in np.array_split(self.samples, len(self.samples) * 50 // self.rate):
            await self.push_audio_frame(InputAudioRawFrame(part.tobytes(), self.rate, 1))
            await asyncio.sleep(0)


class Listener(FrameProcessor):
    """Stands for speech recognition: it keeps what it hears."""

    def __init__(self):
        super().__init__()
        self.heard = b""

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.heard += frame.audio
        await self.push_frame(frame, direction)


async def main(source, target):
    samples, rate = soundfile.read(source, dtype="int16")
    cleaner = RtsepFilter("speech")
    params = TransportParams(audio_in_enabled=True, audio_in_filter=cleaner)
    listener = Listener()
    pipeline = Pipeline([File(params, samples, rate), listener])
    worker = PipelineWorker(pipeline, params=PipelineParams(audio_in_sample_rate=rate))
    await (runner := WorkerRunner()).add_workers(worker)
    running = asyncio.create_task(runner.run())
    while len(listener.heard) / 2 < len(samples) - rate * (cleaner.latency_ms + 1) / 1000:
        await asyncio.sleep(0.05)  # the last samples stay in the filter
    await worker.queue_frame(EndFrame())
    await running
    soundfile.write(target, np.frombuffer(listener.heard, np.int16), rate)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
