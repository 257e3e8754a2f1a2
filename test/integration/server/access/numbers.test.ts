/** Numbers of 64 bits reach their readers as they were sent, through the database and the API. */
import { type DescMessage, ScalarType } from "@bufbuild/protobuf";
import fc from "fast-check";
import { sql } from "kysely";
import { expect, onTestFinished, test, vi } from "vitest";
import * as activities from "#gen/pinion/v1/activity_pb.js";
import * as agents from "#gen/pinion/v1/agent_pb.js";
import * as devices from "#gen/pinion/v1/device_pb.js";
import * as events from "#gen/pinion/v1/event_pb.js";
import * as fleet from "#gen/pinion/v1/fleet_pb.js";
import * as runs from "#gen/pinion/v1/run_pb.js";
import * as turns from "#gen/pinion/v1/turn_pb.js";
import * as watchers from "#gen/pinion/v1/watcher_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { getRun, startWork, takeOn, useReplicas, watchRun } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here", "there");

/** Fields that a peer fills: each is covered by a test. */
const sent = new Map([
  ["Activity.sequence", "below"],
  ["Usage.input_tokens", "below"],
  ["Usage.output_tokens", "below"],
  ["Usage.cached_input_tokens", "below"],
  ["Usage.cost_micros", "below"],
  ["Budget.tokens_max", "below"],
  ["Budget.cost_micros_max", "below"],
  ["Transcript.omitted_entries", "below"],
  ["Heartbeat.sequence", "below"],
  ["HeartbeatAck.sequence", "below"],
  ["Machine.session_epoch", "duplicate-machine.test.ts"],
  ["Output.sequence", "device-stream.test.ts"],
  ["RunOutput.sequence", "device-stream.test.ts"],
  ["WatchTurnRequest.after_sequence", "below"],
  ["UsageSum.runs", "below"],
  ["UsageSum.input_tokens", "below"],
  ["UsageSum.output_tokens", "below"],
  ["UsageSum.cached_input_tokens", "below"],
  ["UsageSum.cost_micros", "below"],
  ["UsageSum.runs_with_cost", "below"],
]);

/** Counters and bounds of the server, which grow by one or are settings: far below 2^53. */
const counted = new Set([
  ...["Welcome.session_epoch", "TransientEvent.session_epoch", "Device.session_epoch"],
  ...["Limits.message_bytes_max", "Limits.completion_output_bytes_max", "Limits.output_chunk_bytes_max"],
  ...["Limits.transcript_bytes_max", "TurnAssignment.snapshot_version", "Turn.snapshot_version"],
  ...["Conversation.snapshot_version", "Conversation.snapshot_bytes"],
]);

const wide = new Set([
  ScalarType.INT64,
  ScalarType.UINT64,
  ScalarType.SINT64,
  ScalarType.FIXED64,
  ScalarType.SFIXED64,
]);

test("every field of 64 bits is known to this file, or is a counter of the server", () => {
  const found = [activities, agents, devices, events, fleet, runs, turns, watchers]
    .flatMap((file) => Object.values(file as Record<string, unknown>))
    .filter((value): value is DescMessage => (value as { kind?: string } | null)?.kind === "message")
    .flatMap(({ name, fields }) =>
      fields
        .filter(
          (field) => field.fieldKind !== "map" && "scalar" in field && wide.has(field.scalar as ScalarType),
        )
        .map((field) => `${name}.${field.name}`),
    );
  expect(found.length).toBeGreaterThan(20);
  // Sums of runs are counts of rows.
  const rest = found.filter((name) => !sent.has(name) && !counted.has(name) && !name.endsWith(".runs"));
  expect(rest).toEqual([]);
});

const most = 2n ** 63n - 1n;
const edges = [0n, 1n, 2n ** 31n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 62n + 1n, most - 1n, most];
const int64 = fc.oneof(fc.constantFrom(...edges), fc.bigInt({ min: 0n, max: most }));
const uint64 = fc.oneof(
  fc.constantFrom(...edges, 2n ** 64n - 1n),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);
const seed = process.env.PINION_TEST_SEED;
const runsOf = (numRuns: number) => ({
  numRuns,
  endOnFailure: true,
  ...(seed ? { seed: Number(seed) } : {}),
});

test("budgets, usage, transcripts and activities are as they were sent, whatever the numbers", {
  timeout: 60_000,
}, async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  // On a busy machine a run takes longer than the TTL.
  const alive = 77n;
  let held: { workId: string; attemptToken: string }[] = [];
  const beats = setInterval(() => {
    stream.send({ case: "heartbeat", value: { sequence: alive, attempts: held } });
  }, 1_000);
  onTestFinished(() => clearInterval(beats));
  const numbers = fc.record({
    tokensMax: int64.filter((value) => value > 0n),
    costMicrosMax: int64,
    usage: fc.record({
      inputTokens: int64,
      outputTokens: int64,
      cachedInputTokens: int64,
      costMicros: int64,
    }),
    omittedEntries: int64,
    sequence: uint64,
    beat: int64.filter((value) => value > 100n),
  });
  await fc.assert(
    fc.asyncProperty(numbers, async ({ tokensMax, costMicrosMax, usage, omittedEntries, sequence, beat }) => {
      const budget = { tokensMax, costMicrosMax };
      const run = await startWork(clients, device, {
        runBudget: budget,
        dayBudget: { tokensMax: most, costMicrosMax },
      });
      const { watcher } = await replicas.there.clients.watchers.getWatcher({ watcherId: run.watcherId });
      expect(watcher!.spec).toMatchObject({
        runBudget: budget,
        dayBudget: { tokensMax: most, costMicrosMax },
      });
      const assignment = await takeOn(stream);
      held = [{ workId: assignment.workId, attemptToken: assignment.attemptToken }];
      expect(assignment.budget).toMatchObject(budget);
      const name = { workId: assignment.workId, attemptToken: assignment.attemptToken };
      stream.send({ case: "heartbeat", value: { sequence: beat, attempts: held } });
      let ack = await stream.next("heartbeatAck");
      // Those of other heartbeats come before; a wrong number never comes.
      while (ack.sequence !== beat) ack = await stream.next("heartbeatAck");
      const entries = [{ sequence, body: { case: "text" as const, value: { text: "so" } } }];
      stream.send({
        case: "complete",
        value: {
          ...{ ...name, outcome: devices.Outcome.COMPLETED, resultText: "so", usage },
          transcript: { entries, omittedEntries },
        },
      });
      expect((await stream.next("completionAck")).verdict).toBe(devices.CompletionVerdict.STORED);
      held = [];
      const ended = await getRun(replicas.there.clients, { workId: run.id });
      expect(ended.usage).toMatchObject(usage);
      const { transcript } = await clients.runs.getTranscript({ runId: run.id });
      expect(transcript).toMatchObject({ omittedEntries, entries: [{ sequence }] });
    }),
    runsOf(5),
  );
});

test("an activity's number reaches those who watch on another replica", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  const watch = watchRun(replicas.there.clients, assignment);
  await watch.begun();
  const sequences = [1n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n];
  for (const sequence of sequences) {
    const { workId, attemptToken } = assignment;
    const activity = { sequence, body: { case: "text" as const, value: { text: "so" } } };
    stream.send({ case: "activity", value: { workId, attemptToken, activities: [activity] } });
  }
  await vi.waitFor(() =>
    expect(watch.activities.map(({ activity }) => activity!.sequence)).toEqual(sequences),
  );
});

test("sums of usage beyond 2^53 are exact, and beyond 2^63 the largest number", async () => {
  const { clients } = replicas.here;
  const device = await enrolDevice(clients);
  const { watcherId } = await startWork(clients, device);
  const add = (day: string, count: bigint) =>
    sql`insert into usage_day (org_id, day, watcher_id, agent_id, device_id, runs, input_tokens, output_tokens,
        cached_input_tokens, cost_micros, runs_with_cost)
      values ('local', current_date - ${day}::int, ${watcherId}, 'pinion-default', ${device.deviceId}, ${count}::text::int8,
        ${count}::text::int8, ${count}::text::int8, ${count}::text::int8, ${count}::text::int8, ${count}::text::int8)`.execute(
      database.db,
    );
  const all = (count: bigint) => ({
    ...{ runs: count, inputTokens: count, outputTokens: count, cachedInputTokens: count },
    ...{ costMicros: count, runsWithCost: count },
  });
  await add("0", 2n ** 53n);
  await add("1", 1n);
  expect((await clients.runs.summarizeUsage({ watcherId })).sums).toMatchObject([all(2n ** 53n + 1n)]);
  await add("2", most);
  expect((await clients.runs.summarizeUsage({ watcherId })).sums).toMatchObject([all(most)]);
});

test("a turn is watched from any number on", async () => {
  const { turn } = await replicas.here.clients.turns.startTurn({
    userId: "ada",
    messageId: "m-64",
    input: "hello",
  });
  for (const afterSequence of [2n ** 53n + 1n, 2n ** 64n - 1n]) {
    const abort = new AbortController();
    const updates = replicas.here.clients.turns.watchTurn(
      { turnId: turn!.id, afterSequence },
      { signal: abort.signal },
    );
    for await (const { update } of updates) {
      expect(update.case).toBe("turn");
      abort.abort();
      break;
    }
  }
});
