/** Crowds of deliveries to one hook: all other requests go on. */
import { randomUUID } from "node:crypto";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { newKey } from "../../../../src/secrets.ts";
import { useDatabase } from "../../../support/database.ts";
import { hold, untilBlocked } from "../../../support/locks.ts";
import { useReplica } from "../../../support/server.ts";

const database = useDatabase({ per: "file" });
const replica = useReplica(database, { PINION_SECRET_KEYS: newKey() });

/** A hook, and a delivery to it that resolves to the answer's status. */
async function addHook(ratePerMinute: number) {
  const { clients, url } = replica();
  const slug = `w-${randomUUID().slice(0, 8)}`;
  await clients.watchers.createWatcher({ slug, spec: { name: slug, prompt: "look" } });
  const spec = { watcherId: slug, kind: HookKind.BEARER, ratePerMinute };
  const { hook, secret } = await clients.hooks.createHook({ spec });
  const deliver = async (): Promise<number> => {
    const answer = await fetch(`${url}/hooks/${hook?.id}`, {
      method: "POST",
      // Some senders begin with a byte order mark.
      body: "\ufeff{}",
      headers: { "content-type": "application/json", authorization: `Bearer ${secret}` },
    });
    await answer.arrayBuffer();
    return answer.status;
  };
  return { id: hook?.id, deliver };
}

test("a crowd of deliveries to one hook leaves connections of the database to everybody else", async () => {
  const { id, deliver } = await addHook(6_000);
  await using held = await hold(database.db);
  await sql`select from hook where id = ${id} for update`.execute(held.tx);
  const crowd = Promise.all(Array.from({ length: 60 }, deliver));
  await untilBlocked(database.db, 2);
  for (let call = 0; call < 20; call++)
    await replica().clients.watchers.listWatchers({}, { timeoutMs: 10_000 });
  await held.commit();
  expect(new Set(await crowd)).toEqual(new Set([202]));
});

test("a hook beyond its rate refuses without a statement, until it takes deliveries again", async () => {
  const { id, deliver } = await addHook(1);
  expect(await deliver()).toBe(202);
  expect(await deliver()).toBe(429);
  await using held = await hold(database.db);
  await sql`select from hook where id = ${id} for update`.execute(held.tx);
  const statuses = await Promise.all(Array.from({ length: 20 }, deliver));
  expect(new Set(statuses)).toEqual(new Set([429]));
});

test.each([
  ["hooks", "hook", () => `/hooks/${randomUUID()}`],
  ["platforms", "platform", () => `/platforms/${randomUUID()}/${randomUUID()}`],
])("a crowd that guesses %s keeps one connection of the database busy", async (_, table, pathOf) => {
  const { clients, url } = replica();
  await using held = await hold(database.db);
  await sql`lock table ${sql.table(table)} in access exclusive mode`.execute(held.tx);
  const guess = async () => {
    const answer = await fetch(`${url}${pathOf()}`, { method: "POST", body: "{}" });
    await answer.arrayBuffer();
    return answer.status;
  };
  const crowd = Promise.all(Array.from({ length: 60 }, guess));
  await untilBlocked(database.db, 1);
  for (let call = 0; call < 20; call++) await clients.watchers.listWatchers({}, { timeoutMs: 10_000 });
  await held.commit();
  expect(new Set(await crowd)).toEqual(new Set([404]));
});
