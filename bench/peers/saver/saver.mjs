// LangGraph.js with its Postgres saver, driven in this process: no HTTP, no second process between
// the turns and the database, which is the best case for it.
//
// usage: node saver.mjs '{"mode": "setup" | "new" | "long", …}'; the result is one line of JSON.
// A turn with a wrong result throws, and the exit status tells.
import { HumanMessage } from "@langchain/core/messages";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { randomUUID } from "node:crypto";
import pg from "pg";
import { makeChain5, STEP_BYTES, STEPS } from "./graphs.mjs";

const WARMUP_TURNS = 100;
const options = JSON.parse(process.argv[2]);

function check(condition, what) {
  if (!condition) {
    throw new Error(`wrong answer: ${what}`);
  }
}

function checkConversation(messages, turns) {
  check(messages.length === turns * (1 + STEPS), `${messages.length} messages in turn ${turns}`);
  const [question, ...answers] = messages.slice(-(1 + STEPS));
  check(question.getType() === "human" && question.content === options.message, "no question");
  for (const answer of answers) {
    check(answer.getType() === "ai" && answer.content.length === STEP_BYTES, "no answer");
  }
}

class Peer {
  constructor() {
    this.pool = new pg.Pool({ ...options.postgres, max: options.pool ?? 1 });
    this.saver = new PostgresSaver(this.pool);
    this.graph = makeChain5().compile({ checkpointer: this.saver });
  }

  // Resolves when all checkpoints of the turn are stored: `durability` stays "async", which
  // overlaps them with the nodes and waits for them before the end.
  async turn(thread, number) {
    const input = { messages: [new HumanMessage(options.message)] };
    const result = await this.graph.invoke(input, { configurable: { thread_id: thread } });
    checkConversation(result.messages, number);
  }

  // What another process would find, through connections of its own.
  static async checkStored(thread, turns) {
    const other = new Peer();
    const state = await other.graph.getState({ configurable: { thread_id: thread } });
    checkConversation(state.values.messages, turns);
    await other.close();
  }

  close() {
    return this.pool.end();
  }
}

// A closed loop: `in_flight` turns at once, each in a new thread, from now on. What ends between
// the moments `from` and `to` counts; they are given as wall clock so that several processes agree.
async function measureNew(peer) {
  const { from, to, in_flight: inFlight } = options;
  check(Date.now() < from, "the process started too late to warm up");
  const latencies = [];
  let [turns, warmedUp, begun] = [0, 0, undefined];
  let last = "";
  const client = async () => {
    while (Date.now() < to) {
      const thread = randomUUID();
      const started = performance.now();
      await peer.turn(thread, 1);
      const now = Date.now();
      ++turns;
      if (now >= from && !begun) {
        [warmedUp, begun] = [turns, process.cpuUsage()];
      }
      if (now >= from && now < to) {
        latencies.push(1000 * (performance.now() - started));
      }
      last = thread;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, client));
  const { user, system } = process.cpuUsage(begun);
  await Peer.checkStored(last, 1);
  return { turns, latencies_us: latencies, cpu_us: (user + system) / (turns - warmedUp) };
}

async function walBytes(meter) {
  const { rows } = await meter.query("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS bytes");
  return Number(rows[0].bytes);
}

// Threads of `turns` turns, one after another. Either the time or the WAL of each turn: reading
// the meter takes time itself.
async function measureLong(peer) {
  for (let turn = 0; turn < WARMUP_TURNS; ++turn) {
    await peer.turn(randomUUID(), 1);
  }
  const meter = options.meter ? new pg.Client(options.postgres) : null;
  await meter?.connect();
  const series = [];
  for (let count = 0; count < options.threads; ++count) {
    const thread = randomUUID();
    const one = [];
    for (let number = 1; number <= options.turns; ++number) {
      const before = meter ? await walBytes(meter) : 1000 * performance.now();
      await peer.turn(thread, number);
      one.push((meter ? await walBytes(meter) : 1000 * performance.now()) - before);
    }
    await Peer.checkStored(thread, options.turns);
    series.push(one);
  }
  await meter?.end();
  return { series };
}

const modes = { setup: (peer) => peer.saver.setup(), new: measureNew, long: measureLong };
const peer = new Peer();
const result = await modes[options.mode](peer);
await peer.close();
console.log(JSON.stringify(result ?? {}));
