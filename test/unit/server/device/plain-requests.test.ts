import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { AttentionReason } from "#gen/pinion/v1/activity_pb.js";
import {
  type CompletionSchema,
  type ConnectRequest,
  ConnectRequestSchema,
  Outcome,
} from "#gen/pinion/v1/device_pb.js";
import { checkMessage } from "../../../../src/server/access/interceptors/validate.ts";
import { agentReportOf, reportsNothing } from "../../../../src/server/device/messages/reports.ts";
import { isPlainlyValid } from "../../../../src/server/device/session/session-table.ts";

type Fields = MessageInitShape<typeof CompletionSchema>;

const name = { workId: crypto.randomUUID(), attemptToken: crypto.randomUUID() };
const plain = { ...name, outcome: Outcome.COMPLETED, output: "done", exitCode: 0 };

function decoded(message: NonNullable<MessageInitShape<typeof ConnectRequestSchema>["message"]>) {
  return fromBinary(
    ConnectRequestSchema,
    toBinary(ConnectRequestSchema, create(ConnectRequestSchema, { message })),
  );
}

const complete = (fields: Fields) => decoded({ case: "complete", value: { ...plain, ...fields } });
const isValid = (request: ConnectRequest) => checkMessage(ConnectRequestSchema, request) === undefined;

test("the messages of every run are plainly valid", () => {
  const usual: ConnectRequest[] = [
    decoded({ case: "accept", value: name }),
    complete({}),
    complete({ outcome: Outcome.FAILED, reason: "no such file", signal: "SIGTERM", isOutputTruncated: true }),
    complete({ output: "é".repeat(300_000), duration: { seconds: 3_600n, nanos: 999_999_999 } }),
  ];
  for (const request of usual) expect([isPlainlyValid(request), isValid(request)]).toEqual([true, true]);
});

/** Each field of a completion within its rules, at their bound, and beyond. */
const fields: Fields[] = [
  { workId: "" },
  { workId: `${name.workId} ` },
  { attemptToken: name.attemptToken.slice(1) },
  { attemptToken: name.attemptToken.toUpperCase() },
  { outcome: Outcome.UNSPECIFIED },
  { outcome: 5 as Outcome },
  { outcome: -1 as Outcome },
  ...[32, 33, 4_000, 4_001, 8_192, 8_193, 262_144, 262_145, 1_048_576, 1_048_577].flatMap((length) =>
    ["x", "é", "日", "🦉"].flatMap((letter): Fields[] => {
      const text = letter.repeat(length / Buffer.byteLength(letter));
      return [
        { output: text },
        { reason: text },
        { signal: text },
        { resultText: text },
        { stderrTail: text },
      ];
    }),
  ),
  ...[-1n, 0n, 604_801n, 2n ** 62n].flatMap((seconds): Fields[] => [
    { duration: { seconds } },
    { duration: { seconds, nanos: -1 } },
    { retryAfter: { seconds } },
  ]),
  { nextSnapshot: new Uint8Array(1_048_577) },
  { attention: [AttentionReason.UNSPECIFIED] },
  { attention: Array(17).fill(AttentionReason.PERMISSION_DENIED) },
  { notes: Array(17).fill("") },
  { denials: Array.from({ length: 33 }, () => ({})) },
  { sessionId: "s".repeat(201) },
  { modelUsed: "m".repeat(201) },
  { stopReason: "s".repeat(65) },
  { structured: "1".repeat(262_145) },
  { usage: {} },
  { transcript: {} },
  { executor: {} },
  { keptWorkspace: {} },
  { reoffer: { watcherId: "none" } },
  { turnReoffer: {} },
  { isResultTruncated: true },
];

test("what is plainly valid is valid by the rules of the .proto", () => {
  for (const field of fields) {
    const request = complete(field);
    if (isPlainlyValid(request)) expect(isValid(request)).toBe(true);
  }
});

test("text that is not valid UTF-8 is not plainly valid", () => {
  for (const field of [{ output: "QQ" }, { reason: "QQ" }, { signal: "QQ" }]) {
    const bytes = toBinary(
      ConnectRequestSchema,
      create(ConnectRequestSchema, { message: { case: "complete", value: { ...plain, ...field } } }),
    );
    bytes[Buffer.from(bytes).lastIndexOf("QQ") + 1] = 0xff;
    const request = fromBinary(ConnectRequestSchema, bytes);
    expect([isPlainlyValid(request), isValid(request)]).toEqual([false, false]);
  }
});

test("other messages are left to the rules", () => {
  expect(isPlainlyValid(decoded({ case: "cancelled", value: name }))).toBe(false);
  expect(isPlainlyValid(create(ConnectRequestSchema))).toBe(false);
});

test("every field of an agent's report is a report", () => {
  const ofReport = new Set([
    ...["resultText", "stderrTail", "attention", "notes", "denials", "sessionId", "modelUsed", "stopReason"],
    ...["structured", "usage", "transcript", "executor", "keptWorkspace", "isResultTruncated"],
  ]);
  for (const field of fields) {
    const { message } = complete(field);
    if (message.case !== "complete") throw new Error("another message");
    const reports = Object.keys(field).some((key) => ofReport.has(key));
    expect(reportsNothing(message.value)).toBe(!reports);
    expect(agentReportOf(message.value) === undefined).toBe(!reports);
  }
});
