import { once } from "node:events";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { Sessions } from "../../../clients/ts/src/network/sessions.ts";

test("an answer is read whole also if its end came before the reading began", async () => {
  const body = "an answer";
  const server = createServer().on("stream", (asked) => {
    asked.respond({ ":status": 200 });
    asked.end(body);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const sessions = new Sessions(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  onTestFinished(async () => {
    sessions.abort();
    await new Promise((resolve) => server.close(resolve));
  });
  const stream = await sessions.request("POST", "/", {}, {});
  stream.end();
  while (!stream.closed) await turn();
  let text = "";
  for await (const chunk of stream) text += String(chunk);
  expect(text).toBe(body);
});
