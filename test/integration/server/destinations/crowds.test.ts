/**
 * Many slow receivers at once: those of other orgs and at other hosts get their messages all the
 * same.
 */
import { randomUUID } from "node:crypto";
import { sql } from "kysely";
import { expect, test, vi } from "vitest";
import { DeliveryState } from "#gen/pinion/v1/destination_pb.js";
import { newKey } from "../../../../src/secrets.ts";
import { useDatabase } from "../../../support/database.ts";
import { openReceiver, type Receiver } from "../../../support/receivers.ts";
import { inNewOrg, type TestReplica, useReplica } from "../../../support/server.ts";

const database = useDatabase({ per: "file" });
const replica = useReplica(database, {
  PINION_SECRET_KEYS: newKey(),
  PINION_DESTINATION_NETWORKS: "127.0.0.0/8",
});

async function addDestination({ clients }: Pick<TestReplica, "clients">, url: string): Promise<string> {
  const slug = `to-${randomUUID().slice(0, 8)}`;
  const spec = { name: slug, kind: { case: "webhook", value: { url } }, takesAlerts: false } as const;
  const { destination } = await clients.destinations.createDestination({ slug, spec });
  return destination!.id;
}

/** Deliveries that are due, each in a lane of its own. */
async function addDeliveries(orgId: string, destinationId: string, count: number): Promise<void> {
  await sql`
    insert into delivery (org_id, destination_id, lane, kind, subject)
    select ${orgId}, ${destinationId}, gen_random_uuid(), 'device.away', '{}' from generate_series(1, ${count})
  `.execute(database.db);
}

/** A receiver that never answers. */
async function openSlow(): Promise<Receiver> {
  const slow = await openReceiver();
  slow.behave(() => {});
  return slow;
}

const tried = (receivers: readonly Receiver[]) =>
  receivers.reduce((sum, { received }) => sum + received.length, 0);

/** Resolves when no try has begun for half a second. */
async function untilFull(receivers: readonly Receiver[], least: number): Promise<void> {
  let before = -1;
  await vi.waitFor(
    () => {
      const now = tried(receivers);
      const isStill = now === before;
      before = now;
      expect(now).toBeGreaterThanOrEqual(least);
      expect(isStill).toBe(true);
    },
    { interval: 500, timeout: 15_000 },
  );
}

/** A test message to a receiver that answers, which comes while the others hang. */
async function expectSoon(org: TestReplica, receivers: readonly Receiver[]): Promise<void> {
  const quick = await openReceiver();
  const destinationId = await addDestination(org, quick.url);
  const before = tried(receivers);
  const { delivery } = await org.clients.destinations.testDestination({ destinationId });
  expect(delivery).toMatchObject({ state: DeliveryState.DELIVERED, attempts: 1 });
  // No slow try has ended meanwhile, which would have made room.
  expect(tried(receivers)).toBe(before);
}

test("slow receivers of one org take a part of the tries, and the rest is for other orgs", async () => {
  const [many, other] = [await inNewOrg(replica()), await inNewOrg(replica())];
  const slow = await Promise.all(Array.from({ length: 4 }, openSlow));
  for (let count = 0; count < 80; count++) {
    const destinationId = await addDestination(many, slow[count % slow.length]!.url);
    await addDeliveries(many.orgId, destinationId, 4);
  }
  await other.clients.destinations.listDestinations({});
  await expectSoon(other, []);
  await untilFull(slow, 64);
  expect(tried(slow)).toBe(64);
  await expectSoon(other, slow);
});

test("a host that hangs for all orgs takes a part of the tries, and what waits for it counts no try", async () => {
  const slow = await openSlow();
  for (let org = 0; org < 20; org++) {
    const one = await inNewOrg(replica());
    const ids = await Promise.all(Array.from({ length: 5 }, () => addDestination(one, slow.url)));
    for (const id of ids) await addDeliveries(one.orgId, id, 3);
  }
  await expectSoon(await inNewOrg(replica()), []);
  await untilFull([slow], 64);
  expect(slow.received).toHaveLength(64);
  await expectSoon(await inNewOrg(replica()), [slow]);
  const { rows } = await sql<{ attempts: number }>`
    select attempts from delivery where last_error like '%wait for 127.0.0.1%' and lease_token is null`.execute(
    database.db,
  );
  expect(rows.length).toBeGreaterThan(0);
  expect(new Set(rows.map(({ attempts }) => attempts))).toEqual(new Set([0]));
});
