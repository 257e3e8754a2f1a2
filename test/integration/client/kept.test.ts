/**
 * Acknowledged results are kept for a while, and offered again to a database that may have lost
 * them.
 */
import { randomUUID } from "node:crypto";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import { expect, onTestFinished, test } from "vitest";
import { type Assignment, CompletionVerdict, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import { listKept } from "../../../clients/ts/src/index.ts";
import { settledSession, startDevice, startPeer, until } from "./harness.ts";

/** Whole records, without the temporary file of a write that is under way. */
const kept = (stateDir: string) =>
  readdirSync(join(stateDir, "outbox", "kept")).filter((name) => name.endsWith(".kept"));
const first = { systemIdentifier: "7420", timeline: 1, position: "0/3000148" };
const promoted = { ...first, timeline: 2 };

/** A device whose server stored a result, before the failover of the database. */
async function begin(outcome: "completed" | "failed" = "completed") {
  const peer = await startPeer();
  peer.incarnation = first;
  let programs = 0;
  const { events, stateDir, device } = startDevice(peer.url, {
    onAssignment: async () => {
      programs += 1;
      return { outcome, output: `done ${programs}` };
    },
  });
  const session = await settledSession(peer);
  const assignment = session.assign();
  await session.next("complete");
  await events.next("acknowledged");
  await until(() => kept(stateDir).length === 1, "the result is kept");
  const failOver = async () => {
    peer.incarnation = promoted;
    session.end();
    return peer.session();
  };
  return { peer, device, events, stateDir, session, assignment, failOver, programs: () => programs };
}

test("an acknowledged result is kept, and offered again with its run to another timeline, once", async () => {
  const { session, assignment, failOver, stateDir, peer } = await begin();
  expect(session.all("complete")[0]!.reoffer).toBeUndefined();
  const second = await failOver();
  // An acknowledged result is not held any more: only a completion mentions it.
  expect(second.hello.held).toEqual([]);
  const offered = await second.next("complete");
  expect(offered).toMatchObject({
    ...{ workId: assignment.workId, attemptToken: assignment.attemptToken, output: "done 1" },
    reoffer: { watcherId: assignment.watcher!.id, attempt: 1, source: assignment.event!.source },
  });
  await until(() => kept(stateDir)[0]!.endsWith("7420-2.kept"), "it is noted");
  second.end();
  const third = await peer.session();
  third.assign();
  await third.next("complete");
  expect(third.all("complete").filter((sent) => sent.reoffer)).toEqual([]);
});

/** A daemon's outbox with a result whose acknowledgement was lost; the daemon has ended. */
async function beginWithHeld() {
  const peer = await startPeer();
  peer.incarnation = first;
  peer.acknowledges = false;
  const { device, stateDir } = startDevice(peer.url);
  const session = await peer.session();
  const { attemptToken } = session.assign();
  await session.next("complete");
  await device.close({ graceMs: 0, flushMs: 0 });
  peer.acknowledges = true;
  return { peer, stateDir, attemptToken };
}

test.each([
  ["is offered again to another database than the call's", true, promoted],
  ["whose database the call did not name is offered again", false, first],
])(
  "a result that a daemon delivers by the unary call before its first welcome is kept, and %s",
  async (_, namesUnary, next) => {
    const { peer, stateDir, attemptToken } = await beginWithHeld();
    Object.assign(peer, { namesUnary, refusal: { code: status.UNAVAILABLE, details: "no stream yet" } });
    const { events } = startDevice(peer.url, { stateDir, timing: { unaryAfterMs: 50 } });
    await events.next("acknowledged");
    await until(() => kept(stateDir).length === 1, "the result is kept");
    Object.assign(peer, { incarnation: next, refusal: undefined });
    const session = await peer.session();
    expect(session.hello.held).toEqual([]);
    expect(await session.next("complete")).toMatchObject({ attemptToken, reoffer: { attempt: 1 } });
    await until(() => kept(stateDir)[0]?.endsWith(`7420-${next.timeline}.kept`) === true, "it is noted");
  },
);

test("a result that is known at a daemon's first welcome is kept, and offered again to another database", async () => {
  const { peer, stateDir, attemptToken } = await beginWithHeld();
  peer.heldVerdict = () => HeldVerdict.ALREADY_STORED;
  const { events } = startDevice(peer.url, { stateDir });
  const session = await peer.session();
  await events.next("acknowledged", ({ verdict }) => verdict === "already_stored");
  await until(() => kept(stateDir)[0]?.endsWith("7420-1.kept") === true, "the result is kept");
  peer.incarnation = promoted;
  session.end();
  expect(await (await peer.session()).next("complete")).toMatchObject({
    attemptToken,
    reoffer: { attempt: 1 },
  });
});

test("a reply of a turn is kept too, and offered again with what its sender asked", async () => {
  const { session, events, failOver, stateDir, peer } = await begin();
  const turn = { conversationId: "helper_ada_local", messageId: "m-1", input: "hello", usesSnapshot: true };
  const assignment = session.assign({ turn });
  await until(() => session.all("complete").length === 2, "it is sent");
  expect(session.all("complete")[1]!.turnReoffer).toBeUndefined();
  await events.next("acknowledged", () => true, 2);
  await until(() => kept(stateDir).length === 2, "the reply is kept");
  const second = await failOver();
  await until(() => second.all("complete").length === 2, "both are offered");
  const offered = second.all("complete").find((sent) => sent.workId === assignment.workId);
  const { usesSnapshot, ...names } = turn;
  expect(offered).toMatchObject({
    ...{ attemptToken: assignment.attemptToken, output: "done 2" },
    turnReoffer: { ...names, usesSnapshot, agentId: assignment.agent!.id, attempt: 1 },
  });
  expect(offered!.turnReoffer!.inputSha256).toHaveLength(32);
  expect(peer.violations).toEqual([]);
});

test("what was stored before the new timeline began is not offered again; what was stored later, or just now, is", async () => {
  const peer = await startPeer();
  const at = (position: string, timeline = 1, safePosition = "") => {
    peer.incarnation = { ...first, timeline, position, safePosition };
  };
  at("0/1000");
  const { events, stateDir } = startDevice(peer.url, { timing: { safeAfterMs: 0 } });
  const session = await peer.session();
  const tokens: string[] = [];
  const run = async () => {
    tokens.push(session.assign().attemptToken);
    await events.next("acknowledged", () => true, tokens.length);
    await until(() => kept(stateDir).length === tokens.length, "it is kept");
  };
  await run();
  at("0/2000");
  await run();
  // The log was at 0/2000 after the first result, and at an unknown position after the second.
  await until(() => kept(stateDir).some((name) => name.endsWith("7420-1-2000.kept")), "it is noted");
  at("0/9000", 2, "0/2000");
  session.end();
  const second = await peer.session();
  expect(await second.next("complete")).toMatchObject({ attemptToken: tokens[1], reoffer: { attempt: 1 } });
  await until(() => kept(stateDir).every((name) => name.includes("7420-2")), "both are noted");
  await second.next("heartbeat");
  expect(second.all("complete")).toHaveLength(1);
  // A later timeline whose beginning is not known, or not the next one: everything is offered.
  for (const [timeline, safe] of [
    [3, ""],
    [5, "F/FFFFFFFF"],
  ] as const) {
    at("0/9999", timeline, safe);
    peer.sessions.at(-1)!.end();
    const next = await peer.session();
    await until(() => next.all("complete").length === 2, "both are offered");
    await until(() => kept(stateDir).every((name) => name.includes(`7420-${timeline}`)), "both are noted");
  }
});

test("a result of the last minutes is offered again, wherever the timeline began", async () => {
  const { peer, session, failOver, assignment } = await begin();
  peer.incarnation = { ...first, position: "0/4000000" };
  session.assign();
  await until(() => session.all("complete").length === 2, "it is sent");
  Object.assign(promoted, { safePosition: "F/FFFFFFFF" });
  const second = await failOver();
  await until(
    () => second.all("complete").some(({ workId }) => workId === assignment.workId),
    "the result is offered",
  );
});

test("a run that the new database assigns again is answered with the result, and its program does not run twice", async () => {
  const { assignment, failOver, programs } = await begin();
  const second = await failOver();
  const again = second.assign({ workId: assignment.workId, attempt: 1 });
  await until(
    () => second.all("complete").some((sent) => sent.attemptToken === again.attemptToken),
    "the new attempt is answered",
  );
  const answer = second.all("complete").find((sent) => sent.attemptToken === again.attemptToken);
  expect(answer).toMatchObject({ workId: assignment.workId, output: "done 1" });
  expect(programs()).toBe(1);
});

/** The id of a run of the same start, begun at another moment. */
const atAnotherTime = (workId: string) => `01980000-0000-7000-8${workId.slice(20)}`;

test("a start that its sender repeated after a failover is answered with the result of the first run", async () => {
  const { assignment, failOver, programs } = await begin();
  const second = await failOver();
  const { watcher, event } = assignment;
  const workId = atAnotherTime(assignment.workId);
  const again = second.assign({ workId, more: { watcher: watcher!, event: event! } });
  const answer = () => second.all("complete").find((sent) => sent.attemptToken === again.attemptToken);
  await until(() => answer() !== undefined, "the new run is answered");
  expect(answer()).toMatchObject({ workId, output: "done 1" });
  expect(programs()).toBe(1);
});

test.each<[string, (assignment: Assignment) => { workId?: string; more: object }]>([
  ["of another name", ({ watcher, event }) => ({ more: { watcher, event } })],
  ["of another watcher", ({ workId, event }) => ({ workId: atAnotherTime(workId), more: { event } })],
  [
    "of a slot",
    ({ workId, watcher, event }) => ({
      workId: atAnotherTime(workId),
      more: { watcher, event: { ...event, scheduledFor: timestampFromDate(new Date(0)) } },
    }),
  ],
])("a run %s runs after a failover", async (_, scriptOf) => {
  const { assignment, failOver, programs } = await begin();
  (await failOver()).assign(scriptOf(assignment));
  await until(() => programs() === 2, "it ran");
});

test("a completed run whose result the new database lost has no second attempt", async () => {
  const { assignment, failOver, programs } = await begin();
  const second = await failOver();
  const again = second.assign({ workId: assignment.workId, attempt: 2 });
  await until(
    () => second.all("complete").some((sent) => sent.attemptToken === again.attemptToken),
    "the new attempt is answered",
  );
  expect(programs()).toBe(1);
});

test("a completed run that is assigned again before the server has noticed the failover is answered with the result", async () => {
  const { assignment, session, programs } = await begin();
  const again = session.assign({ workId: assignment.workId, attempt: 2 });
  const answer = () => session.all("complete").find((sent) => sent.attemptToken === again.attemptToken);
  await until(() => answer() !== undefined, "the new attempt is answered");
  expect(answer()).toMatchObject({ workId: assignment.workId, output: "done 1" });
  expect(programs()).toBe(1);
});

test("a result that waits for its verdict answers a further attempt of its run, too", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  let programs = 0;
  startDevice(peer.url, {
    maxConcurrency: 2,
    onAssignment: async () => {
      programs += 1;
      return { outcome: "completed", output: `done ${programs}` };
    },
  });
  const session = await peer.session();
  const { workId } = session.assign();
  await session.next("complete");
  const again = session.assign({ workId, attempt: 2 });
  await until(
    () => session.all("complete").some((sent) => sent.attemptToken === again.attemptToken),
    "the second attempt is answered",
  );
  expect(programs).toBe(1);
});

test("a result whose run the server does not know is sent once more with its run, and then set aside", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  const { events } = startDevice(peer.url, {
    onAssignment: async () => ({ outcome: "completed", output: "it" }),
  });
  const session = await peer.session();
  const assignment = session.assign();
  expect((await session.next("complete")).reoffer).toBeUndefined();
  session.acknowledge(assignment, CompletionVerdict.UNKNOWN);
  await until(() => session.all("complete").length === 2, "it is sent again");
  expect(session.all("complete")[1]).toMatchObject({
    ...{ attemptToken: assignment.attemptToken, output: "it" },
    reoffer: { watcherId: assignment.watcher!.id, attempt: 1 },
  });
  session.acknowledge(assignment, CompletionVerdict.UNKNOWN);
  await events.next("acknowledged", ({ verdict }) => verdict === "unknown");
});

test("a second UNKNOWN for sends without the run is not taken for the answer to the send with the run", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  const { events } = startDevice(peer.url, {
    timing: { ackDeadlineMs: 100, ackDeadlineCapMs: 100 },
    onAssignment: async () => ({ outcome: "completed", output: "it" }),
  });
  const session = await peer.session();
  const assignment = session.assign();
  await until(() => session.all("complete").length >= 2, "it is sent again without an answer");
  const plain = session.all("complete").length;
  expect(session.all("complete").every(({ reoffer }) => reoffer === undefined)).toBe(true);
  // The network was slow: the answers to all sends without the run come at once.
  for (let answers = 0; answers < plain; answers++)
    session.acknowledge(assignment, CompletionVerdict.UNKNOWN);
  await until(() => session.all("complete").some(({ reoffer }) => reoffer), "it is sent with its run");
  session.acknowledge(assignment, CompletionVerdict.STORED_LATE);
  expect((await events.next("acknowledged")).verdict).toBe("stored_late");
});

test("a retry, and whatever the same database assigns, runs", async () => {
  const { assignment, events, session, failOver, programs } = await begin("failed");
  session.assign({ workId: assignment.workId, attempt: 1 });
  await until(() => programs() === 2, "it ran");
  // The attempt holds the device's only slot until the server has acknowledged the result.
  await events.next("acknowledged", () => true, 2);
  const second = await failOver();
  second.assign({ workId: assignment.workId, attempt: 2 });
  await until(() => programs() === 3, "it ran");
});

test("a retry that the server assigns again while the first result is read starts one program, and none once cancelled", async () => {
  const peer = await startPeer();
  peer.incarnation = first;
  let programs = 0;
  const { events, stateDir } = startDevice(peer.url, {
    maxConcurrency: 4,
    onAssignment: async () => {
      programs += 1;
      return { outcome: "failed", output: `try ${programs}` };
    },
  });
  const session = await peer.session();
  const { workId } = session.assign();
  await events.next("acknowledged");
  await until(() => kept(stateDir).length === 1, "the first result is kept");
  const { attemptToken } = session.assign({ workId, attempt: 2 });
  session.assign({ workId, attempt: 2, attemptToken });
  await events.next("duplicate");
  await events.next("acknowledged", () => true, 2);
  expect(programs).toBe(2);
  const third = session.assign({ workId, attempt: 3 });
  session.cancel(third);
  await session.next("cancelled");
  session.assign();
  await events.next("acknowledged", () => true, 3);
  expect(programs).toBe(3);
  expect(session.all("accept").filter((sent) => sent.attemptToken === third.attemptToken)).toEqual([]);
});

test("an acknowledged result that cannot be kept stays in the outbox, and the next daemon keeps it", async () => {
  const peer = await startPeer();
  peer.incarnation = first;
  const { events, stateDir, device } = startDevice(peer.url);
  const session = await peer.session();
  // No process can make a file below it, not even root's.
  const directory = join(stateDir, "outbox", "kept");
  rmSync(directory, { recursive: true });
  symlinkSync("/proc/self/fdinfo", directory);
  const { attemptToken } = session.assign();
  await events.next("acknowledged");
  await device.close({ graceMs: 0, flushMs: 0 });
  const outbox = () => readdirSync(join(stateDir, "outbox")).filter((name) => name.includes(attemptToken));
  expect(outbox()).toHaveLength(1);
  rmSync(directory);
  const next = startDevice(peer.url, { stateDir });
  await next.events.next("acknowledged");
  await until(() => kept(stateDir).length === 1 && outbox().length === 0, "it is kept");
});

test.skipIf(!existsSync("/dev/shm"))("kept results may be on another disk", async () => {
  const peer = await startPeer();
  peer.incarnation = first;
  const { events, stateDir } = startDevice(peer.url);
  const session = await peer.session();
  const elsewhere = mkdtempSync("/dev/shm/pinion-kept-");
  onTestFinished(() => rmSync(elsewhere, { recursive: true, force: true }));
  rmSync(join(stateDir, "outbox", "kept"), { recursive: true });
  symlinkSync(elsewhere, join(stateDir, "outbox", "kept"));
  const { attemptToken } = session.assign();
  await events.next("acknowledged");
  await until(() => kept(stateDir).some((name) => name.includes(attemptToken)), "it is kept");
  const left = () => readdirSync(join(stateDir, "outbox")).filter((name) => name.endsWith(".completion"));
  await until(() => left().length === 0, "it has left the outbox");
});

test("records of a newer daemon, which a downgrade leaves, stay as they are and are told", async () => {
  const { peer, device, stateDir } = await begin();
  await device.close({ graceMs: 0, flushMs: 0 });
  const outbox = join(stateDir, "outbox");
  const newer = Buffer.from("pinion-outbox/2 of another form\n");
  const waiting = join(outbox, `${randomUUID()}.${randomUUID()}.completion`);
  const acknowledged = join(outbox, "kept", kept(stateDir)[0]!);
  for (const path of [waiting, acknowledged]) writeFileSync(path, newer);
  peer.incarnation = promoted;
  const { events } = startDevice(peer.url, { stateDir });
  expect(await events.next("set_aside")).toMatchObject({
    path: waiting,
    problem: expect.stringMatching(/a newer daemon wrote it \(pinion-outbox\/2\).*install it again/),
  });
  const session = await peer.session();
  session.assign();
  await events.next("acknowledged");
  for (const path of [waiting, acknowledged]) expect(readFileSync(path)).toEqual(newer);
});

test("what is kept is bounded by size and by age, the oldest going first", async () => {
  const peer = await startPeer();
  peer.incarnation = first;
  const { events, stateDir } = startDevice(peer.url, {
    keep: { ms: 60_000, bytes: 5_000 },
    onAssignment: async () => ({ outcome: "completed", output: "x".repeat(2_000) }),
  });
  const session = await peer.session();
  const tokens: string[] = [];
  for (let i = 1; i <= 4; i++) {
    tokens.push(session.assign().attemptToken);
    await events.next("acknowledged", () => true, i);
    await until(() => kept(stateDir).some((name) => name.includes(tokens.at(-1)!)), "it is kept");
  }
  await until(() => kept(stateDir).length === 2, "the oldest are gone");
  expect(kept(stateDir).every((name) => tokens.slice(2).some((token) => name.includes(token)))).toBe(true);
});

test("new bounds of a device that runs take effect at once", async () => {
  const peer = await startPeer();
  peer.incarnation = first;
  const { device, events, stateDir } = startDevice(peer.url);
  const session = await peer.session();
  const token = session.assign().attemptToken;
  await events.next("acknowledged");
  await until(() => kept(stateDir).some((name) => name.includes(token)), "it is kept");
  expect((await listKept(stateDir)).map(({ attemptToken }) => attemptToken)).toEqual([token]);
  device.update({ keep: { ms: 60_000, bytes: 1 } });
  await until(() => kept(stateDir).length === 0, "it is dropped");
  expect(await listKept(stateDir)).toEqual([]);
});

test("a result that a replica acknowledges before it knows its database is kept, and offered to the database that is named next", async () => {
  const peer = await startPeer();
  const { events, stateDir } = startDevice(peer.url);
  const session = await peer.session();
  const { attemptToken } = session.assign();
  await events.next("acknowledged");
  await until(() => kept(stateDir).length === 1, "the result is kept");
  peer.incarnation = first;
  session.end();
  expect(await (await peer.session()).next("complete")).toMatchObject({
    attemptToken,
    reoffer: { attempt: 1 },
  });
  await until(() => kept(stateDir)[0]?.endsWith("7420-1.kept") === true, "it is noted");
});
