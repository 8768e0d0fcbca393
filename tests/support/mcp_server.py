"""An MCP server for tests, made with the official Python SDK: streamable HTTP on loopback.

    mcp_server.py [--json] [--port 0]

needs an interpreter that has the SDK (install_python_package.sh) and prints
`listening on http://127.0.0.1:PORT` when it serves; MCP is spoken at /mcp. --json: answers are JSON, else
event streams.

Tools `once_book`, `fail_book` {what} change something: each answers {"did": NAME, "what": …, "time": N}, N
counting what was done; once_book honours the idempotency key in _meta and answers a repetition as before.
`look` only reads, and says so. `broken` fails.

POST /hold      {"names": [NAME, …]}: calls of these wait before they are answered, and stay done
POST /release   all of them are answered, and none waits any more
GET  /calls     [{"name", "key", "args", "session"}, …] in order of arrival
GET  /openings  how many initialize requests have come
"""
import argparse
import asyncio
import json
import socket

import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.types import ToolAnnotations
from starlette.responses import JSONResponse

KEY = "heddle/idempotency-key"


class Book:
    def __init__(self):
        self.calls = []
        self.held = set()
        self.answers = {}  # of tools that honour keys
        self.done = 0
        self.openings = 0
        self.released = asyncio.Event()

    async def call(self, name, context, **args):
        request = context.request_context
        key = (request.meta.model_extra or {}).get(KEY) if request.meta else None
        self.calls.append({"name": name, "key": key, "args": args,
                           "session": request.request.headers.get("mcp-session-id")})
        answer = self.answers.get(key) if name.startswith("once") else None
        if answer is None:
            self.done += 1
            answer = json.dumps({"did": name, **args, "time": self.done})
            self.answers[key] = answer
        while name in self.held:
            await self.released.wait()
        return answer


def make_server(book, json_response):
    server = FastMCP("book", json_response=json_response)

    @server.tool()
    async def once_book(what: str, ctx: Context) -> str:
        """Books once for a key."""
        return await book.call("once_book", ctx, what=what)

    @server.tool()
    async def fail_book(what: str, ctx: Context) -> str:
        """Books, however often it is asked to."""
        await ctx.info("booking")
        return await book.call("fail_book", ctx, what=what)

    @server.tool(annotations=ToolAnnotations(readOnlyHint=True))
    async def look(ctx: Context) -> str:
        """Only reads."""
        return await book.call("look", ctx)

    @server.tool()
    async def broken() -> str:
        """Fails."""
        raise ValueError("it is broken")

    @server.custom_route("/hold", methods=["POST"])
    async def hold(request):
        book.held = set((await request.json())["names"])
        book.released.clear()
        return JSONResponse({})

    @server.custom_route("/release", methods=["POST"])
    async def release(_request):
        book.held = set()
        book.released.set()
        return JSONResponse({})

    @server.custom_route("/calls", methods=["GET"])
    async def calls(_request):
        return JSONResponse(book.calls)

    @server.custom_route("/openings", methods=["GET"])
    async def openings(_request):
        return JSONResponse(book.openings)

    return server


def counting(app, book):
    """Looks at what comes before the SDK does."""
    async def serve(scope, receive, send):
        async def seen():
            message = await receive()
            if message["type"] == "http.request" and b'"initialize"' in message.get("body", b""):
                book.openings += 1
            return message
        await app(scope, seen if scope["type"] == "http" else receive, send)
    return serve


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    book = Book()
    app = counting(make_server(book, options.json).streamable_http_app(), book)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", options.port))
    listening.listen(128)
    print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
