// What an application does with @langchain/langgraph-sdk, against the server in argv[2].
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import test from "node:test";

import { Client } from "@langchain/langgraph-sdk";

const client = new Client({ apiUrl: process.argv[2], callerOptions: { maxRetries: 0 } });
const user = (text) => ({ messages: [{ role: "user", content: text }] });
const texts = (values) => values.messages.map((message) => message.content);

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

// The SDK reports a refusal as an error that holds the HTTP status.
async function refused(promise, status) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.status ?? Number(/HTTP (\d+)/.exec(error.message)?.[1]), status, error.message);
    return true;
  });
}

async function settled(threadId, runId) {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; ) {
    const run = await client.runs.get(threadId, runId);
    if (!["pending", "running"].includes(run.status)) return run.status;
  }
  throw new Error(`run ${runId} did not end`);
}

test("assistants.search and get", async () => {
  const found = await client.assistants.search({ limit: 100 });
  const graphs = found.map((assistant) => assistant.graph_id);
  assert.ok(graphs.includes("echo"), graphs.join());
  const echo = found.find((assistant) => assistant.graph_id === "echo");
  assert.deepEqual(await client.assistants.get(echo.assistant_id), echo);
  assert.deepEqual(
    (await client.assistants.search({ graphId: "echo" })).map((one) => one.assistant_id),
    [echo.assistant_id],
  );
});

test("threads.create, get, search and delete", async () => {
  const mark = randomUUID();
  const thread = await client.threads.create({ metadata: { mark } });
  assert.equal(thread.status, "idle");
  assert.equal((await client.threads.get(thread.thread_id)).metadata.mark, mark);
  const found = await client.threads.search({ metadata: { mark } });
  assert.deepEqual(found.map((one) => one.thread_id), [thread.thread_id]);
  await client.threads.delete(thread.thread_id);
  await refused(client.threads.get(thread.thread_id), 404);
});

test("runs.wait, threads.getState and getHistory", async () => {
  const { thread_id: threadId } = await client.threads.create();
  const first = await client.runs.wait(threadId, "echo", { input: user("one") });
  assert.deepEqual(texts(first), ["one", "one"]);
  const second = await client.runs.wait(threadId, "echo", { input: user("two") });
  assert.deepEqual(texts(second), ["one", "one", "two", "two"]);

  const state = await client.threads.getState(threadId);
  assert.deepEqual(state.values, second);
  assert.deepEqual(state.next, []);
  assert.equal(state.checkpoint.thread_id, threadId);
  const history = await client.threads.getHistory(threadId, { limit: 100 });
  assert.equal(history[0].checkpoint.checkpoint_id, state.checkpoint.checkpoint_id);
  for (let at = 0; at + 1 < history.length; at += 1) {
    assert.equal(
      history[at].parent_checkpoint.checkpoint_id,
      history[at + 1].checkpoint.checkpoint_id,
    );
  }
  assert.equal(history.at(-1).parent_checkpoint, null);
  const older = await client.threads.getState(threadId, history[1].checkpoint.checkpoint_id);
  assert.equal(older.checkpoint.checkpoint_id, history[1].checkpoint.checkpoint_id);
});

test("runs.wait without a thread", async () => {
  const values = await client.runs.wait(null, "echo", { input: user("alone") });
  assert.deepEqual(texts(values), ["alone", "alone"]);
});

test("runs.stream: values, updates, messages-tuple", async () => {
  const { thread_id: threadId } = await client.threads.create();
  let created;
  const events = await collect(
    client.runs.stream(threadId, "wordy", {
      input: user("tell me"),
      streamMode: ["values", "updates", "messages-tuple"],
      onRunCreated: (run) => {
        created = run;
      },
    }),
  );
  assert.equal(events[0].event, "metadata");
  assert.equal(created.run_id, events[0].data.run_id);
  assert.equal(created.thread_id, threadId);
  const of = (name) => events.filter((event) => event.event === name).map((event) => event.data);
  const final = of("values").at(-1);
  assert.equal(final.messages.length, 2);
  assert.deepEqual(Object.keys(of("updates")[0]), ["assistant"]);
  const tokens = of("messages").map(([message]) => message.content);
  assert.ok(tokens.length > 5, `${tokens.length} pieces`);
  assert.equal(tokens.join(""), final.messages[1].content);
  assert.equal(of("messages")[0][1].langgraph_node, "assistant");
  assert.equal(of("error").length, 0);
});

test("runs.create, list, join and joinStream with the last event's id", async () => {
  const { thread_id: threadId } = await client.threads.create();
  const run = await client.runs.create(threadId, "wordy", {
    input: user("later"),
    streamMode: ["values", "messages-tuple"],
    streamResumable: true,
  });
  assert.deepEqual((await client.runs.list(threadId)).map((one) => one.run_id), [run.run_id]);
  const all = await collect(
    client.runs.joinStream(threadId, run.run_id, { streamMode: ["values", "messages-tuple"],
                                                   lastEventId: "-1" }),
  );
  const values = await client.runs.join(threadId, run.run_id);
  assert.equal(values.messages.length, 2);
  assert.deepEqual(all.filter((event) => event.event === "values").at(-1).data, values);
  assert.equal(await settled(threadId, run.run_id), "success");

  const middle = all[Math.floor(all.length / 2)];
  assert.ok(middle.id, "every event has an id");
  const rest = await collect(
    client.runs.joinStream(threadId, run.run_id, { streamMode: ["values", "messages-tuple"],
                                                   lastEventId: middle.id }),
  );
  assert.deepEqual(
    rest.map((event) => event.id),
    all.slice(all.indexOf(middle) + 1).map((event) => event.id),
  );
});

test("runs.cancel", async () => {
  const { thread_id: threadId } = await client.threads.create();
  const run = await client.runs.create(threadId, "long", { input: user("never") });
  await client.runs.cancel(threadId, run.run_id, true);
  assert.equal(await settled(threadId, run.run_id), "interrupted");
  const next = await client.runs.wait(threadId, "echo", { input: user("next") });
  assert.equal(texts(next).at(-1), "next");
});

test("a second run is enqueued, or rejected when it asks for that", async () => {
  const { thread_id: threadId } = await client.threads.create();
  const first = await client.runs.create(threadId, "long", { input: user("first") });
  await refused(
    client.runs.create(threadId, "echo", { input: user("no"), multitaskStrategy: "reject" }),
    409,
  );
  const second = await client.runs.create(threadId, "echo", { input: user("second") });
  await client.runs.cancel(threadId, first.run_id, true);
  const values = await client.runs.join(threadId, second.run_id);
  assert.deepEqual([values.messages[0].content, values.messages.at(-1).content], ["first", "second"]);
  assert.equal(await settled(threadId, first.run_id), "interrupted");
});

test("what does not exist is refused with its status", async () => {
  const { thread_id: threadId } = await client.threads.create();
  await refused(client.runs.wait(threadId, "nobody", { input: user("x") }), 404);
  await refused(client.runs.create(randomUUID(), "echo", { input: user("x") }), 404);
  await refused(client.threads.getState(randomUUID()), 404);
  await refused(client.runs.get(threadId, randomUUID()), 404);
  await refused(
    client.runs.wait(threadId, "echo", { input: user("x"), config: { recursion_limit: "many" } }),
    422,
  );
});
