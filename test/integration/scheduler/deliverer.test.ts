/** The passes of the deliverer, with senders and crowds that a replica's own never has. */
import { randomUUID } from "node:crypto";
import { sql } from "kysely";
import { expect, onTestFinished, test, vi } from "vitest";
import { startDeliverer } from "../../../src/scheduler/deliverer.ts";
import { ensureBootstrap } from "../../../src/store/people/orgs/orgs.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";

const database = useDatabase();

/** A destination with due deliveries, each in a lane of its own. */
async function addDestination(deliveries: number): Promise<string> {
  const id = randomUUID();
  await ensureBootstrap(database.db);
  await sql`insert into destination (org_id, id, slug, name, kind) values ('local', ${id}, ${id}, 'x', 'webhook')`.execute(
    database.db,
  );
  await sql`
    insert into delivery (org_id, destination_id, lane, kind, subject)
    select 'local', ${id}, gen_random_uuid(), 'device.away', '{}' from generate_series(1, ${deliveries})
  `.execute(database.db);
  return id;
}

test("a sender that does not end with its time gives its place back", async () => {
  const destinationId = await addDestination(12);
  const deliverer = startDeliverer({
    db: database.db,
    log: createLogger({ name: "test", level: "silent" }),
    // As a socket that Node hands over to nobody.
    send: () => new Promise(() => {}),
    sweepMs: 50,
    leaseMs: 400,
  });
  onTestFinished(() => deliverer.stop());
  await vi.waitFor(
    async () => {
      const { rows } = await sql<{ count: string }>`select count(*) from delivery
        where destination_id = ${destinationId} and last_error = 'did not answer in time'`.execute(
        database.db,
      );
      expect(Number(rows[0]?.count)).toBe(12);
    },
    { interval: 50, timeout: 15_000 },
  );
});

test("walks through thousands of waiting lanes take a fifth of the time, and each is sent once", async () => {
  const lanes = 2_000;
  const destinationId = await addDestination(lanes);
  let walksMs = 0;
  const begun = new WeakMap<object, number>();
  const timed = database.db.withPlugin({
    transformQuery({ node, queryId }) {
      const isWalk = node.kind === "RawNode" && node.sqlFragments.join("").includes("from due");
      if (isWalk) begun.set(queryId, performance.now());
      return node;
    },
    async transformResult({ result, queryId }) {
      const from = begun.get(queryId);
      if (from !== undefined) walksMs += performance.now() - from;
      return result;
    },
  });
  const startedAt = performance.now();
  const sent: string[] = [];
  const deliverer = startDeliverer({
    db: timed,
    log: createLogger({ name: "test", level: "silent" }),
    async send({ id }) {
      sent.push(id);
      return { outcome: "delivered", status: 200 };
    },
    sweepMs: 50,
  });
  await vi.waitFor(
    async () => {
      const { rows } = await sql<{ count: string }>`select count(*) from delivery
        where destination_id = ${destinationId} and state = 'delivered'`.execute(database.db);
      expect(Number(rows[0]?.count)).toBe(lanes);
    },
    { interval: 100, timeout: 50_000 },
  );
  await deliverer.stop();
  expect(new Set(sent).size).toBe(lanes);
  expect(sent).toHaveLength(lanes);
  // A walk for every four deliveries takes half of the time.
  expect(walksMs / (performance.now() - startedAt)).toBeLessThan(0.3);
}, 60_000);
