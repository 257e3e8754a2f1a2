/**
 * T1, T2: a turn ends with exactly one reply, the first; a conversation belongs to one worker at a
 * time.
 */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { HeldAttemptState } from "#gen/pinion/v1/device_pb.js";
import { createEndings } from "../../../src/scheduler/endings/endings.ts";
import { storeRepliesOnce, turnEndings } from "../../../src/scheduler/endings/turn-endings.ts";
import { failTurnsOfSessions, sweepTurnsOnce } from "../../../src/scheduler/endings/turn-sweep.ts";
import { type Db, transaction } from "../../../src/store/pg/database.ts";
import { lockOverdue } from "../../../src/store/work/turns/lost-turns.ts";
import * as turnAttempts from "../../../src/store/work/turns/turn-attempts.ts";
import { type EndedTurn, withdraw } from "../../../src/store/work/turns/turn-settlements.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import { isLong } from "../../support/long.ts";
import { openDevice, orgId, sessionOf } from "../../support/rows.ts";
import {
  acceptTurn,
  ageTurn,
  attemptOf,
  claimTurns,
  endsOf,
  findSnapshot,
  findTurn,
  replyOf,
  type Seated,
  seedTurn,
  seedWorker,
  startTurn,
  turnTimers,
} from "../../support/turns.ts";

const database = useDatabase();
const store = (...replies: ReturnType<typeof replyOf>[]) =>
  transaction(database.db, (tx) => storeRepliesOnce(tx, replies));
const sweep = () => sweepTurnsOnce(database.db, { ttlMs: turnTimers.ttlMs });
const log = createLogger({ name: "test", level: "silent" });
/** The stream of a worker's session broke. */
async function failTurns(db: Db, worker: Seated, pushed: string[] = []): Promise<EndedTurn[]> {
  const all: EndedTurn[] = [];
  const onEnded = (ended: readonly EndedTurn[]) => void all.push(...ended);
  await failTurnsOfSessions(db, [{ ...worker, pushed: new Set(pushed) }], { log, onEnded });
  return all;
}
const bytes = (text: string) => Buffer.from(text);

test("T1: a reply takes the marker, stores the next snapshot and frees the lease, together", async () => {
  const { db } = database;
  const turn = await seedTurn(db, await seedWorker(db));
  const { verdicts, ended } = await store(replyOf(turn, { reply: "42", nextSnapshot: bytes("s1") }));
  expect(verdicts).toEqual(["stored"]);
  expect(ended).toMatchObject([{ status: "completed", verdict: "stored", next: undefined }]);
  expect(await findTurn(db, turn)).toMatchObject({ status: "completed", reply: "42", snapshotVersion: 1 });
  expect(await findSnapshot(db, turn)).toEqual({ version: 1, text: "s1", leaseTurnId: null });
  expect(await endsOf(db, turn)).toEqual(["turn.completed"]);
  const { rows } = await sql`select from turn`.execute(db);
  expect(rows).toEqual([]);
});

test("T1: a repeated reply gets the stored verdict and changes nothing", async () => {
  const { db } = database;
  const turn = await seedTurn(db, await seedWorker(db));
  const reply = replyOf(turn, { nextSnapshot: bytes("s1") });
  expect((await store(reply, reply)).verdicts).toEqual(["stored", "already_stored"]);
  expect((await store({ ...reply, reply: "other", nextSnapshot: bytes("s2") })).verdicts).toEqual([
    "already_stored",
  ]);
  expect(await findTurn(db, turn)).toMatchObject({ reply: "hi" });
  expect(await findSnapshot(db, turn)).toMatchObject({ version: 1, text: "s1" });
  expect(await endsOf(db, turn)).toHaveLength(1);
});

test("T1: a reply under a token that is not current changes nothing, also the holder's own", async () => {
  const { db } = database;
  const worker = await seedWorker(db);
  await startTurn(db);
  const [first] = await claimTurns(db, worker);
  await withdraw(db, [{ ...first!, session: worker, reason: "busy", delayMs: 0 }]);
  const stale = replyOf(first!, { reply: "stale", nextSnapshot: bytes("stale") });
  expect((await store(stale)).verdicts).toEqual(["superseded"]);
  const [second] = await claimTurns(db, worker);
  expect(second).toMatchObject({ turnId: first!.turnId, attempt: 1 });
  expect((await store(stale)).verdicts).toEqual(["superseded"]);
  expect((await store(replyOf(second!, { nextSnapshot: bytes("s1") }))).verdicts).toEqual(["stored"]);
  expect(await findTurn(db, first!)).toMatchObject({ reply: "hi", snapshotVersion: 1 });
  expect((await store(stale)).verdicts).toEqual(["superseded"]);
});

test("T1: a failed turn leaves the snapshot as it was, and no reply", async () => {
  const { db } = database;
  const turn = await seedTurn(db, await seedWorker(db));
  await store(replyOf(turn, { status: "failed", reason: "exit 1", nextSnapshot: bytes("s1") }));
  expect(await findTurn(db, turn)).toMatchObject({ status: "failed", reply: "", reason: "exit 1" });
  expect(await findSnapshot(db, turn)).toEqual({ version: 0, text: null, leaseTurnId: null });
});

test("T1: the sweep that deletes the marker while the reply is in flight wins; the reply is superseded", async () => {
  const { db } = database;
  const turn = await seedTurn(db, await seedWorker(db));
  await ageTurn(db, turn, { deadline_at: 1 });
  await using sweeping = await hold(db);
  expect(await sweepTurnsOnce(sweeping.tx, { ttlMs: 60_000 })).toHaveLength(1);
  const replying = store(replyOf(turn, { nextSnapshot: bytes("s1") }));
  await untilBlocked(db);
  await sweeping.commit();
  expect(await replying).toEqual({ verdicts: ["superseded"], ended: [] });
  expect(await findTurn(db, turn)).toMatchObject({ status: "failed", reply: "", isRetryable: true });
  expect(await findSnapshot(db, turn)).toEqual({ version: 0, text: null, leaseTurnId: null });
  expect(await endsOf(db, turn)).toEqual(["turn.failed"]);
});

test("T1: the reply that holds the marker when the sweep comes wins; the sweep passes it over", async () => {
  const { db } = database;
  const turn = await seedTurn(db, await seedWorker(db));
  await ageTurn(db, turn, { deadline_at: 1 });
  await using replying = await hold(db);
  expect((await storeRepliesOnce(replying.tx, [replyOf(turn)])).verdicts).toEqual(["stored"]);
  expect(await sweep()).toEqual([]);
  await replying.commit();
  expect(await sweep()).toEqual([]);
  expect(await findTurn(db, turn)).toMatchObject({ status: "completed", reply: "hi" });
  expect(await endsOf(db, turn)).toEqual(["turn.completed"]);
});

test("T1: a turn that beat after the sweep had judged it is not swept", async () => {
  const { db } = database;
  const turn = await seedTurn(db, await seedWorker(db));
  await ageTurn(db, turn, { deadline_at: 1 });
  await using beating = await hold(db);
  await turnAttempts.beat(beating.tx, [attemptOf(turn)], turnTimers.ttlMs);
  expect(await transaction(db, (tx) => lockOverdue(tx, { ttlMs: 1, isQuiet: false, limit: 1 }))).toEqual([]);
  await beating.commit();
  expect(await sweep()).toEqual([]);
});

test("T1: the fast path and a reply: the first one answers, in both orders", async () => {
  const { db } = database;
  const worker = await seedWorker(db);
  const first = await seedTurn(db, worker);
  await using failing = await hold(db);
  expect(await failTurns(failing.tx, worker)).toHaveLength(1);
  const replying = store(replyOf(first));
  await untilBlocked(db);
  await failing.commit();
  expect((await replying).verdicts).toEqual(["superseded"]);

  const second = await seedTurn(db, worker);
  await using answering = await hold(db);
  await storeRepliesOnce(answering.tx, [replyOf(second)]);
  const late = failTurns(db, worker);
  await untilBlocked(db);
  await answering.commit();
  expect(await late).toEqual([]);
  expect([await endsOf(db, first), await endsOf(db, second)]).toEqual([["turn.failed"], ["turn.completed"]]);
});

test("T1: the fast path fails the turns of the broken session, and none that a newer one has adopted", async () => {
  const { db } = database;
  const worker = await seedWorker(db);
  const turn = await seedTurn(db, worker);
  const held = [{ ...attemptOf(turn), state: HeldAttemptState.RUNNING }];
  const { epoch } = await openDevice(db, worker, { held });
  expect(await failTurns(db, worker)).toEqual([]);
  expect(await failTurns(db, sessionOf(worker, epoch))).toMatchObject([
    { turnId: turn.turnId, status: "failed", isRetryable: true, reason: "worker lost: its stream broke" },
  ]);
});

test("T1: a replaced session takes away nothing that a newer one goes on with, and the newer one only what is not accepted", async () => {
  const { db } = database;
  const worker = await seedWorker(db);
  await startTurn(db);
  const [turn] = await claimTurns(db, worker);
  const held = [{ ...attemptOf(turn!), state: HeldAttemptState.RUNNING }];
  const { epoch } = await openDevice(db, worker, { held });
  const bell = { turnsEnded() {}, repliesKept() {}, turnsWithdrawn() {} };
  const endings = createEndings(turnEndings({ doorbell: bell }), { db, log });
  const attempt = { ...attemptOf(turn!), deviceId: null };
  const ended = { ...attempt, action: "finish", status: "failed", reason: "given up" } as const;
  const withdrawn = { ...attempt, action: "withdraw", status: "timeout", reason: "never accepted" } as const;
  const mine = sessionOf(worker, epoch);
  expect(await endings.settle({ ...withdrawn, session: worker })).toBe(false);
  expect(await endings.settle({ ...ended, session: worker })).toBe(false);
  expect(await endings.settle({ ...withdrawn, session: mine })).toBe(false);
  expect(await findTurn(db, turn!)).toMatchObject({ status: "running", attempt: 1 });
  expect(await endings.settle({ ...ended, session: mine })).toBe(true);
});

test("T1: the fast path fails what was pushed, accepted or not, and leaves what its session never had", async () => {
  const { db } = database;
  const worker = await seedWorker(db);
  const talk = (userId: string) => ({ conversationId: `pinion-default_${userId}_${orgId}` });
  for (const who of ["pushed", "never pushed"]) await startTurn(db, talk(who.replace(" ", "-")));
  const [pushed, never] = await claimTurns(db, worker, 2);
  expect(await failTurns(db, worker, [pushed!.attemptToken])).toMatchObject([{ turnId: pushed!.turnId }]);
  expect(await findTurn(db, never!)).toMatchObject({ status: "claimed" });
});

test("R9: a turn that the database refuses to end does not keep the others of broken streams waiting", async () => {
  const { db } = database;
  const workers = [await seedWorker(db), await seedWorker(db)];
  const talk = (userId: string) => ({ conversationId: `pinion-default_${userId}_${orgId}` });
  for (const who of ["a", "b", "c"]) await startTurn(db, talk(who));
  const [bad, good] = await claimTurns(db, workers[0]!, 2);
  const [other] = await claimTurns(db, workers[1]!, 1);
  for (const turn of [bad!, good!, other!]) await acceptTurn(db, turn);
  await sql`alter table turn_finished add constraint refused check (id <> ${sql.lit(bad!.turnId)})`.execute(
    db,
  );
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line) };
  const ended: string[] = [];
  await failTurnsOfSessions(
    db,
    workers.map((worker) => ({ ...worker, pushed: new Set<string>() })),
    {
      log: createLogger({ name: "test", level: "error", destination }),
      onEnded: (turns) => void ended.push(...turns.map((turn) => turn.turnId)),
    },
  );
  expect(new Set(ended)).toEqual(new Set([good!.turnId, other!.turnId]));
  expect(await findTurn(db, bad!)).toMatchObject({ status: "running" });
  expect(lines.filter((line) => line.includes("a turn cannot be ended and was left"))).toHaveLength(1);
});

test("T1: each deadline ends a turn by itself, and says which it was", async () => {
  const { db } = database;
  const worker = await seedWorker(db);
  const talk = (userId: string) => ({ conversationId: `pinion-default_${userId}_${orgId}` });
  const silent = await seedTurn(db, worker, talk("silent"));
  const hung = await seedTurn(db, worker, talk("hung"));
  const healthy = await seedTurn(db, worker, talk("healthy"));
  const waiting = await startTurn(db, talk("waiting"));
  const orphan = await startTurn(db, talk("orphan"));
  await sql`update turn set device_id = gen_random_uuid() where id = ${orphan.turnId}`.execute(db);
  await ageTurn(db, silent, { deadline_at: 1 });
  await ageTurn(db, hung, { expires_at: 1 });
  await ageTurn(db, waiting, { start_deadline_at: 1 });
  await turnAttempts.beat(db, [attemptOf(hung)], turnTimers.ttlMs);
  expect(await sweepTurnsOnce(db, { ttlMs: 60_000, isQuiet: true })).toHaveLength(3);
  expect(await sweep()).toHaveLength(1);
  expect(await findTurn(db, silent)).toMatchObject({ status: "failed", isRetryable: true });
  expect(await findTurn(db, hung)).toMatchObject({
    status: "timeout",
    reason: "its timeout passed and its worker did not end it",
  });
  expect(await findTurn(db, waiting)).toMatchObject({ status: "timeout", attempt: 0 });
  expect(await findTurn(db, orphan)).toMatchObject({
    status: "failed",
    reason: "the device that it was pinned to was deleted",
    isRetryable: true,
  });
  expect(await findTurn(db, healthy)).toMatchObject({ status: "running" });
});

test("T2: two workers that ask at the same time for a conversation's turns: one gets one", async () => {
  const { db } = database;
  const [a, b] = [await seedWorker(db), await seedWorker(db, { replicaId: "replica-2" })];
  const first = await startTurn(db);
  const second = await startTurn(db);
  await using claiming = await hold(db);
  const mine = await claimTurns(claiming.tx, a, 4);
  expect(mine.map((turn) => turn.turnId)).toEqual([first.turnId]);
  expect(await claimTurns(db, b, 4)).toEqual([]);
  await claiming.commit();
  expect(await claimTurns(db, b, 4)).toEqual([]);
  const { ended } = await store(replyOf(mine[0]!));
  expect(ended[0]!.next).toEqual({ deviceId: null });
  expect((await claimTurns(db, b, 4)).map((turn) => turn.turnId)).toEqual([second.turnId]);
});

test("T2: workers that are woken together get different turns, and each conversation one worker", async () => {
  const { db } = database;
  const workers = [await seedWorker(db), await seedWorker(db), await seedWorker(db)];
  for (const userId of ["a", "b", "a", "c"]) {
    await startTurn(db, { conversationId: `pinion-default_${userId}_${orgId}` });
  }
  const wants = workers.map((worker) => ({ ...worker, slots: 2, kinds: [] }));
  const claimed = await turnAttempts.claim(db, wants, turnTimers);
  expect(claimed.map((turn) => turn.conversationId.split("_")[1]).sort()).toEqual(["a", "b", "c"]);
  expect(new Set(claimed.map((turn) => turn.deviceId)).size).toBe(3);
});

test("T2: a holder that comes back after its lease has passed on leaves no snapshot and no reply", async () => {
  const { db } = database;
  const [paused, other] = [await seedWorker(db), await seedWorker(db)];
  const first = await seedTurn(db, paused);
  const { turnId } = await startTurn(db);
  await ageTurn(db, first, { deadline_at: 1 });
  // No sweep has run: the next worker takes the lease over all the same.
  const [second] = await claimTurns(db, other);
  expect(second).toMatchObject({ turnId, snapshotVersion: 0 });
  // Nor does a beat of the old holder restore the lease.
  await turnAttempts.beat(db, [attemptOf(first)], turnTimers.ttlMs);
  expect(await findSnapshot(db, first)).toMatchObject({ leaseTurnId: turnId });
  expect((await findTurn(db, first)).deadlineAt!.getTime()).toBeLessThan(Date.now());
  const { verdicts } = await store(replyOf(first, { nextSnapshot: bytes("stale") }));
  expect(verdicts).toEqual(["superseded"]);
  expect(await findTurn(db, first)).toMatchObject({ status: "failed", reply: "", isRetryable: true });
  expect((await store(replyOf(second!, { nextSnapshot: bytes("fresh") }))).verdicts).toEqual(["stored"]);
  expect(await findSnapshot(db, first)).toEqual({ version: 1, text: "fresh", leaseTurnId: null });
  expect(await endsOf(db, first)).toEqual(["turn.failed"]);
  expect((await store(replyOf(first))).verdicts).toEqual(["superseded"]);
});

test("T2: a holder that is late, but whom nobody has replaced, still answers", async () => {
  const { db } = database;
  const turn = await seedTurn(db, await seedWorker(db));
  await ageTurn(db, turn, { deadline_at: 1 });
  expect((await store(replyOf(turn, { nextSnapshot: bytes("s1") }))).verdicts).toEqual(["stored"]);
  expect(await findSnapshot(db, turn)).toMatchObject({ version: 1 });
});

test("T2: the epoch of a conversation that was deleted and begun anew is another one", async () => {
  const { db } = database;
  const worker = await seedWorker(db);
  const first = await seedTurn(db, worker);
  await sql`delete from conversation`.execute(db);
  await startTurn(db);
  await ageTurn(db, first, { deadline_at: 1 });
  const [second] = await claimTurns(db, worker);
  expect((await store(replyOf(first, { nextSnapshot: bytes("stale") }))).verdicts).toEqual(["superseded"]);
  expect((await store(replyOf(second!, { nextSnapshot: bytes("s1") }))).verdicts).toEqual(["stored"]);
});

test("T2: turns without a snapshot wait for nobody, and hold nobody up", async () => {
  const { db } = database;
  const worker = await seedWorker(db);
  await startTurn(db);
  await startTurn(db, { isGated: false });
  await startTurn(db, { isGated: false, conversationId: "" });
  const claimed = await claimTurns(db, worker, 8);
  expect(claimed.map((turn) => [turn.isGated, turn.snapshotVersion])).toEqual([
    [true, 0],
    [false, 0],
    [false, 0],
  ]);
  const { verdicts } = await store(replyOf(claimed[1]!, { nextSnapshot: bytes("never") }));
  expect(verdicts).toEqual(["stored"]);
  expect(await findSnapshot(db, claimed[0]!)).toMatchObject({ version: 0, text: null });
});

test("one beat for all sessions moves the deadlines and the leases of their turns", async () => {
  const { db } = database;
  const workers = [await seedWorker(db), await seedWorker(db)];
  const turns = [];
  for (const [index, worker] of workers.entries()) {
    const turn = await seedTurn(db, worker, { conversationId: `pinion-default_u${index}_${orgId}` });
    await ageTurn(db, turn, { deadline_at: 1 });
    turns.push(turn);
  }
  await turnAttempts.beat(db, turns.map(attemptOf), turnTimers.ttlMs);
  const { rows } = await sql<{ ok: boolean }>`
    select t.deadline_at > now() + interval '50 seconds' and c.lease_expires_at = t.deadline_at as ok
    from turn t join conversation c on c.lease_turn_id = t.id
  `.execute(db);
  expect(rows).toEqual([{ ok: true }, { ok: true }]);
  expect(await sweep()).toEqual([]);
});

test.skipIf(!isLong)(
  "the sweep looks at live turns alone: a million that have ended cost it nothing",
  async () => {
    const { db } = database;
    const turn = await seedTurn(db, await seedWorker(db));
    await ageTurn(db, turn, { deadline_at: 1 });
    const time = async () => {
      const startedAt = performance.now();
      for (let i = 0; i < 20; i++)
        await transaction(db, (tx) => lockOverdue(tx, { ttlMs: 60_000, isQuiet: false, limit: 500 }));
      return performance.now() - startedAt;
    };
    await time();
    const before = await time();
    // A partition for the day, filled before it is attached: its indexes are built once.
    await transaction(db, async (tx) => {
      await sql`set local synchronous_commit = off`.execute(tx);
      await sql`create table long_ago (like turn_finished including defaults including constraints)`.execute(
        tx,
      );
      for (let part = 0; part < 4; part++) {
        await sql`
        insert into long_ago (org_id, id, agent_id, agent_version, conversation_id, message_id, agent_kind, input, is_gated,
          timeout_ms, created_at, start_deadline_at, status, attempt, reason, finished_at, is_retryable, is_reported, reply,
          is_reply_truncated, signal)
        select 'local', lpad(to_hex(n + ${part} * 250000), 32, '0')::uuid, 'a', 1, '', '', '', '', false, 1, now(), now(),
          'completed', 1, '', '2020-01-01', false, true, '', false, ''
        from generate_series(1, 250000) n
      `.execute(tx);
      }
      await sql`
      alter table turn_finished attach partition long_ago
      for values from ('2020-01-01 00:00:00+00') to ('2020-01-02 00:00:00+00')
    `.execute(tx);
    });
    const after = await time();
    // Not "equally fast": the machine is shared. If a pass read the finished rows, it would take a
    // hundred times as long.
    expect(after).toBeLessThan(before * 5 + 200);
    expect(await sweep()).toHaveLength(1);
  },
  90_000,
);

test("what is done for many turns at once costs each of them what it costs one of few", async () => {
  const { db } = database;
  const few = 250;
  const many = 2_000;
  /** Other work of the machine may fall into a measured time. */
  const tries = 3;
  const worker = await seedWorker(db);
  await startTurn(db, { conversationId: "", isGated: false });
  await sql`
    insert into conversation (org_id, agent_id, id)
    select ${orgId}, 'pinion-default', 'pinion-default_u' || n || '_local' from generate_series(1, ${few + tries * many}::int) n
  `.execute(db);
  await sql`
    insert into turn (org_id, agent_id, agent_version, conversation_id, message_id, agent_kind, input, is_gated, timeout_ms,
      start_deadline_at)
    select ${orgId}, 'pinion-default', 1, 'pinion-default_u' || n || '_local', n::text, '', 'hello', true, 600000,
      now() + interval '1 hour'
    from generate_series(1, ${few + tries * many}::int) n
  `.execute(db);
  const time = async (count: number) => {
    const claimed = await claimTurns(db, worker, count);
    expect(claimed).toHaveLength(count);
    const attempts = claimed.map(attemptOf);
    const startedAt = performance.now();
    await turnAttempts.beat(db, attempts, turnTimers.ttlMs);
    const beatAt = performance.now();
    expect(
      await turnAttempts.accept(
        db,
        attempts.map((attempt) => ({ ...attempt, acceptedAgoMs: 0 })),
      ),
    ).toEqual(attempts.map(() => "running"));
    const acceptedAt = performance.now();
    const { ended } = await store(...claimed.map((turn) => replyOf(turn, { nextSnapshot: bytes("s") })));
    expect(ended).toHaveLength(count);
    return [beatAt - startedAt, acceptedAt - beatAt, performance.now() - acceptedAt];
  };
  const ofFew = await time(few);
  // Eight times as many: a loop within a loop takes sixty-four times as long, at every try.
  const isLinear = (times: number[]) => times.every((ms, step) => ms < ofFew[step]! * 24 + 100);
  const seen: number[][] = [];
  for (let round = 0; round < tries && !seen.some(isLinear); round++) seen.push(await time(many));
  expect(seen.some(isLinear), JSON.stringify({ ofFew, seen })).toBe(true);
}, 60_000);

test("a beat counts although somebody has the conversation at that moment", async () => {
  const { db } = database;
  const turn = await seedTurn(db, await seedWorker(db));
  await ageTurn(db, turn, { deadline_at: 1 });
  await using somebody = await hold(db);
  await sql`update conversation set last_turn_at = now() where id = ${turn.conversationId}`.execute(
    somebody.tx,
  );
  await turnAttempts.beat(db, [attemptOf(turn)], turnTimers.ttlMs);
  expect((await findTurn(db, turn)).deadlineAt!.getTime()).toBeGreaterThan(Date.now() + 30_000);
  await somebody.commit();
  expect(await sweep()).toEqual([]);
});
