/**
 * What devices say of attempts that are theirs, each field at its limits and beyond: nothing of it
 * spoils a reader of the run, of its question, or of the lists.
 */
import { type Message, toBinary } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import {
  ActivityReportSchema,
  type Assignment,
  CompletionSchema,
  type ConnectRequest,
  OutputSchema,
  QuestionAskedSchema,
} from "#gen/pinion/v1/device_pb.js";
import { checkMessage } from "../../../../src/server/access/interceptors/validate.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../../support/device.ts";
import { mutationsOf } from "../../../support/hostile/fields.ts";
import { startWork, takeOn, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");
const patience = { timeout: 600_000 };

/** A call as JSON, whose writer is stricter than that of binary messages. */
async function read(method: string, body: object): Promise<string | undefined> {
  const response = await fetch(`${replicas.here.url}/pinion.v1.${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${replicas.here.token}` },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  return response.status < 500 ? undefined : `${method}: ${text}`;
}

/** The readers of a run; those that fail. */
async function failuresOf(runId: string): Promise<string[]> {
  const found = await Promise.all([
    read("RunService/GetRun", { runId }),
    read("RunService/ExplainRun", { runId }),
    read("RunService/GetTranscript", { runId }),
    read("RunService/ListRuns", { pageSize: 2 }),
    read("RunService/ListWindows", { runId }),
    read("RunService/ListQuestions", { runId }),
    read("EventService/ListEvents", { runId }),
  ]);
  return found.filter((problem) => problem !== undefined);
}

type Case = NonNullable<ConnectRequest["message"]["case"]>;

/** Sends messages about attempts of one device, which gets a new attempt whenever one has ended. */
async function opened() {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  let stream: DeviceStream | undefined;
  let assignment: Assignment | undefined;
  let last = "";
  return {
    async attempt(): Promise<Assignment> {
      if (assignment) return assignment;
      stream ??= await connect(url, device);
      // Of a new watcher each: a report may put off the next run of its own.
      await startWork(clients, device);
      try {
        assignment = await takeOn(stream);
      } catch (error) {
        throw new Error(`no attempt after ${last}: ${(error as Error).message}`);
      }
      return assignment;
    },
    async acknowledged(): Promise<void> {
      await stream!.next("completionAck");
    },
    /** The end of the stream, if the message has ended it. */
    async send(kind: Case, value: Message, endsAttempt: boolean) {
      const held = endsAttempt || !assignment ? [] : [assignment];
      stream!.send({ case: kind, value } as never);
      if (endsAttempt) assignment = undefined;
      last = JSON.stringify(value, (_, x) => (typeof x === "bigint" ? String(x) : x)).slice(0, 500);
      const sent = stream!;
      const ended = await sent.beat(held).then(
        () => undefined,
        () => sent.ended,
      );
      if (ended) {
        stream = undefined;
        assignment = undefined;
      }
      return ended;
    },
  };
}

test.each([
  ["complete", CompletionSchema, true],
  ["question", QuestionAskedSchema, false],
  ["activity", ActivityReportSchema, false],
  ["output", OutputSchema, false],
] as const)("%s, with each field at its limits and beyond", patience, async (kind, schema, endsAttempt) => {
  const session = await opened();
  const wrong: string[] = [];
  let sent = 0;
  /** What was said of each run. */
  const labels = new Map<string, string[]>();
  for (const { label, message } of mutationsOf(schema, {})) {
    const { workId, attemptToken } = await session.attempt();
    const isForeign = /^(work_id|attempt_token):/.test(label);
    if (!isForeign) Object.assign(message, { workId, attemptToken });
    try {
      if (toBinary(schema, message as never).length > 1_500_000) continue;
    } catch {
      // Our own encoder refuses the value.
      continue;
    }
    sent += 1;
    const ended = await session.send(kind, message, endsAttempt && !isForeign);
    const mayEnd = !endsAttempt && checkMessage(schema, message as never) !== undefined;
    if (ended && !(mayEnd && ended.code === status.INVALID_ARGUMENT)) {
      wrong.push(`${label}: the stream ended with ${status[ended.code]} ${ended.details}`);
    }
    if (!ended && endsAttempt && !isForeign) await session.acknowledged();
    labels.set(workId, [...(labels.get(workId) ?? []), label]);
  }
  for (const [runId, sentOf] of labels) {
    for (const problem of await failuresOf(runId)) wrong.push(`${sentOf.join("; ")}: ${problem}`);
  }
  process.stderr.write(`  ${kind}: ${sent} messages\n`);
  expect(wrong).toEqual([]);
  expect(sent).toBeGreaterThan(20);
});
