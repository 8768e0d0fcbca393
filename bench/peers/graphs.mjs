// The two agents of the benchmark as LangGraph.js graphs, the same as agents/echo and
// agents/chain5: a list of messages with LangGraph's own reducer, and nodes that append to it.
import { AIMessage } from "@langchain/core/messages";
import { END, MessagesAnnotation, START, StateGraph } from "@langchain/langgraph";

export const STEPS = 5;
export const STEP_BYTES = 200;

const answer = (content) => ({ messages: [new AIMessage(content)] });

export function makeEcho() {
  return new StateGraph(MessagesAnnotation)
    .addNode("reply", (state) => answer(state.messages.at(-1).content))
    .addEdge(START, "reply")
    .addEdge("reply", END);
}

export function makeChain5() {
  const graph = new StateGraph(MessagesAnnotation);
  let last = START;
  for (let number = 1; number <= STEPS; ++number) {
    const name = `step${number}`;
    graph.addNode(name, () => answer("x".repeat(STEP_BYTES)));
    graph.addEdge(last, name);
    last = name;
  }
  return graph.addEdge(last, END);
}

// What the server loads: it brings its own checkpointer.
export const echo = makeEcho().compile();
export const chain5 = makeChain5().compile();
