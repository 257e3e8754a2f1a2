// A program that speaks the protocol of the given agent type, and prints excessive output in
// between: flooding-agent.mjs TYPE CASE [BYTES]. Waits for its reader, so that the whole output has
// been read before the answer.
import { createInterface } from "node:readline";

const [type, what, size = "0"] = process.argv.slice(2);

function write(data) {
  // Written, not only queued: the program exits after its answer.
  return new Promise((resolve) => process.stdout.write(data, resolve));
}
const line = (value) => write(`${JSON.stringify(value)}\n`);

const texts = {
  "claude-code": (text) => ({
    type: "assistant",
    message: { id: "m", model: "m", content: [{ type: "text", text }], usage: {} },
  }),
  codex: (text) => ({ type: "item.completed", item: { id: "item_1", type: "agent_message", text } }),
  acp: (text) => ({
    jsonrpc: "2.0",
    method: "session/update",
    params: {
      sessionId: "s",
      update: { sessionUpdate: "agent_message_chunk", content: { type: "text", text } },
    },
  }),
};

async function pour() {
  switch (what) {
    case "lines": {
      const [known, unknown] = [
        texts[type]("x".repeat(2_000)),
        { type: "novel", payload: "y".repeat(2_000) },
      ];
      const block = Array.from(
        { length: 100 },
        () => `${JSON.stringify(known)}\n${JSON.stringify(unknown)}\n`,
      ).join("");
      for (let written = 0; written < Number(size); written += block.length) await write(block);
      return;
    }
    case "line": {
      const block = "z".repeat(1024 * 1024);
      await write('{"type":"assistant","text":"');
      for (let written = 0; written < Number(size); written += block.length) await write(block);
      await write('"}\n');
      return;
    }
    case "odd":
      await write(Buffer.from([0xff, 0xfe, 0x80, 0x0a]));
      await write("\u001b[31mred\u001b[0m and plain\n");
      await write(`${'{"a":'.repeat(100_000)}1${"}".repeat(100_000)}\n`);
      await write(`{"type":"assistant","message":{"content":${"[".repeat(5_000)}${"]".repeat(5_000)}}}\n`);
      await write(
        '{"type":"assistant","message":7}\n{"type":"user"}\n{"type":"result"\n[1,2]\nnull\n"text"\n',
      );
      await write(
        '{"type":"item.completed"}\n{"type":"item.started","item":null}\n{"__proto__":{"a":1}}\n\0\0\n',
      );
      return;
  }
}

const answer = "The answer, in the end.";
if (type === "codex") {
  await line({ type: "thread.started", thread_id: "t" });
  await pour();
  await line(texts.codex(answer));
  await line({ type: "turn.completed", usage: { input_tokens: 1, output_tokens: 1 } });
  // Half a line, and gone.
  await write('{"type":"item.comp');
} else if (type === "claude-code") {
  for await (const _ of createInterface({ input: process.stdin })) {
    await pour();
    await line({ type: "result", subtype: "success", is_error: false, result: answer, session_id: "s" });
    break;
  }
  await write('{"type":"assis');
  process.exit(0);
} else {
  for await (const text of createInterface({ input: process.stdin })) {
    const { id, method } = JSON.parse(text);
    if (method === "initialize")
      await line({ jsonrpc: "2.0", id, result: { protocolVersion: 1, agentCapabilities: {} } });
    else if (method === "session/new") await line({ jsonrpc: "2.0", id, result: { sessionId: "s" } });
    else if (method === "session/prompt") {
      await pour();
      await line({
        jsonrpc: "2.0",
        method: "session/update",
        params: {
          sessionId: "s",
          update: {
            sessionUpdate: "agent_message_chunk",
            messageId: "last",
            content: { type: "text", text: answer },
          },
        },
      });
      await line({ jsonrpc: "2.0", id, result: { stopReason: "end_turn" } });
    }
  }
}
