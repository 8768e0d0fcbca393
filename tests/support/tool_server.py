#!/usr/bin/python3
"""A back end of tools for tests: real HTTP on loopback that counts what arrives, by idempotency key.

    tool_server.py [--port 0]

prints `listening on http://127.0.0.1:PORT` when it serves.

POST /do/NAME     a tool that changes something. Arrivals are counted under their Idempotency-Key; the
                  answer is {"did": NAME, "args": {…}, "time": N}, N counting what was done. A NAME that
                  begins with `once` honours the key: a repetition gets the first answer and nothing is done
GET  /see/NAME    a tool that only reads: {"saw": NAME}
POST /hold        {"names": [NAME, …]}: calls of these wait before they are answered, and stay done
POST /release     all of them are answered, and none waits any more
GET  /calls       [{"method", "name", "key", "args"}, …] in order of arrival
"""
import argparse
import asyncio
import signal

from aiohttp import web


class ToolServer:
    def __init__(self):
        self.calls = []
        self.held = set()
        self.answers = {}  # of tools that honour keys
        self.done = 0
        self.released = asyncio.Event()

    async def act(self, request):
        name = request.match_info["name"]
        key = request.headers.get("Idempotency-Key")
        args = await request.json()
        self.calls.append({"method": "POST", "name": name, "key": key, "args": args})
        if name.startswith("once") and key in self.answers:
            answer = self.answers[key]
        else:
            self.done += 1
            answer = {"did": name, "args": args, "time": self.done}
            self.answers[key] = answer
        await self.wait(name)
        return web.json_response(answer)

    async def see(self, request):
        name = request.match_info["name"]
        key = request.headers.get("Idempotency-Key")
        self.calls.append({"method": "GET", "name": name, "key": key, "args": {}})
        await self.wait(name)
        return web.json_response({"saw": name})

    async def wait(self, name):
        while name in self.held:
            await self.released.wait()

    async def hold(self, request):
        self.held = set((await request.json())["names"])
        self.released.clear()
        return web.json_response({})

    async def release(self, _request):
        self.held = set()
        self.released.set()
        return web.json_response({})

    async def list(self, _request):
        return web.json_response(self.calls)


async def serve(port):
    server = ToolServer()
    app = web.Application()
    app.add_routes([web.post("/do/{name}", server.act), web.get("/see/{name}", server.see),
                    web.post("/hold", server.hold), web.post("/release", server.release),
                    web.get("/calls", server.list)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, shutdown_timeout=0.1)
    await site.start()
    print(f"listening on http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}", flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.release(None)
    await runner.cleanup()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
