"""The network between processes of a test, in pieces that can be cut.

    with Network() as network:
        link = network.link("nginx-engine-1", socket_path)      # or a port of 127.0.0.1
        … whoever is to use it connects to 127.0.0.1:link.port …
        link.cut("reset")
        link.heal()

A cut is one of

    reset         every connection breaks at once, new ones are refused
    hang_up       every connection breaks at once, new ones are accepted and closed, as a proxy does
                  whose server is gone
    hold          nothing passes in either direction and nobody is told; what was sent arrives when
                  the link is healed
    hold_answers  the same, only for what comes back from the target: requests are carried out
    lose          as hold, but the connections that were there break when the link is healed, and
                  what was held is lost
    lose_answers  as hold_answers, likewise

One OS thread of its own carries the bytes; every method may be called from any other.
"""
import asyncio
import contextlib
import dataclasses
import socket
import struct
import threading

MODES = ("reset", "hang_up", "hold", "hold_answers", "lose", "lose_answers")
CHUNK_BYTES = 1 << 16
CALL_SECONDS = 10.0
LOOK_SECONDS = 0.05
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset, not an end


@dataclasses.dataclass
class Bytes:
    """What a link has done since it was made."""

    connections: int = 0
    broken: int = 0   # connections
    passed: int = 0   # bytes
    held: int = 0     # bytes that had to wait or were lost

    def since(self, before):
        return {name: value - getattr(before, name)
                for name, value in dataclasses.asdict(self).items()}


def _break(writer):
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


class Link:
    """One listener on 127.0.0.1:port and whatever came through it to `target`."""

    def __init__(self, network, name, target):
        self.name, self.target = name, target
        self.port = None
        self.count = Bytes()
        self.mode = None  # None: whole
        self._network = network
        self._whole = asyncio.Event()
        self._whole.set()
        self._pairs = set()  # (client's writer, target's writer)
        self._place = None   # bound and never listening: keeps the port while nobody listens
        self._server = None
        self._look = None    # the task that waits for the target to be back

    def cut(self, mode):
        assert mode in MODES, mode
        self._network.call(self._cut(mode))

    def heal(self):
        """Nothing if it is whole."""
        self._network.call(self._heal())

    def snapshot(self):
        return dataclasses.replace(self.count)

    # ---- on the network's OS thread

    async def open(self):
        self._place = self._bound(0)
        self.port = self._place.getsockname()[1]
        await self._listen()

    async def close(self):
        self._deafen()
        self._break_all()
        self._place.close()

    def _bound(self, port):
        found = socket.socket()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(("127.0.0.1", port))
        return found

    async def _listen(self):
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, sock=self._bound(self.port))

    def _deafen(self):
        """Whoever connects is refused from now on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _cut(self, mode):
        self.mode = mode
        if mode in ("reset", "hang_up"):
            if mode == "reset":
                self._deafen()
            self._whole.set()
            self._break_all()
        else:
            self._whole.clear()

    async def _heal(self):
        if self.mode in ("lose", "lose_answers"):
            self._break_all()
        self.mode = None
        self._whole.set()
        if self._look is None:
            await self._listen()

    def _break_all(self):
        for pair in list(self._pairs):
            self.count.broken += 1
            for writer in pair:
                _break(writer)

    async def _connect(self):
        if isinstance(self.target, int):
            return await asyncio.open_connection("127.0.0.1", self.target)
        return await asyncio.open_unix_connection(str(self.target))

    async def _await_target(self):
        """A host on which nobody listens refuses; so does the link, from the first failure on."""
        while True:
            try:
                _, writer = await self._connect()
                break
            except OSError:
                await asyncio.sleep(LOOK_SECONDS)
        writer.close()
        self._look = None
        if self.mode != "reset":
            await self._listen()

    async def _accept(self, reader, writer):
        self.count.connections += 1
        if self.mode == "hang_up":
            writer.close()
            return
        try:
            opened = await self._connect()
        except OSError:
            _break(writer)
            self._deafen()
            if self._look is None:
                self._look = asyncio.create_task(self._await_target())
            return
        target_reader, target_writer = opened
        pair = (writer, target_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(reader, target_writer, is_answer=False),
                                 self._pump(target_reader, writer, is_answer=True))
            for each in pair:
                each.close()
        except OSError:
            for each in pair:
                _break(each)
        finally:
            self._pairs.discard(pair)

    def _holds(self, is_answer):
        return self.mode in ("hold", "lose") or \
            (is_answer and self.mode in ("hold_answers", "lose_answers"))

    async def _pump(self, reader, writer, *, is_answer):
        while True:
            data = await reader.read(CHUNK_BYTES)
            if self._holds(is_answer):
                self.count.held += len(data)
                while self._holds(is_answer):
                    await self._whole.wait()
            if writer.transport.is_closing():
                raise ConnectionResetError
            if not data:
                break
            self.count.passed += len(data)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


class Network:
    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._os_thread = threading.Thread(target=self._loop.run_forever, name="network")
        self.links = []

    def __enter__(self):
        self._os_thread.start()
        return self

    def __exit__(self, *_):
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._os_thread.join()
        self._loop.close()

    def link(self, name, target):
        """@param target  a port of 127.0.0.1, or the path of a UNIX socket"""
        async def make():
            made = Link(self, name, target)
            await made.open()
            return made
        made = self.call(make())
        self.links.append(made)
        return made

    def heal(self):
        for link in self.links:
            link.heal()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_SECONDS)

    async def _close(self):
        for link in self.links:
            await link.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
