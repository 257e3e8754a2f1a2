/**
 * Turns lost by the database in a failover to a lagging standby; their workers still have the
 * replies.
 */
import { createHash } from "node:crypto";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { CompletionVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import { TurnStatus } from "#gen/pinion/v1/turn_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { hold, untilBlocked } from "../../../support/locks.ts";
import { answer, startTurn } from "../../../support/talk.ts";
import { takeOn, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

async function begin() {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  return { clients, url, device, stream };
}

/**
 * A turn of an agent that is pinned to the device, answered, and then forgotten by the database.
 */
async function answerTurn(forgets: readonly string[]) {
  const begun = await begin();
  const { clients, device, stream } = begun;
  const agentId = `agent-${device.deviceId.slice(-12)}`;
  await clients.agents.createAgent({ agentId });
  await clients.agents.updateAgentSettings({ agentId, deviceId: device.deviceId });
  const asked = { agentId, userId: "ada", messageId: "m-1", input: "hello" };
  const turn = await startTurn(clients, asked);
  const assignment = await takeOn(stream);
  expect(await answer(stream, assignment, "the reply")).toBe(CompletionVerdict.STORED);
  for (const table of forgets)
    await sql`delete from ${sql.table(table)} where agent_id = ${agentId}`.execute(database.db);
  const { attemptToken, attempt } = assignment;
  const { conversationId, messageId, input, usesSnapshot } = assignment.turn!;
  const offerReply = async (by = stream) => {
    const inputSha256 = createHash("sha256").update(input).digest();
    const turnReoffer = { agentId, conversationId, messageId, input, inputSha256, attempt, usesSnapshot };
    const value = {
      workId: turn.id,
      attemptToken,
      outcome: Outcome.COMPLETED,
      output: "the reply",
      turnReoffer,
    };
    by.send({ case: "complete", value });
    return (await by.next("completionAck")).verdict;
  };
  return { ...begun, asked, turn, offerReply };
}

/** The state of a standby that had the turn before its claim. */
async function waitAgain(turn: { id: string; agentId: string; conversationId: string }): Promise<void> {
  await sql`delete from turn_finished where id = ${turn.id}`.execute(database.db);
  await sql`insert into turn (org_id, id, agent_id, agent_version, conversation_id, message_id, agent_kind, input, is_gated,
      timeout_ms, start_deadline_at)
    values ('local', ${turn.id}, ${turn.agentId}, 0, ${turn.conversationId}, 'm-1', '', 'hello', true, 60000,
      now() + interval '1 hour')`.execute(database.db);
}

test("a turn of which nothing is left is there again with its reply as a late one, and its message is known", async () => {
  const { clients, asked, turn, offerReply } = await answerTurn([
    "turn_finished",
    "turn_message",
    "conversation",
  ]);
  expect(await offerReply()).toBe(CompletionVerdict.SUPERSEDED);
  expect(await offerReply()).toBe(CompletionVerdict.SUPERSEDED);
  const { turn: restored, lateResults } = await clients.turns.getTurn({ turnId: turn.id });
  expect(restored).toMatchObject({ status: TurnStatus.FAILED, reply: "", input: "hello", isRetryable: true });
  expect(restored!.reason).toContain("forgotten by the database in a failover");
  expect(lateResults).toMatchObject([{ output: "the reply" }]);
  // The sender repeats the message: no second program runs.
  const again = await clients.turns.startTurn(asked);
  expect(again).toMatchObject({ alreadyStarted: true, turn: { id: turn.id } });
});

test("a message that was sent again before its reply came back has a turn of its own, and one reply", async () => {
  const { clients, stream, asked, turn, offerReply } = await answerTurn(["turn_finished", "turn_message"]);
  const second = await startTurn(clients, asked);
  expect(second.id).not.toBe(turn.id);
  const assignment = await takeOn(stream);
  expect(await offerReply()).toBe(CompletionVerdict.SUPERSEDED);
  expect(await answer(stream, assignment, "the second")).toBe(CompletionVerdict.STORED);
  const { turns } = await clients.turns.listTurns({ conversationId: second.conversationId });
  expect(turns.map(({ reply }) => reply)).toEqual(["the second", ""]);
});

test("a turn that waits again, because its claim was forgotten, takes the reply as a late one", async () => {
  const { clients, turn, offerReply } = await answerTurn([]);
  await waitAgain(turn);
  expect(await offerReply()).toBe(CompletionVerdict.SUPERSEDED);
  const { turn: live, lateResults } = await clients.turns.getTurn({ turnId: turn.id });
  expect(live).toMatchObject({ status: TurnStatus.PENDING, reply: "" });
  expect(lateResults).toMatchObject([{ output: "the reply" }]);
});

test("an attempt at a turn that comes back while the one before it ends has its end after that", async () => {
  const { turn, offerReply } = await answerTurn([]);
  await waitAgain(turn);
  await using ending = await hold(database.db);
  await sql`select from turn where id = ${turn.id} for update`.execute(ending.tx);
  const answered = offerReply();
  await untilBlocked(database.db);
  const end = sql`jsonb_build_object('attempt', 1, 'token', gen_random_uuid(), 'holder_id', ${turn.id}::text,
    'ended_at', clock_timestamp(), 'reason', 'lost')`;
  await sql`update turn set past_attempts = jsonb_build_array(${end}) where id = ${turn.id}`.execute(
    ending.tx,
  );
  await ending.commit();
  expect(await answered).toBe(CompletionVerdict.SUPERSEDED);
  const { rows } = await sql<{ isAfter: boolean }>`
    select (past_attempts->1->>'ended_at')::timestamptz >= (past_attempts->0->>'ended_at')::timestamptz as "isAfter"
    from turn where id = ${turn.id}`.execute(database.db);
  expect(rows).toEqual([{ isAfter: true }]);
});

test("a reply of an agent that is not this device's is not restored", async () => {
  const { turn, offerReply } = await answerTurn(["turn_finished", "turn_message"]);
  const other = await begin();
  expect(await offerReply(other.stream)).toBe(CompletionVerdict.UNKNOWN);
  const { rows } = await sql`select from turn_all where id = ${turn.id}`.execute(database.db);
  expect(rows).toEqual([]);
});
