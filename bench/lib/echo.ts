/**
 * A bare node:http2 server that echoes each message: the cost of a stream without Pinion's code.
 */
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { answerQuestions } from "./children.ts";

const server = createServer();
server.on("stream", (stream) => {
  stream.on("error", () => {});
  stream.respond({ ":status": 200 });
  stream.on("data", (chunk) => stream.write(chunk));
});
server.on("session", (session) => session.on("error", () => {}));
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));

answerQuestions(async (question: { kind: "url" | "gc" }) => {
  if (question.kind === "gc") global.gc?.();
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
