/**
 * Clocks of devices and ids of agents may be anything: what they report is taken, and can be read.
 */
import { expect, test, vi } from "vitest";
import { QuestionOptionKind } from "#gen/pinion/v1/activity_pb.js";
import { CompletionVerdict } from "#gen/pinion/v1/device_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { startWork, takeOn, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

async function begin() {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const run = await startWork(clients, device);
  const attempt = await takeOn(stream);
  const { workId, attemptToken } = attempt;
  return { stream, run, attempt, named: { workId, attemptToken } };
}

/** A call as JSON, as the page and curl make it. */
async function callJson(method: string, body: object, kind = "json"): Promise<Response> {
  const text = Buffer.from(JSON.stringify(body));
  const head = Buffer.alloc(kind === "json" ? 0 : 5);
  if (kind !== "json") head.writeUInt32BE(text.length, 1);
  return fetch(`${replicas.here.url}/pinion.v1.RunService/${method}`, {
    method: "POST",
    headers: { "content-type": `application/${kind}`, authorization: `Bearer ${replicas.here.token}` },
    body: Buffer.concat([head, text]),
  });
}

const asJson = async (method: string, body: object) => (await callJson(method, body)).text();

/** Watches a run in JSON: the messages so far, one after the other, and the stream's end. */
function watchJson(runId: string) {
  const seen = { text: "", ended: Promise.resolve() };
  seen.ended = (async () => {
    const { body } = await callJson("WatchRun", { runId }, "connect+json");
    for await (const piece of body ?? []) seen.text += Buffer.from(piece).toString();
  })();
  return seen;
}

test.each([
  [253_402_300_800n, 0],
  [-62_135_596_801n, 0],
  [9_007_199_254_740_993n, 0],
  [0n, -1],
  [0n, 1_000_000_000],
])(
  "%d s and %d ns are no moment: activity, question and transcript are there without it",
  async (seconds, nanos) => {
    const { stream, run, attempt, named } = await begin();
    const { clients } = replicas.here;
    const at = { seconds, nanos };
    const entry = (text: string) => ({ sequence: 1n, at, body: { case: "text" as const, value: { text } } });
    const watched = watchJson(run.id);
    const pieces = setInterval(() => {
      stream.send({ case: "activity", value: { ...named, activities: [entry("while it ran")] } });
    }, 50);
    const options = [{ id: "no", label: "No", kind: QuestionOptionKind.DENY_ONCE }];
    const question = { id: "q", title: "May I?", askedAt: at, options };
    stream.send({ case: "question", value: { ...named, question } });
    await vi.waitFor(async () =>
      expect(await asJson("ListQuestions", { runId: run.id })).toContain("May I?"),
    );
    await stream.beat([attempt]);
    clearInterval(pieces);
    const transcript = { entries: [entry("in the end")] };
    stream.send({ case: "complete", value: { ...named, outcome: 1, transcript } });
    expect((await stream.next("completionAck")).verdict).toBe(CompletionVerdict.STORED);
    expect(await asJson("GetTranscript", { runId: run.id })).toContain("in the end");
    await watched.ended;
    expect(watched.text).toContain("RUN_STATUS_COMPLETED");
    expect(watched.text).not.toContain("internal");
    expect((await clients.runs.getTranscript({ runId: run.id })).transcript?.entries[0]?.at).toBeUndefined();
  },
);

test.each([
  ["question", { id: "q\0", options: [{ id: "no", label: "No", kind: QuestionOptionKind.DENY_ONCE }] }],
  ["option", { id: "q", options: [{ id: "no\0", label: "No", kind: QuestionOptionKind.DENY_ONCE }] }],
])("the id of a %s that cannot be stored is answered at once, under that id", async (_, odd) => {
  const { stream, named } = await begin();
  stream.send({ case: "question", value: { ...named, question: { title: "May I?", ...odd } } });
  expect(await stream.next("answer")).toMatchObject({
    questionId: odd.id,
    optionId: odd.options[0]?.id,
    isDefault: true,
  });
});

test.each([
  [315_576_000_001n, 0],
  [9_007_199_254_741n, 999_999_999],
  [9_223_372_036_854_775_807n, 0],
  [1n, 1_000_000_000],
])(
  "a result that took %d s and %d ns is stored, without that, and its run can be read",
  async (seconds, nanos) => {
    const { stream, run, named } = await begin();
    stream.send({ case: "complete", value: { ...named, outcome: 1, duration: { seconds, nanos } } });
    expect((await stream.next("completionAck")).verdict).toBe(CompletionVerdict.STORED);
    for (const text of [
      await asJson("GetRun", { runId: run.id }),
      await asJson("ListRuns", { pageSize: 3 }),
    ]) {
      expect(text).toContain("RUN_STATUS_COMPLETED");
      expect(text).not.toContain("internal");
    }
  },
);
