/** Turns that start together: one transaction for all, and an answer for each. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { Refusal } from "../../../src/errors.ts";
import { storeRepliesOnce } from "../../../src/scheduler/endings/turn-endings.ts";
import { transaction } from "../../../src/store/pg/database.ts";
import {
  type ArmedTurn,
  armAll,
  type NewTurn,
  turnsPerConversationMax,
} from "../../../src/store/work/turns/arming.ts";
import { withdraw } from "../../../src/store/work/turns/turn-settlements.ts";
import { find, startedRow } from "../../../src/store/work/turns/turns.ts";
import { useDatabase } from "../../support/database.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import { orgId, seedOrg } from "../../support/rows.ts";
import {
  claimTurns,
  findTurn,
  newTurn,
  replyOf,
  seedTurn,
  seedWorker,
  startTurn,
} from "../../support/turns.ts";

const database = useDatabase();
const conversationOf = (name: string) => `pinion-default_${name}_${orgId}`;
const turnIn = (name: string, values: Partial<NewTurn> = {}) =>
  newTurn({ conversationId: conversationOf(name), ...values });
const armTogether = (...turns: NewTurn[]) => transaction(database.db, (tx) => armAll(tx, orgId, turns));
const reasonOf = (answer: ArmedTurn | Refusal | undefined) =>
  answer instanceof Refusal ? answer.reason : answer?.isNew ? "new" : "known";

test("turns that start together are answered each by itself, and numbered as they came", async () => {
  const { db } = database;
  const before = await startTurn(db, { conversationId: conversationOf("a"), messageId: "before" });
  await sql`
    insert into agent (org_id, id, name, no_executor_reason)
    values (${orgId}, 'idle', 'idle', 'its device was deleted')
  `.execute(db);
  const answers = await armTogether(
    turnIn("b", { messageId: "1", input: "first" }),
    turnIn("a", { messageId: "before" }),
    turnIn("b", { messageId: "2" }),
    turnIn("b", { messageId: "1", input: "first" }),
    turnIn("b", { messageId: "1", input: "another" }),
    turnIn("a", { agentId: "nobody" }),
    turnIn("a", { agentId: "idle" }),
    turnIn("a", { messageId: "3" }),
    newTurn({ conversationId: "", isGated: false, messageId: "4" }),
  );
  expect(answers.map(reasonOf)).toEqual([
    ...["new", "known", "new", "known", "already_exists", "not_found", "failed_precondition"],
    ...["new", "new"],
  ]);
  expect(answers[1]).toEqual({ isNew: false, turnId: before.turnId });
  expect((answers[3] as ArmedTurn).turnId).toBe((answers[0] as ArmedTurn).turnId);
  const { rows } = await sql<{ message_id: string }>`select message_id from turn order by seq`.execute(db);
  expect(rows.map((row) => row.message_id)).toEqual(["before", "1", "2", "3", "4"]);
  const { rows: kept } = await sql`select from conversation where agent_id in ('nobody', 'idle')`.execute(db);
  expect(kept).toEqual([]);
});

test("the answer to a start is the row as it was written", async () => {
  await seedOrg(database.db, orgId);
  const turn = turnIn("a", { timeoutMs: 5_000, agentKind: "claude" });
  const [armed] = await armTogether(turn);
  if (!armed || armed instanceof Refusal || !armed.isNew) throw new Error("not started");
  expect(await find(database.db, { orgId, turnId: armed.turnId })).toEqual(startedRow(turn, armed));
});

test("a conversation takes turns up to its maximum, also of a batch; the refused are not known afterwards", async () => {
  const { db } = database;
  await seedOrg(db, orgId);
  const many = (count: number, from: number) =>
    Array.from({ length: count }, (_, n) => turnIn("a", { messageId: `${from + n}` }));
  await armTogether(...many(turnsPerConversationMax - 2, 0));
  const answers = await armTogether(...many(3, 1_000), turnIn("b"));
  expect(answers.map(reasonOf)).toEqual(["new", "new", "resource_exhausted", "new"]);
  const again = await armTogether(turnIn("a", { messageId: "1002" }), turnIn("a", { messageId: "1001" }));
  expect(again.map(reasonOf)).toEqual(["resource_exhausted", "known"]);
  const worker = await seedWorker(db);
  await claimTurns(db, worker);
  expect((await armTogether(turnIn("a", { messageId: "1002" }))).map(reasonOf)).toEqual(["new"]);
});

test("statements that lock several conversations take them in one order, so that they cannot block each other", async () => {
  const { db } = database;
  const worker = await seedWorker(db);
  // The turns' order is not their conversations' order.
  const later = await seedTurn(db, worker, { conversationId: conversationOf("z") });
  const earlier = await seedTurn(db, worker, { conversationId: conversationOf("a") });
  expect(later.turnId < earlier.turnId).toBe(true);
  for (const end of ["ending", "arming", "withdrawing"] as const) {
    await using last = await hold(db);
    await sql`select from conversation where id = ${conversationOf("z")} for update`.execute(last.tx);
    await using both = await hold(db);
    await sql`update turn set status = 'claimed' where id in (${later.turnId}, ${earlier.turnId})`.execute(
      both.tx,
    );
    const names = [later, earlier].map((turn) => ({ ...turn, session: worker, reason: "busy", delayMs: 0 }));
    const waiting = {
      ending: () => storeRepliesOnce(both.tx, [replyOf(later), replyOf(earlier)]),
      arming: () => armAll(both.tx, orgId, [turnIn("z"), turnIn("a")]),
      withdrawing: () => withdraw(both.tx, names),
    }[end]();
    await untilBlocked(db);
    // The statement that waits for the last conversation has the first one.
    const { rows } = await sql`
      select from conversation where id = ${conversationOf("a")} for update skip locked
    `.execute(db);
    expect(rows, end).toEqual([]);
    await last.commit();
    await waiting;
  }
});

test("a reply that comes before the accept was stored says when its turn started", async () => {
  const { db } = database;
  const worker = await seedWorker(db);
  await startTurn(db);
  const [turn] = await claimTurns(db, worker);
  if (!turn) throw new Error("not claimed");
  await sql`update turn set claimed_at = now() - interval '10 s' where id = ${turn.turnId}`.execute(db);
  await transaction(db, (tx) => storeRepliesOnce(tx, [replyOf(turn, { startedAgoMs: 4_000 })]));
  const { startedAt, claimedAt } = await findTurn(db, turn);
  const afterMs = startedAt!.getTime() - claimedAt!.getTime();
  expect(afterMs).toBeGreaterThan(5_000);
  expect(afterMs).toBeLessThan(10_000);
});
