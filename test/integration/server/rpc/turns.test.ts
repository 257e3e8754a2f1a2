/** Turns through real replicas: started, pushed, watched, answered once, and lost in every way. */
import { isAborted, isAlreadyExists, isNotFound } from "@pinion/client";
import { sql } from "kysely";
import { expect, onTestFinished, test, vi } from "vitest";
import {
  AssignmentKind,
  CompletionVerdict,
  DrainReason,
  HeldVerdict,
  Outcome,
  RejectReason,
} from "#gen/pinion/v1/device_pb.js";
import { OutputStream, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { TurnStatus } from "#gen/pinion/v1/turn_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../../support/device.ts";
import { hold, untilBlocked } from "../../../support/locks.ts";
import { answer, getTurn, nameOf, startTurn, untilTurn, watchTurn } from "../../../support/talk.ts";
import { heldOf, startWork, takeOn, useReplicas } from "../../../support/work.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../../support/worker.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here", "there");
/** The sweep is far away: a prompt arrival came from a notification. */
const promptMs = 3_000;

let people = 0;
/** Each test uses another person, so that no test waits for another test's conversation. */
const somebody = () => ({ userId: `person-${people++}` });

async function openWorker(url = replicas.here.url, maxConcurrency = 1) {
  const identity = workerIdentity(await fleetToken(replicas.here.clients));
  return { identity, stream: await connectWorker(url, identity, { maxConcurrency }) };
}

function print(
  stream: DeviceStream,
  attempt: { workId: string; attemptToken: string },
  sequence: number,
  text: string,
) {
  const value = {
    ...nameOf(attempt),
    sequence: BigInt(sequence),
    stream: OutputStream.STDOUT,
    data: Buffer.from(text),
  };
  stream.send({ case: "output", value });
}

/** Disconnects the workers, so that none takes the turns of the next test. */
async function leave(...streams: DeviceStream[]): Promise<void> {
  for (const stream of streams) stream.end();
  await Promise.all(streams.map((stream) => stream.ended));
}

test("a turn is pushed at once to a worker on another replica; its reply and snapshot are stored, and given to the next", async () => {
  const { clients } = replicas.here;
  const { stream } = await openWorker(replicas.there.url);
  const who = somebody();
  const startedAt = performance.now();
  const turn = await startTurn(clients, { ...who, messageId: "m1", input: "what is 6 x 7?" });
  expect(turn).toMatchObject({
    agentId: "pinion-default",
    conversationId: `pinion-default_${who.userId}_local`,
    usesSnapshot: true,
  });
  const first = await takeOn(stream);
  expect(performance.now() - startedAt).toBeLessThan(promptMs);
  expect(first).toMatchObject({
    workId: turn.id,
    kind: AssignmentKind.TURN,
    agent: { id: "pinion-default" },
    context: { conversationId: turn.conversationId },
    turn: { messageId: "m1", input: "what is 6 x 7?", usesSnapshot: true, snapshotVersion: 0n },
  });
  await untilTurn(clients, turn, TurnStatus.RUNNING);
  expect(await answer(stream, first, "42", "remember 42")).toBe(CompletionVerdict.STORED);
  expect(await getTurn(clients, turn)).toMatchObject({
    status: TurnStatus.COMPLETED,
    reply: "42",
    snapshotVersion: 1n,
    isRetryable: false,
  });
  await startTurn(clients, who);
  const second = await takeOn(stream);
  expect(Buffer.from(second.turn!.snapshot).toString()).toBe("remember 42");
  expect(second.turn!.snapshotVersion).toBe(1n);
  await answer(stream, second, "ok");
  const { conversation, snapshot } = await clients.turns.getConversation({
    conversationId: turn.conversationId,
    includeSnapshot: true,
  });
  expect(conversation).toMatchObject({ snapshotVersion: 1n, activeTurnId: "", turnsWaiting: 0 });
  expect(Buffer.from(snapshot).toString()).toBe("remember 42");
  await leave(stream);
});

test("a repeated message answers its turn, live and ended; with another input it is refused", async () => {
  const { clients } = replicas.here;
  const who = { ...somebody(), messageId: "m1", input: "once" };
  const starts = await Promise.all(
    [replicas.here, replicas.there, replicas.here].map((replica) => replica.clients.turns.startTurn(who)),
  );
  expect(new Set(starts.map((start) => start.turn!.id)).size).toBe(1);
  expect(starts.filter((start) => !start.alreadyStarted)).toHaveLength(1);
  const { stream } = await openWorker();
  const assignment = await takeOn(stream);
  await answer(stream, assignment, "yes");
  const repeat = await clients.turns.startTurn(who);
  expect(repeat).toMatchObject({ alreadyStarted: true, turn: { id: assignment.workId, reply: "yes" } });
  expect(await clients.turns.startTurn({ ...who, input: "twice" }).catch(isAlreadyExists)).toBe(true);
  await leave(stream);
});

test("a busy conversation keeps its next turns waiting, in order; others pass it, and so do turns without a snapshot", async () => {
  const { clients } = replicas.here;
  const who = somebody();
  const { stream } = await openWorker(undefined, 4);
  const [a, b, c] = [
    await startTurn(clients, { ...who, input: "a" }),
    await startTurn(clients, { ...who, input: "b" }),
    await startTurn(clients, { ...who, input: "c" }),
  ];
  const first = await takeOn(stream);
  const other = await startTurn(clients, somebody());
  const free = await startTurn(clients, { ...who, withoutSnapshot: true });
  const second = await takeOn(stream, first);
  const third = await takeOn(stream, first, second);
  expect([second.workId, third.workId].sort()).toEqual([other.id, free.id].sort());
  expect(
    (await clients.turns.getConversation({ conversationId: a.conversationId })).conversation,
  ).toMatchObject({
    activeTurnId: a.id,
    turnsWaiting: 2,
  });
  expect(stream.waiting("assignment")).toEqual([]);
  await answer(stream, first, "1");
  const next = await takeOn(stream, second, third);
  await answer(stream, next, "2");
  const last = await takeOn(stream, second, third);
  expect([first.workId, next.workId, last.workId]).toEqual([a.id, b.id, c.id]);
  await leave(stream);
  for (const turn of [other, free, c]) await untilTurn(clients, turn, TurnStatus.FAILED);
});

test("two workers on two replicas, asked for one conversation at the same time: one is given it", async () => {
  const { clients } = replicas.here;
  const [here, there] = [await openWorker(replicas.here.url, 8), await openWorker(replicas.there.url, 8)];
  const streams = [here.stream, there.stream];
  for (let round = 0; round < 5; round++) {
    const who = somebody();
    const started = await Promise.all(
      [replicas.here, replicas.there, replicas.here, replicas.there].map((replica) =>
        startTurn(replica.clients, who),
      ),
    );
    const order: string[] = [];
    for (let answered = 0; answered < started.length; answered++) {
      const stream = await vi.waitFor(
        () => streams.find((it) => it.waiting("assignment").length > 0) ?? Promise.reject(new Error("none")),
        { timeout: 10_000, interval: 5 },
      );
      const assignment = await stream.next("assignment");
      stream.accept(assignment);
      // All pushes so far have arrived: no other worker has a turn of this conversation.
      await Promise.all(streams.map((it) => it.beat(it === stream ? [assignment] : [])));
      expect(streams.flatMap((it) => it.waiting("assignment"))).toEqual([]);
      const { conversation } = await clients.turns.getConversation({
        conversationId: started[0]!.conversationId,
      });
      expect(conversation!.activeTurnId).toBe(assignment.workId);
      order.push(assignment.workId);
      expect(await answer(stream, assignment, `${answered}`, `snapshot ${answered}`)).toBe(
        CompletionVerdict.STORED,
      );
    }
    expect([...order].sort()).toEqual(started.map((turn) => turn.id).sort());
    const { conversation } = await clients.turns.getConversation({
      conversationId: started[0]!.conversationId,
    });
    expect(conversation).toMatchObject({ snapshotVersion: 4n, activeTurnId: "" });
  }
  await leave(...streams);
});

test("a worker's stream that breaks fails its turns at once, and the conversation goes on elsewhere", async () => {
  const { clients } = replicas.here;
  const who = somebody();
  const lost = await openWorker(replicas.there.url);
  const turn = await startTurn(clients, who);
  const assignment = await takeOn(lost.stream);
  const watched = watchTurn(clients, turn);
  await watched.begun();
  const next = await startTurn(clients, who);
  const other = await openWorker(replicas.here.url);
  const brokeAt = performance.now();
  lost.stream.cancel();
  await watched.over;
  expect(performance.now() - brokeAt).toBeLessThan(promptMs);
  expect(watched.ends).toMatchObject([
    {
      id: turn.id,
      status: TurnStatus.FAILED,
      isRetryable: true,
      reason: "worker lost: its stream broke",
      reply: "",
    },
  ]);
  const following = await takeOn(other.stream);
  expect(following.workId).toBe(next.id);
  await answer(other.stream, following, "here");

  // The lost worker comes back: its held turn was given to another worker, and its report comes too
  // late.
  const back = await connect(replicas.there.url, lost.identity, { held: [heldOf(assignment)] });
  expect(back.welcome.verdicts[0]!.verdict).toBe(HeldVerdict.ABORT);
  expect(await answer(back, assignment, "late", "stale")).toBe(CompletionVerdict.SUPERSEDED);
  expect(await getTurn(clients, turn)).toMatchObject({ status: TurnStatus.FAILED, reply: "" });
  const { conversation } = await clients.turns.getConversation({ conversationId: turn.conversationId });
  expect(conversation).toMatchObject({ snapshotVersion: 0n });
  const kinds = await sql<{ kind: string }>`
    select kind from event where kind like 'turn.%' and data->>'turn_id' = ${turn.id} order by seq`.execute(
    database.db,
  );
  expect(kinds.rows).toEqual([{ kind: "turn.failed" }, { kind: "turn.late_reply" }]);
  const { lateResults } = await clients.turns.getTurn({ turnId: assignment.workId });
  expect(lateResults).toMatchObject([{ output: "late", outcome: RunStatus.COMPLETED, hasSettled: false }]);
  await leave(back, other.stream);
});

test("a worker that is asked to connect elsewhere keeps its turn, and answers it from there", async () => {
  const { clients } = replicas.here;
  const { identity, stream } = await openWorker(replicas.here.url);
  const turn = await startTurn(clients, somebody());
  const assignment = await takeOn(stream);
  await clients.fleet.disconnectDevice({ deviceId: identity.deviceId });
  expect((await stream.next("drain")).reason).toBe(DrainReason.OPERATOR);
  stream.end();
  await stream.ended;
  const there = await connect(replicas.there.url, identity, { held: [heldOf(assignment)] });
  expect(there.welcome.verdicts[0]!.verdict).toBe(HeldVerdict.CONTINUE);
  await there.beat([assignment]);
  expect(await answer(there, assignment, "moved", "s")).toBe(CompletionVerdict.STORED);
  expect(await getTurn(clients, turn)).toMatchObject({ status: TurnStatus.COMPLETED, snapshotVersion: 1n });
  await leave(there);
});

test("a worker that comes back without its turn has lost it, now", async () => {
  const { clients } = replicas.here;
  const { identity, stream } = await openWorker();
  const turn = await startTurn(clients, somebody());
  await takeOn(stream);
  // Before the accept is stored, the turn never reached the worker, and is given back.
  await untilTurn(clients, turn, TurnStatus.RUNNING);
  const again = await connect(replicas.there.url, identity);
  await stream.ended;
  expect(await getTurn(clients, turn)).toMatchObject({
    status: TurnStatus.FAILED,
    isRetryable: true,
    reason: "lost by the worker: it came back without this turn",
  });
  await leave(again);
});

test("a turn that was claimed for a worker that had just left is given back, and another one has it at once", async () => {
  const { db } = database;
  const { clients } = replicas.here;
  // From here on a claim waits after having read the open session, before its commit.
  await sql`
    create function test_wait() returns trigger language plpgsql as
    $$ begin perform pg_advisory_xact_lock_shared(74); return new; end $$
  `.execute(db);
  await sql`
    create trigger test_wait before update on turn for each row
    when (old.status = 'pending' and new.status = 'claimed') execute function test_wait()
  `.execute(db);
  onTestFinished(async () => {
    await sql`drop function test_wait cascade`.execute(db);
  });
  const { identity, stream } = await openWorker();
  await using claiming = await hold(db);
  await sql`select pg_advisory_xact_lock(74)`.execute(claiming.tx);
  const turn = await startTurn(clients, somebody());
  await untilBlocked(db);
  await clients.fleet.disconnectDevice({ deviceId: identity.deviceId });
  await leave(stream);
  // The end of the session waits for the claim.
  await untilBlocked(db, 2);
  const other = await openWorker(replicas.there.url);
  await claiming.commit();
  const assignment = await other.stream.next("assignment", promptMs);
  expect(assignment.workId).toBe(turn.id);
  other.stream.accept(assignment);
  await answer(other.stream, assignment, "here I am");
  expect(await getTurn(clients, turn)).toMatchObject({ status: TurnStatus.COMPLETED, attempt: 1 });
  await leave(other.stream);
});

test("a device that is deleted ends its turns at once, also those that wait for it, and its agents go to the fleet when somebody says so", async () => {
  const { clients } = replicas.here;
  const device = await enrolDevice(clients);
  await clients.agents.createAgent({ agentId: "housebound" });
  await clients.agents.updateAgentSettings({ agentId: "housebound", deviceId: device.deviceId });
  const request = { ...somebody(), agentId: "housebound" };
  const [first, second] = [await startTurn(clients, request), await startTurn(clients, request)];
  const stream = await connect(replicas.there.url, device);
  await takeOn(stream);
  await clients.fleet.deleteDevice({ deviceId: device.deviceId });
  for (const turn of [first, second]) {
    expect(await getTurn(clients, turn)).toMatchObject({
      status: TurnStatus.FAILED,
      isRetryable: false,
      reason: "the device was deleted",
    });
  }
  await stream.ended;
  const { events } = await clients.events.listEvents({ kinds: ["agent.updated"], pageSize: 1 });
  expect(events[0]).toMatchObject({ deviceId: device.deviceId, data: { agent_id: "housebound" } });
  await clients.agents.updateAgentSettings({ agentId: "housebound", deviceId: "" });
  const { stream: worker } = await openWorker();
  const again = await startTurn(clients, request);
  expect(await takeOn(worker)).toMatchObject({ workId: again.id });
  await leave(worker);
});

test("a worker that hangs but beats is ended by the turn's own timeout, and told to stop", async () => {
  const { clients } = replicas.here;
  const { stream } = await openWorker();
  const turn = await startTurn(clients, somebody());
  const assignment = await takeOn(stream);
  const watched = watchTurn(clients, turn);
  await watched.begun();
  await stream.beat([assignment], 2n);
  await sql`update turn set expires_at = now() where id = ${turn.id}`.execute(database.db);
  await watched.over;
  expect(watched.ends).toMatchObject([{ status: TurnStatus.TIMEOUT, isRetryable: true }]);
  expect((await stream.next("cancel")).attemptToken).toBe(assignment.attemptToken);
  expect(await answer(stream, assignment, "late", "stale")).toBe(CompletionVerdict.SUPERSEDED);
  await leave(stream);
});

test("a turn that two heartbeats do not list is lost by the worker, now", async () => {
  const { clients } = replicas.here;
  const { stream } = await openWorker();
  const turn = await startTurn(clients, somebody());
  const assignment = await takeOn(stream);
  await untilTurn(clients, turn, TurnStatus.RUNNING);
  await stream.beat([], 2n);
  await stream.beat([], 3n);
  expect(await untilTurn(clients, turn, TurnStatus.FAILED)).toMatchObject({ isRetryable: true });
  expect((await stream.next("cancel")).workId).toBe(assignment.workId);
  await leave(stream);
});

test("output is seen on both replicas; who comes back on the other one reads on, and each stream has one end", async () => {
  const { clients } = replicas.here;
  const { stream } = await openWorker(replicas.there.url);
  const turn = await startTurn(clients, somebody());
  const assignment = await takeOn(stream);
  const first = watchTurn(clients, turn);
  await first.begun();
  print(stream, assignment, 1, "one ");
  print(stream, assignment, 2, "two ");
  await untilText(first, "one two ");
  first.leave();
  const second = watchTurn(replicas.there.clients, turn, first.outputs.at(-1)!.sequence);
  await second.begun();
  print(stream, assignment, 3, "three");
  await untilText(second, "three");
  await answer(stream, assignment, "one two three");
  await second.over;
  const late = watchTurn(clients, turn);
  await late.over;
  for (const watched of [second, late]) {
    expect(watched.ends).toMatchObject([{ status: TurnStatus.COMPLETED, reply: "one two three" }]);
  }
  expect(first.ends).toEqual([]);
  await leave(stream);
});

function untilText(watched: { text(): string }, text: string) {
  return expect.poll(() => watched.text(), { timeout: 10_000, interval: 10 }).toBe(text);
}

test("the gate: a turn with a run id and without a conversation is refused for now, and nothing is armed", async () => {
  const { clients } = replicas.here;
  const device = await enrolDevice(clients);
  const run = await startWork(clients, device);
  const about = { userId: "", runId: run.id };
  const refused = await startTurn(clients, about).catch((error: unknown) => error);
  expect(isAborted(refused)).toBe(true);
  expect((refused as { retryAfterMs: number }).retryAfterMs).toBeGreaterThan(0);
  const armed =
    await sql`select from turn_message where turn_id in (select id from turn where run_id = ${run.id})`.execute(
      database.db,
    );
  expect(armed.rows).toEqual([]);
  const passing = {
    "without a snapshot": await startTurn(clients, { ...about, withoutSnapshot: true }),
    "without a run": await startTurn(clients, { userId: "" }),
    "about the run": await startTurn(clients, { ...about, watcherId: run.watcherId }),
  };
  expect(passing["about the run"].conversationId).toBe(
    `pinion-default_watcher_${run.watcherId}_run_${run.id}`,
  );
  expect(Object.values(passing).map((turn) => [turn.usesSnapshot, turn.conversationId !== ""])).toEqual([
    [false, false],
    [false, false],
    [true, true],
  ]);
  for (const turn of Object.values(passing)) await clients.turns.cancelTurn({ turnId: turn.id });
});

test("a conversation id is taken as it is, and only in its two shapes, for this agent and this org", async () => {
  const { clients } = replicas.here;
  const { userId } = somebody();
  const named = `pinion-default_${userId}_local`;
  const turn = await startTurn(clients, { userId: "", conversationId: named });
  expect(turn.conversationId).toBe(named);
  await clients.turns.cancelTurn({ turnId: turn.id });
  const wrong = [
    "x",
    `pinion-default_${userId}_acme`,
    `other_${userId}_local`,
    `pinion-default_${userId}`,
    "pinion-default_watcher_x_run_y",
  ];
  for (const conversationId of wrong) {
    expect(await reasonOf(startTurn(clients, { userId: "", conversationId }))).toBe("invalid_argument");
  }
  expect(await reasonOf(startTurn(clients, { userId: "ada", conversationId: named }))).toBe(
    "invalid_argument",
  );
  expect(await reasonOf(startTurn(clients, { userId: "watcher_x" }))).toBe("invalid_argument");
});

async function reasonOf(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  return (error as { reason?: string } | undefined)?.reason ?? "none";
}

test("a turn that waits is cancelled in place; another one when its worker says so", async () => {
  const { clients } = replicas.here;
  const who = somebody();
  const { stream } = await openWorker();
  const running = await startTurn(clients, who);
  const waiting = await startTurn(clients, who);
  const assignment = await takeOn(stream);
  await clients.turns.cancelTurn({ turnId: waiting.id, reason: "changed my mind" });
  expect(await getTurn(clients, waiting)).toMatchObject({
    status: TurnStatus.CANCELLED,
    reason: "changed my mind",
    isRetryable: false,
  });
  await clients.turns.cancelTurn({ turnId: running.id, reason: "enough" });
  expect((await stream.next("cancel")).attemptToken).toBe(assignment.attemptToken);
  stream.send({ case: "cancelled", value: nameOf(assignment) });
  expect(await untilTurn(clients, running, TurnStatus.CANCELLED)).toMatchObject({ reason: "enough" });
  expect(await reasonOf(clients.turns.cancelTurn({ turnId: running.id }))).toBe("failed_precondition");
  await leave(stream);
});

test("a turn whose end was asked for is not offered again when its worker turns it down", async () => {
  const { clients } = replicas.here;
  const { stream } = await openWorker();
  const turn = await startTurn(clients, somebody());
  const assignment = await stream.next("assignment");
  await clients.turns.cancelTurn({ turnId: turn.id, reason: "enough" });
  await stream.next("cancel");
  stream.send({ case: "reject", value: { ...nameOf(assignment), reason: RejectReason.BUSY, message: "no" } });
  expect((await untilTurn(clients, turn, TurnStatus.CANCELLED)).reason).toContain("enough");
  await leave(stream);
});

test("a busy worker gives the turn back; one that cannot answer it fails it for good", async () => {
  const { clients } = replicas.here;
  const { stream } = await openWorker();
  const turn = await startTurn(clients, somebody());
  const first = await stream.next("assignment");
  const reject = (assignment: { workId: string; attemptToken: string }, reason: RejectReason) =>
    stream.send({ case: "reject", value: { ...nameOf(assignment), reason, message: "no" } });
  reject(first, RejectReason.BUSY);
  await untilTurn(clients, turn, TurnStatus.PENDING);
  const { conversation } = await clients.turns.getConversation({ conversationId: turn.conversationId });
  expect(conversation!.activeTurnId).toBe("");
  await sql`update turn set not_before = now() where id = ${turn.id}`.execute(database.db);
  const other = await startTurn(clients, somebody());
  const second = await takeOn(stream);
  expect(second).toMatchObject({ workId: turn.id, attempt: 1 });
  await answer(stream, second, "ok");
  const third = await stream.next("assignment");
  expect(third.workId).toBe(other.id);
  reject(third, RejectReason.UNSUPPORTED);
  expect((await untilTurn(clients, other, TurnStatus.FAILED)).reason).toContain("no");
  await leave(stream);
});

test("a program that fails fails its turn, and the snapshot stays as it was", async () => {
  const { clients } = replicas.here;
  const { stream } = await openWorker();
  const turn = await startTurn(clients, somebody());
  const assignment = await takeOn(stream);
  await stream.complete(assignment, `${"x".repeat(9_000)}half`, Outcome.FAILED, "exit code 1");
  const failed = await getTurn(clients, turn);
  expect(failed).toMatchObject({
    status: TurnStatus.FAILED,
    reason: "exit code 1",
    isRetryable: false,
    reply: "",
  });
  // No reply; the end of the output is there to see what went wrong.
  expect(failed.outputTail).toBe(`${"x".repeat(7_996)}half`);
  await leave(stream);
});

test("a program that is taken away leaves the end of what it wrote, also if another replica ends its run or turn", async () => {
  const { clients } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(replicas.there.url, device, { maxConcurrency: 2 });
  await clients.agents.createAgent({ agentId: "chatty" });
  await clients.agents.updateAgentSettings({ agentId: "chatty", deviceId: device.deviceId });
  const run = await startWork(clients, device);
  const first = await takeOn(stream);
  print(stream, first, 1, "half of a report");
  const turn = await startTurn(clients, { ...somebody(), agentId: "chatty" });
  const attempt = await takeOn(stream);
  print(stream, attempt, 1, "half of a reply");
  await stream.beat([first, attempt]);
  // The stream is with the other replica, and so is the output.
  await clients.fleet.deleteDevice({ deviceId: device.deviceId });
  await vi.waitFor(async () => {
    const { run: ended } = await clients.runs.getRun({ runId: run.id });
    expect(ended).toMatchObject({ status: RunStatus.CANCELLED, outputTail: "half of a report" });
    expect(await getTurn(clients, turn)).toMatchObject({ reply: "", outputTail: "half of a reply" });
  });
  const { turns } = await clients.turns.listTurns({ conversationId: turn.conversationId });
  expect(turns).toMatchObject([{ outputTail: "half of a reply" }]);
});

test("runs and turns share a worker's slots", async () => {
  const { clients } = replicas.here;
  const { stream } = await openWorker();
  const turn = await startTurn(clients, somebody());
  const first = await takeOn(stream);
  expect(first.workId).toBe(turn.id);
  const run = await startWork(
    clients,
    { deviceId: "", installId: "", token: "", label: "" },
    { deviceId: "" },
  );
  await stream.beat([first], 2n);
  expect(stream.waiting("assignment")).toEqual([]);
  await answer(stream, first, "ok");
  const second = await takeOn(stream);
  expect(second).toMatchObject({ workId: run.id, kind: AssignmentKind.WATCHER_RUN });
  await stream.complete(second);
  await leave(stream);
});

test("an agent that is pinned to a device is answered there, and by no worker", async () => {
  const { clients } = replicas.here;
  const device = await enrolDevice(clients);
  await clients.agents.createAgent({ agentId: "pinned" });
  const { agent, changedFields } = await clients.agents.updateAgentSettings({
    agentId: "pinned",
    deviceId: device.deviceId,
  });
  expect([agent!.deviceId, agent!.version, changedFields]).toEqual([device.deviceId, 1, ["device_id"]]);
  const { stream: worker } = await openWorker();
  const turn = await startTurn(clients, { ...somebody(), agentId: "pinned" });
  const stream = await connect(replicas.there.url, device);
  const assignment = await takeOn(stream);
  expect(assignment).toMatchObject({ workId: turn.id, kind: AssignmentKind.TURN });
  await worker.beat();
  expect(worker.waiting("assignment")).toEqual([]);
  await answer(stream, assignment, "from the device");
  expect(await getTurn(clients, turn)).toMatchObject({ deviceId: device.deviceId, reply: "from the device" });
  // Unpinned, and pinned by mistake: to a device that does not exist, and to a fleet worker.
  await clients.agents.updateAgentSettings({ agentId: "pinned", deviceId: "" });
  const { agent: unpinned } = await clients.agents.getAgent({ agentId: "pinned" });
  expect(unpinned!.deviceId).toBe("");
  for (const deviceId of [turn.id, worker.welcome.deviceId]) {
    const pin = clients.agents.updateAgentSettings({ agentId: "pinned", deviceId });
    expect(await reasonOf(pin)).toBe("not_found");
  }
  await leave(stream, worker);
});

test("the turns of an agent whose device is deleted fail, and new ones are refused until somebody decides on the pin", async () => {
  const { clients } = replicas.here;
  const agentId = "orphan";
  const device = await enrolDevice(clients);
  await clients.agents.createAgent({ agentId });
  await clients.agents.updateAgentSettings({ agentId, deviceId: device.deviceId });
  const stream = await connect(replicas.there.url, device);
  const taken = await startTurn(clients, { ...somebody(), agentId });
  await takeOn(stream);
  const message = { ...somebody(), agentId, messageId: "once" };
  const waiting = await startTurn(clients, message);
  const { stream: worker } = await openWorker();

  expect(await clients.fleet.deleteDevice({ deviceId: device.deviceId })).toMatchObject({
    agentsUnpinned: 1,
  });
  for (const turn of [taken, waiting]) {
    const ended = await getTurn(clients, turn);
    expect(ended).toMatchObject({
      status: TurnStatus.FAILED,
      reason: "the device was deleted",
      isRetryable: false,
    });
  }
  const reason = `device "${device.label}" was deleted`;
  const { agent } = await clients.agents.getAgent({ agentId });
  expect(agent).toMatchObject({ deviceId: "", noExecutorReason: reason });
  expect(await reasonOf(startTurn(clients, { ...somebody(), agentId }))).toBe("failed_precondition");
  // A repeat is answered, as ever.
  expect((await startTurn(clients, message)).id).toBe(waiting.id);
  const { events } = await clients.events.listEvents({ kinds: ["agent.updated"], pageSize: 1 });
  expect(events[0]!.data).toMatchObject({
    agent_id: agentId,
    changes: { device_id: { from: device.deviceId, to: null }, no_executor_reason: { to: reason } },
  });

  await clients.agents.updateAgentSettings({ agentId, deviceId: "" });
  const turn = await startTurn(clients, { ...somebody(), agentId });
  await answer(worker, await takeOn(worker), "from the fleet");
  expect(await getTurn(clients, turn)).toMatchObject({ reply: "from the fleet" });
  await leave(worker);
});

test("turns and conversations are listed by page, of one conversation or of all", async () => {
  const { clients } = replicas.here;
  const who = somebody();
  const ids = [];
  for (let i = 0; i < 3; i++) ids.push((await startTurn(clients, { ...who, input: `${i}` })).id);
  const conversationId = `pinion-default_${who.userId}_local`;
  const first = await clients.turns.listTurns({ conversationId, pageSize: 2 });
  const rest = await clients.turns.listTurns({ conversationId, pageSize: 2, pageToken: first.nextPageToken });
  expect([...first.turns, ...rest.turns].map((turn) => turn.id)).toEqual([...ids].reverse());
  const { conversations } = await clients.turns.listConversations({ pageSize: 500 });
  expect(conversations.map((conversation) => conversation.id)).toContain(conversationId);
  for (const turnId of ids) await clients.turns.cancelTurn({ turnId });
  const { turns } = await clients.turns.listTurns({ conversationId, statuses: [TurnStatus.PENDING] });
  expect(turns).toEqual([]);
});

test("an org without a default agent has to name one", async () => {
  const { clients } = replicas.here;
  const agentId = await withoutDefaultAgent(async () => {
    expect(await startTurn(clients).catch(isNotFound)).toBe(true);
    return (await startTurn(clients, { ...somebody(), agentId: "pinion-default" })).agentId;
  });
  expect(agentId).toBe("pinion-default");
});

async function withoutDefaultAgent<T>(work: () => Promise<T>): Promise<T> {
  await sql`update org set default_agent_id = null where id = 'local'`.execute(database.db);
  try {
    return await work();
  } finally {
    await sql`update org set default_agent_id = 'pinion-default' where id = 'local'`.execute(database.db);
  }
}
