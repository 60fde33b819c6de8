"""Show and control a stream of the server's sound card in any number of browsers.

The sound does not pass through here. Levels and spectrograms are computed from the monitor of the
stream, and controls are the arrays that the audio path reads.
"""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.server import ServerConnection

from rtsep import weights
from rtsep.errors import ControlError, ProtocolError
from rtsep.realtime.builder import Stream
from rtsep.ui.connection import PICTURES_HZ, STATUS_S, Talk, first
from rtsep.ui.protocol import (
    Command,
    Control,
    Record,
    SetControl,
    SwitchModel,
    described,
    encode_spectra,
    faders,
    parse_command,
    parse_watch,
)
from rtsep.ui.spectra import BANDS, COLUMNS_HZ, Spectra, peaks_to_bytes

MOST_WAITING = 8
"""Largest number of waiting changes of model, device or recording."""


class Station:
    """A running stream that browsers show and control.

    Parameters
    ----------
    stream
        The stream.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        bundle = stream.control.loaded.bundle
        self._models = {name: name for name in weights.available()}
        if bundle.path is not None and bundle.metadata["name"] not in self._models:
            self._models[bundle.metadata["name"]] = str(bundle.path)

    def facts(self) -> dict[str, Any]:
        """Return what a page needs before its session."""
        return {"models": list(self._models), "device": self.stream.worker.device.name}

    def session(self, connection: ServerConnection) -> Watch:
        """Create the session of a connection."""
        return Watch(connection, self)

    @property
    def devices(self) -> list[str]:
        """Return the names of devices that may be requested, without paths."""
        return ["default", "demo", *self.stream.control.inputs]

    def obey(self, command: Command) -> str:
        """Execute a command; return the reason if it fails, else an empty string."""
        stream = self.stream.control
        if isinstance(command, Control):
            chains = self.stream.worker.chains
            done = [command.set(chain.mixer, chain.engine.spec.sources) for chain in chains]
            return "" if done[0] else "the current model has no such source"
        if isinstance(command, SetControl):
            try:
                stream.loaded.set_controls({command.name: command.values})
            except ControlError as error:
                return str(error)
            return ""
        if stream.waiting >= MOST_WAITING:
            return "the last changes are still in progress"
        if isinstance(command, Record):
            stream.record(command.on)
        elif isinstance(command, SwitchModel):
            if command.name not in self._models:
                return f"there is no such model; there are: {', '.join(self._models)}"
            stream.switch_model(self._models[command.name])
        else:
            if command.name not in self.devices:
                return "there is no such device"
            stream.switch_device(command.name)
        return ""


class Watch(Talk):
    """Shows the stream to one browser and executes its commands.

    Parameters
    ----------
    connection
        Connection of an admitted browser.
    station
        The stream.
    """

    def __init__(self, connection: ServerConnection, station: Station) -> None:
        super().__init__(connection)
        self._station, self._stream = station, station.stream
        self._live, self._control = station.stream.worker, station.stream.control
        self._controls: dict[str, Any] = {}

    async def serve(self) -> None:
        """Serve the session."""
        parse_watch(await self.hello())
        self._noticed, _ = self._stream.notices.last()
        if not self._control.waiting:  # slow, and another session may have just requested it
            self._control.look_for_inputs()
        self._meet()
        await first(self._receive(), self.send(), self._draw(), self._report())

    async def _receive(self) -> None:
        while True:
            message = await self.connection.recv()
            if isinstance(message, bytes):
                raise ProtocolError("this server separates the sound of its own device only")
            self.allow_command()
            problem = self._station.obey(parse_command(message))
            # The page shows its own change already; if another session has undone it since, the
            # controls are what they were, and the page must be told nevertheless.
            self._controls = {}
            if problem:
                self.say("problem", text=problem)

    def _meet(self) -> None:
        """Start to show the current model."""
        self._chain = chain = self._live.chain
        spec, late = chain.engine.spec, chain.engine.latency_samples
        self._spectra = Spectra(chain.scope, spec.sample_rate / 2, late)
        self._controls = described(chain.mixer, self._control.loaded.controls)
        self.say(
            "ready",
            model=self._control.loaded.name,
            sources=spec.sources,
            controls=self._controls,
            faders=faders(self._control.loaded),
            bands=BANDS,
            columns_hz=COLUMNS_HZ,
            top_hz=self._spectra.top_hz,
        )
        self._tell()

    async def _draw(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(1 / PICTURES_HZ)
            if self._live.chain is not self._chain:
                self._meet()
            controls = described(self._chain.mixer, self._control.loaded.controls)
            if controls != self._controls:
                self._controls = controls
                self.say("controls", **controls)
            columns = await asyncio.to_thread(self._spectra.columns)
            if len(columns):
                number += len(columns)
                self.show(encode_spectra(number, peaks_to_bytes(self._spectra.peaks), columns))

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(STATUS_S)
            said, sentence = self._stream.notices.last()
            if said != self._noticed:
                self._noticed = said
                self.say("notice", text=sentence)
            self._tell()

    def _tell(self) -> None:
        live, control = self._live, self._control
        device, recorder = live.device, live.recorder
        self.say(
            "status",
            **self._stream.figures(),
            model=control.loaded.name,
            device=device.name,
            devices=self._station.devices,
            sample_rate=device.sample_rate,
            latency_ms={**live.latency.terms_ms, "off": self._stream.late_ms},
            away=not live.running,
            busy=control.busy,
            recording=recorder is not None,
            not_recording=recorder is not None and recorder.error is not None,
        )
