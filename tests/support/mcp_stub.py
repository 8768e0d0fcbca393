#!/usr/bin/python3
"""An MCP server for tests that says what no decent one does; tests of the decent kind use the official SDK.

    mcp_stub.py [--port 0]

prints `listening on http://127.0.0.1:PORT` when it serves. POST /mcp/MODE speaks streamable HTTP; MODE is
one of these, or several joined by "-":

    plain       two tools: `act`, which tells its arguments, _meta and headers, and `look`, which only reads
    json        answers are JSON; else event streams with a ping and a notification in front
    open        the stream stays open after the response
    paged       one tool a page           endless    pages without end       many    600 tools
    bad         some tools that cannot be offered     old       speaks 2024-11-05
    changing    each call adds a tool and says so     nosession keeps no session
    slow, slower  initialize takes 300 ms, 3 s        refuse    initialize gets 503
    garbage     answers are no MCP                    huge      answers are larger than anybody takes
    hangup      tools/call is read, counted, and the connection closed
    gone        no session is known to tools/call     error     tools/call gets a JSON-RPC error -32603
    invalid     … an error -32602                     status    … HTTP 500

POST /forget    all sessions are unknown from now on
GET  /seen      {"METHOD": how often, …} since the start, with "sessions": [ids that came with tools/call]
"""
import argparse
import asyncio
import collections
import json
import signal

from aiohttp import web


class Stub:
    def __init__(self):
        self.seen = collections.Counter()
        self.called_in = []
        self.sessions = set()
        self.opened = 0
        self.extra = 0

    async def handle(self, request):
        modes = set(request.match_info["mode"].split("-"))
        message = await request.read()
        message = json.loads(message)
        method = message["method"]
        self.seen[method] += 1
        session = request.headers.get("Mcp-Session-Id")
        if method == "initialize":
            return await self.open(request, modes, message)
        if request.headers.get("Mcp-Protocol-Version") != "2025-06-18":
            return web.Response(status=400)
        if method == "tools/call":
            self.called_in.append(session)
        known = "nosession" in modes or session in self.sessions
        if not known or ("gone" in modes and method == "tools/call"):
            return web.Response(status=404)
        if "id" not in message:
            return web.Response(status=202)
        if method == "tools/list":
            return await self.answer(request, modes, message, self.list(modes, message["params"]))
        return await self.call(request, modes, message)

    async def open(self, request, modes, message):
        assert message["params"]["protocolVersion"] == "2025-06-18"
        if "slow" in modes or "slower" in modes:
            await asyncio.sleep(0.3 if "slow" in modes else 3)  # so long does this server take
        if "refuse" in modes:
            return web.Response(status=503)
        headers = {}
        if "nosession" not in modes:
            self.opened += 1
            headers["Mcp-Session-Id"] = f"session-{self.opened}"
            self.sessions.add(headers["Mcp-Session-Id"])
        version = "2024-11-05" if "old" in modes else "2025-06-18"
        return await self.answer(request, modes - {"open"}, message,
                                 {"protocolVersion": version, "capabilities": {"tools": {}}},
                                 headers)

    def list(self, modes, params):
        tools = [{"name": "act", "description": "Acts.", "inputSchema": {
                     "type": "object", "properties": {"n": {"type": "integer"}},
                     "anyOf": [{"required": ["n"]}, {"properties": {"m": {}}}]}},
                 {"name": "look", "inputSchema": {"type": "object", "additionalProperties": False},
                  "annotations": {"readOnlyHint": True}}]
        tools += [{"name": f"extra_{number}", "inputSchema": {}} for number in range(self.extra)]
        if "many" in modes:
            tools += [{"name": f"tool_{number}", "inputSchema": {}} for number in range(600)]
        if "bad" in modes:
            tools += [{"name": "bad name", "inputSchema": {}}, {"name": "no_schema"}, tools[0], 7]
        at = int(params.get("cursor", "0"))
        if "endless" in modes:
            return {"tools": [], "nextCursor": str(at + 1)}
        if "paged" in modes:
            after = {"nextCursor": str(at + 1)} if at + 1 < len(tools) else {}
            return {"tools": [tools[at]], **after}
        return {"tools": tools}

    async def call(self, request, modes, message):
        if "hangup" in modes:
            request.transport.abort()
            return web.Response()
        if "status" in modes:
            return web.Response(status=500)
        if "garbage" in modes:
            return web.Response(text="<html>", content_type="text/html")
        if "huge" in modes:
            return web.Response(text='{"x": "' + "x" * (1 << 20), content_type="application/json")
        for mode, code in (("error", -32603), ("invalid", -32602)):
            if mode in modes:
                return web.json_response({"jsonrpc": "2.0", "id": message["id"],
                                          "error": {"code": code, "message": "not today"}})
        if "changing" in modes:
            self.extra += 1
        told = {"params": message["params"],
                "headers": {name.lower(): value for name, value in request.headers.items()}}
        return await self.answer(request, modes, message,
                                 {"content": [{"type": "text", "text": json.dumps(told)}]})

    async def answer(self, request, modes, message, result, headers=None):
        response = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        if "json" in modes:
            return web.json_response(response, headers=headers)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", **(headers or {})})
        await stream.prepare(request)
        before = [{"jsonrpc": "2.0", "id": message["id"], "method": "ping"},
                  {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}}]
        if "changing" in modes:
            before.append({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        for each in [*before, response]:
            await stream.write(f"event: message\ndata: {json.dumps(each)}\n\n".encode())
        if "open" in modes:
            await asyncio.sleep(3600)
        return stream

    async def forget(self, _request):
        self.sessions.clear()
        return web.json_response({})

    async def show(self, _request):
        return web.json_response({**self.seen, "sessions": self.called_in})


async def serve(port):
    stub = Stub()
    app = web.Application()
    app.add_routes([web.post("/mcp/{mode}", stub.handle), web.post("/forget", stub.forget),
                    web.get("/seen", stub.show)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, shutdown_timeout=0.1)
    await site.start()
    print(f"listening on http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}", flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await runner.cleanup()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
