"""Separate in a sounddevice stream: the callback moves blocks, a thread separates them.

python examples/sounddevice_stream.py [DEVICE] [SECONDS]
"""

import queue
import sys
import threading

import numpy as np
import sounddevice

import rtsep

RATE, BLOCK = 48000, 480
AHEAD = 2  # blocks of headroom for the thread: a term of the latency


class Suppressor:
    """Separates blocks between microphone and loudspeaker."""

    def __init__(self):
        self.sep = rtsep.load("speech", sample_rate=RATE, block=BLOCK)
        self.heard, self.ready = queue.SimpleQueue(), queue.SimpleQueue()
        for _ in range(AHEAD):
            self.ready.put(np.zeros(BLOCK, np.float32))
        self.missed = self.owed = 0
        self.latency_ms = self.sep.latency.ms + 1000 * AHEAD * BLOCK / RATE
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        while (block := self.heard.get()) is not None:
            self.ready.put(self.sep.process(block)["speech"])

    def callback(self, indata, outdata, frames, time, status):
        self.heard.put(indata[:, 0].copy())  # the device reuses its buffer
        while self.owed and not self.ready.empty():
            self.ready.get()  # too late: drop it, so that later blocks are in time
            self.owed -= 1
        try:
            outdata[:, 0] = self.ready.get_nowait()
        except queue.Empty:
            outdata[:] = 0
            self.missed, self.owed = self.missed + 1, self.owed + 1

    def close(self):
        self.heard.put(None)
        self.thread.join()


def main(device=None, seconds=10.0):
    suppressor = Suppressor()
    print(f"{suppressor.latency_ms:.1f} ms beside the device's own")
    settings = {"samplerate": RATE, "blocksize": BLOCK, "channels": 1, "dtype": "float32"}
    with sounddevice.Stream(device=device, callback=suppressor.callback, **settings) as stream:
        sounddevice.sleep(round(1000 * seconds))
        print(f"the device's own: {1000 * sum(stream.latency):.1f} ms")
    suppressor.close()
    print(f"{suppressor.missed} blocks missed")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
