/** A member leaves while another person pins work to, or enrols, a device of the member. */
import { randomUUID } from "node:crypto";
import { beforeEach, expect, test } from "vitest";
import * as agentEdits from "../../../src/store/agents/agent-edits.ts";
import * as agents from "../../../src/store/agents/agents.ts";
import * as joinCodes from "../../../src/store/people/devices/join-codes.ts";
import { transaction } from "../../../src/store/pg/database.ts";
import * as events from "../../../src/store/work/service/events.ts";
import { type Enrolment, enroll } from "../../../src/usecases/enrolments.ts";
import * as members from "../../../src/usecases/members.ts";
import * as watchers from "../../../src/usecases/watchers.ts";
import { useDatabase } from "../../support/database.ts";
import { surroundings } from "../../support/surroundings.ts";
import { addDevice, addTenant } from "../../support/tenants.ts";

const database = useDatabase();
let bob: { orgId: string; userId: string };
let laptop: Enrolment;

beforeEach(async () => {
  await addTenant(database.db, "acme");
  const { member } = await members.add(
    database.db,
    {
      caller: null,
      requestId: "",
      orgId: "acme",
      email: "bob@x.example",
      name: "",
      role: "member",
      tokenScopes: [],
      actor: "pinion",
    },
    surroundings,
  );
  bob = { orgId: "acme", userId: member.userId };
  laptop = await addDevice(database.db, bob);
});

/** Bob leaves; `meanwhile` is called after the removal and before the commit. */
function leave(meanwhile: () => Promise<void>) {
  return transaction(database.db, async (tx) => {
    const leaving = { ...bob, actor: "pinion", caller: null, endsServices: false };
    const departure = await members.remove(tx, leaving, surroundings);
    await meanwhile();
    return departure;
  });
}

const pin = () =>
  watchers.create(
    database.db,
    {
      orgId: "acme",
      actor: "pinion",
      slug: "late",
      requestId: "",
      values: {
        name: "Late",
        prompt: "p",
        agentId: "",
        deviceId: laptop.deviceId,
        agentKind: "",
        schedule: null,
        timeZone: "UTC",
        overlap: "skip",
        catchup: "collapse",
        catchupWindowMs: 0,
        jitterMs: 0,
        minCooldownMs: 0,
        startDeadlineMs: null,
        timeoutMs: 60_000,
        maxAttempts: 1,
        notification: "none",
        extractionSchema: null,
        agentWork: {},
        after: [],
        placement: null,
      },
    },
    surroundings,
  );

/** Resolves when `count` connections of this database wait for a lock. */
async function waiting(count: number): Promise<void> {
  await expect
    .poll(async () => {
      const row = await database.db
        // biome-ignore lint/suspicious/noExplicitAny: a view of PostgreSQL's own.
        .selectFrom("pg_stat_activity" as any)
        .select((eb) => eb.fn.countAll<number>().as("n"))
        .where("wait_event_type" as never, "=", "Lock" as never)
        .where("datname" as never, "=", new URL(database.url).pathname.slice(1) as never)
        .executeTakeFirstOrThrow();
      return Number((row as { n: number }).n);
    })
    .toBe(count);
}

test("who leaves leaves agents that say so, and no agent can be pinned to the device any more", async () => {
  const agent = { orgId: "acme", agentId: "pinion-default", actor: "pinion" };
  const pinAgent = () =>
    agentEdits.update(database.db, {
      ...agent,
      expectedVersion: 0,
      isDryRun: false,
      change: (current) => ({ ...current, deviceId: laptop.deviceId, noExecutorReason: "" }),
    });
  await pinAgent();
  const departure = await leave(async () => {});
  expect(departure.agentsUnpinned).toBe(1);
  const { deviceId, noExecutorReason } = await agents.get(database.db, agent);
  expect([deviceId, noExecutorReason]).toEqual([null, 'the owner of device "box" left the org']);
  const [event] = await events.list(database.db, { orgId: "acme", limit: 1, kinds: ["agent.updated"] });
  expect(event).toMatchObject({ device_id: laptop.deviceId, data: { agent_id: agent.agentId } });
  await expect(pinAgent()).rejects.toMatchObject({ reason: "failed_precondition", field: "device_id" });
});

test("a pin that is made while the device's owner leaves waits, and is refused", async () => {
  let pinned: Promise<unknown> | undefined;
  await leave(async () => {
    pinned = pin().catch((error: unknown) => error);
    await waiting(1);
  });
  expect(await pinned).toMatchObject({ reason: "failed_precondition" });
  const pins = await database.db.selectFrom("watcher").select("device_id").execute();
  expect(pins.filter((watcher) => watcher.device_id !== null)).toEqual([]);
});

test("a daemon that enrols while whoever made its join code leaves waits, and is refused", async () => {
  const { code } = await joinCodes.create(database.db, {
    ...bob,
    expiresInMs: 60_000,
    tokenId: null,
    actor: "pinion",
  });
  let enrolled: Promise<unknown> | undefined;
  await leave(async () => {
    const asked = { installId: randomUUID(), os: "linux", label: "late", appVersion: "" } as const;
    enrolled = enroll(database.db, { joinCode: code, ...asked }, surroundings).catch(
      (error: unknown) => error,
    );
    await waiting(1);
  });
  expect(await enrolled).toMatchObject({ reason: "unauthenticated" });
  expect(await database.db.selectFrom("device").select("label").execute()).toEqual([{ label: "box" }]);
});
