/** A structured answer may be any JSON: it is stored with its run, and can be read by everybody. */
import { expect, test } from "vitest";
import { CompletionVerdict } from "#gen/pinion/v1/device_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { startWork, takeOn, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

const nested = (depth: number, inner = "1") => "[".repeat(depth) + inner + "]".repeat(depth);
const objects = (depth: number) => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;

test.each([
  ["40 deep", nested(40)],
  ["100 deep", objects(100)],
  ["100,000 deep", nested(100_000)],
  ["a NUL", '{"a":"\\u0000"}'],
  ["half a pair", '{"a":"\\ud800"}'],
  ["a key of half a pair", '{"\\udc00":1}'],
  ["__proto__", '{"__proto__":{"a":1},"constructor":2}'],
  ["an infinite number", '{"a":1e999}'],
  ["a number of many digits", `{"a":${"9".repeat(5_000)}}`],
  ["a number below all", '{"a":-1e-99999}'],
  ["the same key twice", '{"a":1,"a":2}'],
  ["null", "null"],
  ["many wrong items", JSON.stringify(Array(30_000).fill("x"))],
])("%s", async (name, structured) => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const extractionSchema = { items: { type: "number" } };
  const run = await startWork(clients, device, name === "many wrong items" ? { extractionSchema } : {});
  const { workId, attemptToken } = await takeOn(stream);
  const startedAt = performance.now();
  stream.send({ case: "complete", value: { workId, attemptToken, outcome: 1, output: "done", structured } });
  const ack = await stream.next("completionAck");
  expect(ack).toMatchObject({ verdict: CompletionVerdict.STORED });
  expect(performance.now() - startedAt).toBeLessThan(5_000);
  await clients.runs.getRun({ runId: run.id });
  const { watcherId } = run;
  const { windows } = await clients.runs.listWindows({ watcherId });
  expect(windows).toHaveLength(name === "many wrong items" ? 0 : 1);
  const bodies: Record<string, object> = {
    GetRun: { runId: run.id },
    ListWindows: { watcherId },
    ExplainRun: { runId: run.id },
  };
  for (const method of Object.keys(bodies)) {
    const answer = await fetch(`${url}/pinion.v1.RunService/${method}`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${replicas.here.token}` },
      body: JSON.stringify(bodies[method]),
    });
    const text = await answer.text();
    expect([method, answer.status, text.includes('"internal"')]).toEqual([method, 200, false]);
    JSON.parse(text);
  }
});
