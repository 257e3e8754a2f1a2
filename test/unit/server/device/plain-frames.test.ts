import { toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectResponseSchema } from "#gen/pinion/v1/device_pb.js";
import { assignmentOf, completionAckOf } from "../../../../src/server/device/messages/messages.ts";
import {
  completionAckFrame,
  frameOf,
  plainAssignmentFrame,
  writeText,
} from "../../../../src/server/device/messages/plain-frames.ts";
import { framed } from "../../../../src/server/device/stream/grpc-frames.ts";
import type { ClaimedRun } from "../../../../src/store/work/runs/run-claims.ts";
import { plainRun } from "./claimed-run.ts";

const priorWindow = {
  id: crypto.randomUUID(),
  run_id: crypto.randomUUID(),
  window_start: "2026-11-28T06:00:00+00:00",
  window_end: "2026-11-29T06:00:00.123456+00:00",
  model_used: "device-cli",
  kind: "device_cli_output",
  output: "all is well",
  structured: null,
  created_at: "2026-11-29T06:00:07.000999+00:00",
};

/** Texts of zero to 100,000 bytes, around each length that takes another byte. */
const texts = ["", "a", "é", "日本語", "🦉", ...[41, 42, 43, 127, 128, 16_383, 16_384, 100_000]].map((one) =>
  typeof one === "number" ? "x".repeat(one) : one,
);

const variants: Partial<ClaimedRun>[] = [
  {},
  { agentKind: "", notification: "none", source: "after", scheduledFor: null, timeoutMs: 0 },
  { notification: "of a newer version", source: "of a newer version", timeoutMs: 1_999 },
  { watcherSlug: null, watcherName: null, agentName: null, attempt: 300, watcherVersion: 2 ** 31 - 1 },
  { dueAt: new Date(0), windowStart: new Date(0), windowEnd: new Date(1), scheduledFor: new Date(0) },
  { dueAt: new Date("9999-12-31T23:59:59.999Z") },
  { agentSettings: { model: "fast", workspace: "shop", mcpServers: [{ name: "pinion", isInjected: true }] } },
  { agentSettings: { identity: "y".repeat(60_000), keyOfANewerVersion: 1 } },
  { priorWindow },
  ...texts.flatMap((output) => [
    { prompt: output, priorWindow: { ...priorWindow, output } },
    { watcherName: output, agentName: output },
  ]),
];

test("the frame of a plain assignment is the frame that protobuf makes", () => {
  for (const variant of variants) {
    for (const [traceparent, cell] of [
      ["", ""],
      ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "east"],
    ] as const) {
      const run = { ...plainRun, ...variant };
      const expected = framed(toBinary(ConnectResponseSchema, assignmentOf(run, traceparent, cell)));
      expect(plainAssignmentFrame(run, traceparent, cell)?.toString("hex")).toBe(expected.toString("hex"));
    }
  }
});

test("an assignment with an unusual wish is left to protobuf", () => {
  const unusual: Partial<ClaimedRun>[] = [
    { input: "{}" },
    { extractionSchema: { type: "object" } },
    { agentWork: { workspace: "shop" } },
    { agentSession: { id: "s", run_id: plainRun.runId } },
    { priorWindow: { ...priorWindow, structured: { answer: 42 } } },
    { windowStart: new Date(-1) },
    { scheduledFor: new Date(-1) },
    { priorWindow: { ...priorWindow, window_start: "1969-12-31T23:59:59+00:00" } },
  ];
  for (const wish of unusual) expect(plainAssignmentFrame({ ...plainRun, ...wish }, "", "")).toBeUndefined();
});

test("the frame of an acknowledgement is the frame that protobuf makes", () => {
  const name = { workId: plainRun.runId, attemptToken: plainRun.attemptToken };
  const incarnation = { systemIdentifier: "7301", timeline: 4_294_967_295, position: "0/3000148" };
  for (const verdict of ["stored", "stored_late", "already_stored", "superseded", "unknown"] as const) {
    for (const windowId of [null, plainRun.runId]) {
      for (const known of [undefined, incarnation, { ...incarnation, safePosition: "0/2000000" }]) {
        const stored = { verdict, windowId };
        const expected = framed(toBinary(ConnectResponseSchema, completionAckOf(name, stored, known)));
        expect(completionAckFrame(name, stored, known).toString("hex")).toBe(expected.toString("hex"));
      }
    }
  }
});

test("frames are independent of each other and of the writer's buffer", () => {
  const one = frameOf(() => writeText(1, "one"));
  const large = frameOf(() => writeText(1, "z".repeat(200_000)));
  frameOf(() => writeText(1, "two"));
  expect(one.toString("latin1")).toBe("\0\0\0\0\x05\x0a\x03one");
  expect(large.length).toBe(5 + 1 + 3 + 200_000);
});
