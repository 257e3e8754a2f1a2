/**
 * Conversations that are deleted, also while somebody speaks in them; and work that a claim passes
 * by.
 */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../../support/device.ts";
import { hold, untilBlocked } from "../../../support/locks.ts";
import { answer, getTurn, startTurn } from "../../../support/talk.ts";
import { startWork, takeOn, usePatientReplicas } from "../../../support/work.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../../support/worker.ts";

const database = useDatabase({ per: "file" });
const replicas = usePatientReplicas(database, "here");
/** The sweep is far away: a prompt arrival came from a notification. */
const promptMs = 3_000;

let people = 0;
/** Each test uses another person, so that no test waits for another test's conversation. */
const somebody = () => ({ userId: `person-${people++}` });

async function openWorker(maxConcurrency = 1) {
  const identity = workerIdentity(await fleetToken(replicas.here.clients));
  return { stream: await connectWorker(replicas.here.url, identity, { maxConcurrency }) };
}

/** Disconnects the worker, so that it takes no turn of the next test. */
async function leave(stream: DeviceStream): Promise<void> {
  stream.end();
  await stream.ended;
}

async function reasonOf(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  return (error as { reason?: string } | undefined)?.reason ?? "none";
}

/** The worker is given the turn at once; then the turn ends, and the worker leaves. */
async function expectSoon(stream: DeviceStream, turnId: string): Promise<void> {
  const startedAt = performance.now();
  const assignment = await takeOn(stream);
  expect(assignment.workId).toBe(turnId);
  expect(performance.now() - startedAt).toBeLessThan(promptMs);
  await answer(stream, assignment, "this");
  await leave(stream);
}

test("a conversation that is deleted is forgotten whole, and not while it is spoken in", async () => {
  const { clients } = replicas.here;
  const who = somebody();
  const { stream } = await openWorker();
  const turn = await startTurn(clients, { ...who, messageId: "m1" });
  const { conversationId } = turn;
  expect(await reasonOf(clients.turns.deleteConversation({ conversationId }))).toBe("failed_precondition");
  await answer(stream, await takeOn(stream), "secret", "secret");
  await clients.turns.deleteConversation({ conversationId });
  expect(await reasonOf(clients.turns.getConversation({ conversationId }))).toBe("not_found");
  expect(await reasonOf(getTurn(clients, turn))).toBe("not_found");
  const anew = await startTurn(clients, { ...who, messageId: "m1" });
  const assignment = await takeOn(stream);
  expect(assignment).toMatchObject({ workId: anew.id, turn: { snapshotVersion: 0n } });
  await answer(stream, assignment, "again");
  await leave(stream);
});

test("a turn that a claim passed by, because a deletion of its conversation was about to be refused, is given at once", async () => {
  const { clients } = replicas.here;
  const turn = await startTurn(clients, somebody());
  const { conversationId } = turn;
  await using deletion = await hold(database.db);
  await sql`select from conversation where id = ${conversationId} for update`.execute(deletion.tx);
  const { stream } = await openWorker(2);
  const refused = reasonOf(clients.turns.deleteConversation({ conversationId }));
  await untilBlocked(database.db);
  // Its claim, for what waits, is over when a later turn of the same claims is given.
  await startTurn(clients, somebody());
  await answer(stream, await takeOn(stream), "other");
  await deletion.commit();
  expect(await refused).toBe("failed_precondition");
  await expectSoon(stream, turn.id);
});

test("a turn that a claim passed by is given soon after, though whoever held it rings for nobody", async () => {
  const { clients } = replicas.here;
  const turn = await startTurn(clients, somebody());
  await using held = await hold(database.db);
  await sql`select from conversation where id = ${turn.conversationId} for update`.execute(held.tx);
  const { stream } = await openWorker(2);
  await startTurn(clients, somebody());
  await answer(stream, await takeOn(stream), "other");
  await held.tx.rollback().execute();
  await expectSoon(stream, turn.id);
});

test("a run is given soon after, though its device's session was held when it was triggered", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  await using held = await hold(database.db);
  await sql`select from presence where device_id = ${device.deviceId} for update`.execute(held.tx);
  await held.sent();
  const run = await startWork(clients, device);
  await held.tx.rollback().execute();
  const startedAt = performance.now();
  expect((await takeOn(stream)).workId).toBe(run.id);
  expect(performance.now() - startedAt).toBeLessThan(promptMs);
});
