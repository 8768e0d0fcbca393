#!/usr/bin/python3
"""A model provider for tests: the OpenAI chat protocol, deterministic, on loopback.

    model_server.py [--port 0] [--latency-ms 0] [--tool-calls auto|never]

prints `listening on http://127.0.0.1:PORT` when it serves. Base URL for clients: that + "/v1".

POST /v1/chat/completions   streamed (SSE) or not, tool calls, usage
GET  /v1/models
GET  /stats                 {calls, streamed, faults, prompt_tokens, completion_tokens, concurrent,
                            max_concurrent, by_model: {name: calls}}: answered calls only; faults apart
GET  /requests              the last 64 request bodies, with the Authorization header
POST /reset                 all counters to zero

Answers. The language (es or en) is guessed from the last user message. Every text answer ends with
`[turn N: "TEXT"]`, N the number of user messages in the request and TEXT the last one (at most 200
characters): that shows isolation and memory. With tools offered and --tool-calls auto, an intent that
maps to an offered tool is answered by a call of it; a user message `call NAME {json}` calls exactly
that, `calls [{"name":…,"args":{…}},…]` several; after tool results the answer quotes them.

Usage. prompt_tokens = ceil(characters of all message contents / 4); completion_tokens =
ceil((characters of the answer + of all tool call arguments) / 4). Characters are code points.

The model's name may hold options, in any place:
    slow-2800       answers after 2,800 ms; streams its words evenly over that time
    notools         never calls tools
    words-200       a text answer of 200 words
  and one fault, alone:
    fault-429-K     the first K calls of this model name get 429 with Retry-After: 1; -after-S: S
    fault-500-K, fault-503-K, fault-408-K   the same with that status
    fault-400       refused, as OpenAI refuses            fault-html      200 with a web page
    fault-cut-K     the first K calls lose the connection in mid-stream
    fault-reset-K   the first K calls lose it before any answer
    fault-garbage   bytes that are neither JSON nor SSE   fault-types     JSON of wrong types
    fault-never     no answer, the connection stays open  fault-stall     a few words, then silence
    fault-huge      one line of 200 MB                    fault-endless   words without end
    fault-args      a tool call whose arguments are no JSON
    fault-nodone    a complete stream without [DONE]      fault-nochoice  no choices
    fault-midstream an error object in mid-stream

For tests of HTTP itself: /http/bytes/N (streamed), /http/status/N, /http/redirect, /http/echo,
/http/headers/N (N header bytes), /http/drip (a byte every 20 ms, without end), /http/silent, /http/cut,
/http/hang-up (counts the request, then closes without an answer; /http/hung-up tells how many).
"""
import argparse
import asyncio
import collections
import json
import math
import re
import signal

from aiohttp import web

SPANISH = set("hola quiero agendar una cita qué que servicios tienen necesito reagendar mi cuánto cuanto "
              "cuesta consulta cancelar disponibles horario horarios gracias para por favor el la los las "
              "buenos días tardes es son mañana semana próxima".split())

# (intent, words that show it, tool, answer in English, answer in Spanish); the first match wins.
INTENTS = [
    ("reschedule", r"reagend|reschedul|reprogram|mover mi cita|move my appointment", None,
     "I can move your appointment. Please tell me your confirmation number and the new time.",
     "Puedo reagendar su cita. Por favor, dígame su número de confirmación y el nuevo horario."),
    ("cancel", r"cancel", None,
     "I can cancel it for you. What is your confirmation number?",
     "Puedo cancelarla. ¿Cuál es su número de confirmación?"),
    ("prices", r"cuesta|precio|price|cost|how much", "list_services",
     "A consultation costs 50 dollars.", "Una consulta cuesta 50 dólares."),
    ("services", r"servicio|service", "list_services",
     "We offer general consultations, dental cleaning and physiotherapy.",
     "Ofrecemos consulta general, limpieza dental y fisioterapia."),
    ("hours", r"hours|horario de|open|abren|atienden", "get_hours",
     "We are open Monday to Friday from 9:00 to 18:00.",
     "Atendemos de lunes a viernes de 9:00 a 18:00."),
    ("slots", r"available times|free slots|next week|horarios disponibles|próxima semana", "list_free_slots",
     "Next week there are free times on Monday and on Wednesday.",
     "La próxima semana hay horarios libres el lunes y el miércoles."),
    ("book", r"agendar|cita|book|appointment", None,
     "Gladly. Which service would you like, and when?",
     "Con gusto. ¿Qué servicio desea y cuándo?"),
]


def text_of(content):
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return ""


def language_of(text):
    if re.search(r"[¿¡ñáéíóú]", text.lower()):
        return "es"
    words = re.findall(r"\w+", text.lower())
    return "es" if sum(word in SPANISH for word in words) * 3 > len(words) else "en"


def tokens(characters):
    return math.ceil(characters / 4)


def offered(body):
    return {tool.get("function", {}).get("name") for tool in body.get("tools") or []}


def calls_of(text, names):
    """The calls that `call NAME {json}` or `calls [...]` asks for, or None."""
    single = re.match(r"\s*call\s+([\w-]+)\s*(\{.*\})?\s*$", text, re.S)
    if single:
        return [(single[1], single[2] or "{}")]
    several = re.match(r"\s*calls\s+(\[.*\])\s*$", text, re.S)
    if several:
        return [(call["name"], json.dumps(call.get("args", {}), ensure_ascii=False))
                for call in json.loads(several[1])]
    for _intent, pattern, tool, _en, _es in INTENTS:
        if re.search(pattern, text.lower()):
            return [(tool, "{}")] if tool in names else None
    return None


def answer_to(body, tool_calls):
    """@return (text, [(name, arguments)])"""
    messages = body["messages"]
    humans = [text_of(m.get("content")) for m in messages if m.get("role") == "user"]
    last = humans[-1] if humans else ""
    spanish = language_of(last) == "es"
    marker = f'[turn {len(humans)}: "{last[:200]}"]'
    words = re.search(r"words-(\d+)", body["model"])
    if words:
        return " ".join(f"w{i}" for i in range(int(words[1]))) + " " + marker, []
    if messages and messages[-1].get("role") == "tool":
        results = []
        for message in reversed(messages):
            if message.get("role") != "tool":
                break
            results.insert(0, text_of(message.get("content"))[:400])
        said = "El sistema dice: " if spanish else "The system says: "
        return said + " | ".join(results) + " " + marker, []
    names = offered(body)
    if names and tool_calls and "notools" not in body["model"]:
        calls = calls_of(last, names)
        if calls:
            return "", calls
    for _intent, pattern, _tool, english, other in INTENTS:
        if re.search(pattern, last.lower()):
            return f"{other if spanish else english} {marker}", []
    return f"{'Entendido.' if spanish else 'Understood.'} {marker}", []


class Stats:
    def __init__(self):
        self.reset()
        self.concurrent = 0

    def reset(self):
        self.calls = self.streamed = self.faults = 0
        self.prompt_tokens = self.completion_tokens = self.max_concurrent = 0
        self.by_model = collections.Counter()
        self.seen = collections.Counter()
        self.requests = collections.deque(maxlen=64)

    def as_json(self):
        return {name: getattr(self, name) for name in (
            "calls", "streamed", "faults", "prompt_tokens", "completion_tokens", "concurrent",
            "max_concurrent", "by_model")}


class ModelServer:
    def __init__(self, options):
        self.options = options
        self.stats = Stats()
        self.serial = 0

    # --- the protocol -------------------------------------------------------------------------
    async def complete(self, request):
        try:
            body = json.loads(await request.read())
            assert isinstance(body["messages"], list) and isinstance(body["model"], str)
        except (ValueError, KeyError, TypeError, AssertionError) as problem:
            return error(400, f"bad request: {problem!r}")
        self.stats.requests.append({"authorization": request.headers.get("Authorization"), "body": body})
        self.stats.concurrent += 1
        self.stats.max_concurrent = max(self.stats.max_concurrent, self.stats.concurrent)
        try:
            fault = re.search(r"fault-(\w+)(?:-(\d+))?", body["model"])
            if fault:
                refused = await self.fail(request, body, fault[1], int(fault[2] or 0))
                if refused is not None:
                    self.stats.faults += 1
                    return refused
            return await self.answer(request, body)
        finally:
            self.stats.concurrent -= 1

    async def answer(self, request, body):
        slow = re.search(r"slow-(\d+)", body["model"])
        seconds = (int(slow[1]) if slow else self.options.latency_ms) / 1000
        text, calls = answer_to(body, self.options.tool_calls == "auto")
        usage = self.count(body, text, calls)
        self.serial += 1
        head = {"id": f"chatcmpl-{self.serial}", "created": 1700000000, "model": body["model"]}
        if not body.get("stream"):
            await asyncio.sleep(seconds)
            self.finished(body, usage)
            return web.json_response({**head, "object": "chat.completion", "usage": usage, "choices": [
                {"index": 0, "finish_reason": "tool_calls" if calls else "stop",
                 "message": {"role": "assistant", "content": text or None,
                             **({"tool_calls": full_calls(head["id"], calls)} if calls else {})}}]})
        head["object"] = "chat.completion.chunk"
        deltas = list(deltas_of(head["id"], text, calls))
        response = sse_response()
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for index, delta in enumerate(deltas):
            wait = begun + seconds * (index + 1) / len(deltas) - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            await send(response, {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self.finished(body, usage)
        await send(response, {**head, "choices": [
            {"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            await send(response, {**head, "choices": [], "usage": usage})
        if "fault-nodone" not in body["model"]:
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def count(self, body, text, calls):
        read = sum(len(text_of(m.get("content"))) for m in body["messages"])
        written = len(text) + sum(len(arguments) for _name, arguments in calls)
        prompt, completion = tokens(read), tokens(written)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def finished(self, body, usage):
        self.stats.calls += 1
        self.stats.streamed += bool(body.get("stream"))
        self.stats.prompt_tokens += usage["prompt_tokens"]
        self.stats.completion_tokens += usage["completion_tokens"]
        self.stats.by_model[body["model"]] += 1

    # --- faults -------------------------------------------------------------------------------
    async def fail(self, request, body, kind, count):
        """@return the fault's response, or None when the call is to be answered"""
        self.stats.seen[body["model"]] += 1
        if count and self.stats.seen[body["model"]] > count:
            return None
        if kind.isdigit():
            after = re.search(r"after-(\d+)", body["model"])
            headers = {"Retry-After": after[1] if after else "1"} if kind == "429" else {}
            return error(int(kind), f"fault {kind}", headers)
        if kind == "reset":
            request.transport.abort()
            return web.Response()
        if kind == "html":
            return web.Response(text="<html>" + "x" * 1000, content_type="text/html")
        if kind == "never":
            await asyncio.sleep(3600)
        if kind == "nodone":
            return None
        return await self.fail_inside(request, body, kind)

    async def fail_inside(self, request, body, kind):
        whole = {
            "types": b'{"id":7,"choices":[{"message":{"content":{"a":1},"tool_calls":"no"}}],"usage":[]}',
            "nochoice": b'{"id":"x","object":"chat.completion","choices":[]}',
            "garbage": bytes(range(256)) * 16,
            "args": json.dumps({"id": "x", "model": "m", "choices": [{"index": 0, "message": {
                "role": "assistant", "content": None,
                "tool_calls": full_calls("x", [("get_hours", '{"day": ')])}}]}).encode(),
        }
        if kind in whole and not body.get("stream"):
            return web.Response(body=whole[kind], content_type="application/json")
        response = sse_response()
        await response.prepare(request)
        try:
            await self.misbehave(request, response, kind, whole)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client had enough: that is what is tested
        return response

    async def misbehave(self, request, response, kind, whole):
        def word(text):
            return {"id": "x", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]}

        if kind == "garbage":
            await response.write(whole["garbage"])
        elif kind == "args":
            for delta in deltas_of("x", "", [("get_hours", '{"day": ')]):
                await send(response, {"id": "x", "choices": [{"index": 0, "delta": delta}]})
            last = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
            await send(response, {"id": "x", "choices": [last]})
            await response.write(b"data: [DONE]\n\n")
        elif kind in ("types", "nochoice"):
            await response.write(b"data: " + whole[kind].replace(b"message", b"delta") + b"\n\n")
            await response.write(b"data: [DONE]\n\n")
        elif kind == "huge":
            await response.write(b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"')
            for _ in range(3200):
                await response.write(b"x" * 65536)
        elif kind == "endless":
            while True:
                await send(response, word("endless " * 64))
        else:
            for text in ("The ", "answer ", "is "):
                await send(response, word(text))
            if kind == "cut":
                await asyncio.sleep(0.02)
                request.transport.abort()
            elif kind == "midstream":
                await response.write(b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n')
            elif kind == "stall":
                await asyncio.sleep(3600)


def error(status, message, headers=None):
    return web.json_response({"error": {"message": message, "type": "test", "code": str(status)}},
                             status=status, headers=headers or {})


def sse_response():
    return web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})


async def send(response, value):
    await response.write(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n")


def full_calls(answer_id, calls):
    return [{"id": f"call_{answer_id}_{index}", "type": "function",
             "function": {"name": name, "arguments": arguments}}
            for index, (name, arguments) in enumerate(calls)]


def deltas_of(answer_id, text, calls):
    """Words; or each call's name first and its arguments in pieces, as OpenAI streams them."""
    yield {"role": "assistant", "content": None if calls else ""}
    for word in re.findall(r"\s*\S+\s*$|\s*\S+", text):
        yield {"content": word}
    for index, call in enumerate(full_calls(answer_id, calls)):
        arguments = call["function"]["arguments"]
        yield {"tool_calls": [{"index": index, "id": call["id"], "type": "function",
                               "function": {"name": call["function"]["name"], "arguments": ""}}]}
        for begin in range(0, len(arguments), 7):
            yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[begin:begin + 7]}}]}


# --- plain HTTP -------------------------------------------------------------------------------
class PlainHttp:
    """Routes that exercise an HTTP client; `sent` tells how far a streamed body came."""

    def __init__(self):
        self.sent = 0
        self.hung_up = 0

    async def bytes(self, request):
        left = int(request.match_info["count"])
        response = web.StreamResponse()
        await response.prepare(request)
        self.sent = 0
        self.hung_up = 0
        while left > 0:
            piece = min(left, 65536)
            await response.write(b"b" * piece)
            self.sent += piece
            left -= piece
        await response.write_eof()
        return response

    async def progress(self, _request):
        return web.json_response({"sent": self.sent})

    async def status(self, request):
        return web.Response(status=int(request.match_info["status"]), text="status")

    async def redirect(self, _request):
        return web.Response(status=302, headers={"Location": "/http/echo"}, text="elsewhere")

    async def echo(self, request):
        return web.json_response({"method": request.method, "path": request.raw_path,
                                  "headers": dict(request.headers), "body": (await request.read()).decode(),
                                  "peer_port": request.transport.get_extra_info("peername")[1]})

    async def headers(self, request):
        size = int(request.match_info["count"])
        pieces = {f"X-Filler-{i}": "h" * 1000 for i in range(size // 1000)}
        return web.Response(text="headers", headers=pieces)

    async def drip(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b".")
                await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.CancelledError):
            self.sent = -1
        return response

    async def silent(self, _request):
        await asyncio.sleep(3600)

    async def hang_up(self, request):
        await request.read()
        self.hung_up += 1
        request.transport.close()
        return web.Response()

    async def count_hung_up(self, _request):
        return web.json_response({"requests": self.hung_up})

    async def cut(self, request):
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"begun")
        await asyncio.sleep(0.02)
        request.transport.abort()
        return response


def make_app(options):
    server, plain = ModelServer(options), PlainHttp()

    async def stats(_request):
        return web.json_response(server.stats.as_json())

    async def requests(_request):
        return web.json_response(list(server.stats.requests))

    async def reset(_request):
        server.stats.reset()
        return web.json_response({"ok": True})

    async def models(_request):
        return web.json_response({"object": "list", "data": [{"id": "test", "object": "model"}]})

    app = web.Application(client_max_size=64 << 20)
    app.add_routes([
        web.post("/v1/chat/completions", server.complete), web.get("/v1/models", models),
        web.get("/stats", stats), web.get("/requests", requests), web.post("/reset", reset),
        web.get("/http/bytes/{count}", plain.bytes), web.get("/http/progress", plain.progress),
        web.get("/http/status/{status}", plain.status), web.get("/http/redirect", plain.redirect),
        web.route("*", "/http/echo", plain.echo), web.route("*", "/http/echo/{rest:.*}", plain.echo),
        web.get("/http/headers/{count}", plain.headers), web.get("/http/drip", plain.drip),
        web.get("/http/silent", plain.silent), web.get("/http/cut", plain.cut),
        web.post("/http/hang-up", plain.hang_up), web.get("/http/hung-up", plain.count_hung_up),
    ])
    return app


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=int, default=0)
    parser.add_argument("--tool-calls", choices=("auto", "never"), default="auto")
    options = parser.parse_args()
    runner = web.AppRunner(make_app(options), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port, backlog=4096, shutdown_timeout=0.1)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    print(f"listening on http://127.0.0.1:{port}", flush=True)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
