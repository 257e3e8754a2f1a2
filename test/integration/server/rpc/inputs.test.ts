/**
 * The inputs of a run: stored, shown, put into the prompt as data, and decided on while another run
 * is active.
 */
import type { JsonValue } from "@bufbuild/protobuf";
import { fromJson, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { beforeAll, expect, test } from "vitest";
import { RunSource, RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import { OverlapPolicy } from "#gen/pinion/v1/watcher_pb.js";
import { transaction } from "../../../../src/store/pg/database.ts";
import * as starts from "../../../../src/store/work/runs/starts.ts";
import { newId } from "../../../../src/values/ids.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice, type Identity } from "../../../support/device.ts";
import { getRun, takeOn, untilStatus, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "one");
let laptop: Identity;
let stream: DeviceStream;
let count = 0;

beforeAll(async () => {
  laptop = await enrolDevice(replicas.one.clients);
});

const messageOf = (json: JsonValue) => fromJson(ValueSchema, json);

async function watcherOf(spec: Record<string, unknown> = {}) {
  count += 1;
  const { watcher } = await replicas.one.clients.watchers.createWatcher({
    spec: { name: `Inputs ${count}`, prompt: "do it", deviceId: laptop.deviceId, ...spec },
  });
  return watcher!.id;
}

const trigger = (watcherId: string, input?: JsonValue) =>
  replicas.one.clients.watchers.triggerWatcher({
    watcherId,
    ...(input === undefined ? {} : { input: messageOf(input) }),
  });

async function onDevice<T>(fn: (stream: DeviceStream) => Promise<T>): Promise<T> {
  stream = await connect(replicas.one.url, laptop, { maxConcurrency: 1 });
  return fn(stream);
}

async function finish(assignment: { workId: string; attemptToken: string }) {
  await stream.complete(assignment);
  await untilStatus(replicas.one.clients, assignment, RunStatus.COMPLETED);
}

test("an input is stored with its run, shown without what redact names, and reaches the device whole and in the prompt", async () => {
  const watcherId = await watcherOf({
    prompt: "Look at {{ input.commit.sha }} by {{input.commit.author.name}}: {{ input.commit.message }}",
    redact: ["commit.author.email", "tokens.*.value"],
  });
  const input = {
    commit: {
      sha: "abc123",
      message: "fix\n```\n{{ input.commit.sha }}",
      author: { name: "Ann `x`", email: "ann@example.com" },
    },
    tokens: [{ value: "hush" }, { value: "hush" }],
    "odd key": null,
  };
  const { run, alreadyQueued } = await trigger(watcherId, input);
  expect(alreadyQueued).toBe(false);
  const shown = await getRun(replicas.one.clients, { workId: run!.id });
  expect(shown.source).toBe(RunSource.MANUAL);
  expect(toJson(ValueSchema, shown.input!)).toEqual({
    ...input,
    commit: { ...input.commit, author: { name: "Ann `x`", email: "[redacted]" } },
    tokens: [{ value: "[redacted]" }, { value: "[redacted]" }],
  });
  await onDevice(async () => {
    const assignment = await takeOn(stream);
    expect(JSON.parse(assignment.event!.input)).toEqual(input);
    // Fenced by more back quotes than the text has, and not read as a prompt again.
    expect(assignment.watcher!.prompt).toContain("Look at `abc123` by `` Ann `x` ``: ");
    expect(assignment.watcher!.prompt).toContain(
      "\n````input.commit.message\nfix\n```\n{{ input.commit.sha }}\n````\n",
    );
    await finish(assignment);
    stream.end();
  });
});

test("a trigger whose input lacks what the prompt asks for is refused with its name, also without an input", async () => {
  const watcherId = await watcherOf({ prompt: "See {{ input.a.b }} and {{ input.list.0.x }}" });
  await expect(trigger(watcherId, { a: {} })).rejects.toThrow(/input\.a\.b, input\.list\.0\.x/);
  await expect(trigger(watcherId, { a: { b: 1 }, list: [] })).rejects.toThrow(/asks for input\.list\.0\.x,/);
  await expect(trigger(watcherId)).rejects.toThrow(/there is no input/);
  await expect(trigger(watcherId, { a: { b: 1 }, list: [{ x: null }] })).resolves.toMatchObject({
    alreadyQueued: false,
  });
  for (const prompt of ["{{ input['a'] }}", "{{ input.a | upper }}", "{{input.a", "{{ input. }}"]) {
    await expect(watcherOf({ prompt }), prompt).rejects.toThrow(/dotted names only/);
  }
  await expect(watcherOf({ prompt: "{{ input.a }}", schedule: "@daily" })).rejects.toThrow(/no input/);
  // Other double braces are text.
  await watcherOf({ prompt: "{{ inputs.a }} {{ x }}", schedule: "@daily" });
});

test("an input of more than 64 KiB, or nested too deeply, is refused", async () => {
  const watcherId = await watcherOf();
  await expect(trigger(watcherId, "x".repeat(65_536))).rejects.toThrow(/65538 bytes/);
  let deep: JsonValue = 1;
  for (let depth = 0; depth < 35; depth++) deep = [deep];
  await expect(trigger(watcherId, deep)).rejects.toThrow(/nested/);
  const { run } = await trigger(watcherId, "x".repeat(65_534));
  expect(toJson(ValueSchema, run!.input!)).toHaveLength(65_534);
});

test("while a run is active only an equal input is already queued; with overlap skip another one is a skipped run", async () => {
  const watcherId = await watcherOf();
  const first = await trigger(watcherId, { a: 1, b: [1, { c: null }] });
  expect(await trigger(watcherId, { b: [1, { c: null }], a: 1 })).toMatchObject({
    alreadyQueued: true,
    run: { id: first.run!.id },
  });
  for (const other of [{ a: 2 }, null, undefined]) {
    const { run, alreadyQueued } = await trigger(watcherId, other);
    expect({ alreadyQueued, status: run!.status, why: run!.skipReason }).toEqual({
      alreadyQueued: false,
      status: RunStatus.SKIPPED,
      why: SkipReason.OVERLAP,
    });
  }
  await replicas.one.clients.runs.cancelRun({ runId: first.run!.id });
  // Without inputs, the prompt is unchanged.
  const plain = await trigger(watcherId);
  expect(await trigger(watcherId)).toMatchObject({ alreadyQueued: true, run: { id: plain.run!.id } });
  await replicas.one.clients.runs.cancelRun({ runId: plain.run!.id });
});

test("with queue_one the latest input waits, with queue_all every one, in order", async () => {
  const [one, all] = [
    await watcherOf({ overlap: OverlapPolicy.QUEUE_ONE }),
    await watcherOf({ overlap: OverlapPolicy.QUEUE_ALL }),
  ];
  for (const watcherId of [one, all]) {
    const active = (await trigger(watcherId, 0)).run!.id;
    const waiting = [];
    for (const input of [1, 2, 3]) waiting.push(await trigger(watcherId, input));
    expect(new Set(waiting.map(({ run }) => run!.id))).toEqual(new Set([active]));
    const ids = waiting.map(({ queuedRunId }) => queuedRunId);
    expect(new Set(ids).size).toBe(3);
    expect(await trigger(watcherId, 3)).toMatchObject({ alreadyQueued: true, queuedRunId: ids[2] });
    await expect(getRun(replicas.one.clients, { workId: ids[2]! })).rejects.toThrow(
      /waits for the end of run/,
    );
    await replicas.one.clients.runs.cancelRun({ runId: active });
    const order = watcherId === one ? [ids[2]!] : ids;
    for (const runId of order) {
      const run = await untilStatus(replicas.one.clients, { workId: runId }, RunStatus.PENDING);
      expect(toJson(ValueSchema, run.input!)).toBe(ids.indexOf(runId) + 1);
      await replicas.one.clients.runs.cancelRun({ runId });
    }
    const { runs } = await replicas.one.clients.runs.listRuns({ watcherId });
    const skipped = runs.filter(({ status }) => status === RunStatus.SKIPPED).map(({ id }) => id);
    expect(skipped.sort()).toEqual(watcherId === one ? ids.slice(0, 2).sort() : []);
  }
});

test("a retry has the input of the run that it repeats", async () => {
  const watcherId = await watcherOf({ prompt: "{{ input.x }}" });
  const { run } = await trigger(watcherId, { x: "again" });
  await replicas.one.clients.runs.cancelRun({ runId: run!.id });
  const retried = await replicas.one.clients.runs.retryRun({ runId: run!.id });
  const again = await getRun(replicas.one.clients, { workId: retried.run!.id });
  expect(toJson(ValueSchema, again.input!)).toEqual({ x: "again" });
  await replicas.one.clients.runs.cancelRun({ runId: again.id });
});

test("a retry waits for a start that goes first, also in the moment between two runs, and is never another run", async () => {
  const { clients } = replicas.one;
  const watcherId = await watcherOf({ prompt: "{{ input.x }}", overlap: OverlapPolicy.QUEUE_ALL });
  const { run } = await trigger(watcherId, { x: "first" });
  await clients.runs.cancelRun({ runId: run!.id });
  const runId = newId();
  await transaction(database.db, async (tx) => {
    const start = { orgId: "local", watcherId, runId, actor: "pinion", input: { x: "next" } };
    await starts.insert(tx, { ...start, origin: starts.noOrigin });
    await starts.wait(tx, { orgId: "local", watcherId, runId, source: "manual" });
  });
  await expect(clients.runs.retryRun({ runId: run!.id })).rejects.toThrow(/wait for its end/);
});
