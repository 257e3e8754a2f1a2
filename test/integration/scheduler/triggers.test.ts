/** What a trigger asks of the database, and what is left if the database refuses it. */
import { sql } from "kysely";
import { afterEach, expect, test, vi } from "vitest";
import { trigger } from "../../../src/scheduler/starts/triggers.ts";
import { createQuotas } from "../../../src/store/people/orgs/quotas.ts";
import type { Db } from "../../../src/store/pg/database.ts";
import { useDatabase } from "../../support/database.ts";
import { listRuns, seedDevice, seedWatcher } from "../../support/rows.ts";
import { noteDoorbell } from "../../support/surroundings.ts";
import { countTrips } from "../../support/trips.ts";

const database = useDatabase();
afterEach(() => void vi.restoreAllMocks());

const actor = "user:ann";
const request = (orgId: string, requestId: string) => ({ orgId, actor, requestId, rpc: "T/Trigger" });

test("a trigger is told to the doorbell after two round trips, also with an input and a request id", async () => {
  const { db } = database;
  const watcher = await seedWatcher(db, await seedDevice(db));
  const trips = countTrips();
  let tripsBefore = 0;
  const doorbell = {
    ...noteDoorbell(),
    recorded() {
      tripsBefore = trips();
    },
  };
  const asked = { ...watcher, actor, input: { city: "Bern" } };
  const { run } = await trigger(db, asked, { doorbell, request: request(watcher.orgId, "once") });
  expect(tripsBefore).toBe(2);
  const events = await db.selectFrom("event").select(["run_id", "actor"]).where("kind", "=", "run.created");
  expect(await events.execute()).toEqual([{ run_id: run.id, actor }]);
  expect(await listRuns(db, watcher)).toMatchObject([{ id: run.id, status: "pending" }]);
});

test("what the sessions send for a trigger leaves before the trigger's answer is read", async () => {
  const { db } = database;
  const watcher = await seedWatcher(db, await seedDevice(db));
  let tripsBefore = 0;
  const trips = countTrips();
  const hold = () => ({
    claimants: [undefined],
    // Sockets are written to at the end of a turn of the event loop.
    deliver: () =>
      void setImmediate(() => {
        tripsBefore = trips();
      }),
    drop() {},
  });
  await trigger(db, { ...watcher, actor }, { doorbell: noteDoorbell(), hold });
  expect([tripsBefore, trips()]).toEqual([2, 1]);
});

test("a run that the database refuses leaves neither an event nor a request, and nothing is announced", async () => {
  const { db } = database;
  const watcher = await seedWatcher(db, await seedDevice(db));
  const doorbell = noteDoorbell();
  const triggered = () =>
    trigger(db, { ...watcher, actor }, { doorbell, request: request(watcher.orgId, "r") });
  await db.schema.alterTable("run").addCheckConstraint("refused", sql`status <> 'pending'`).execute();
  await expect(triggered()).rejects.toMatchObject({ code: "23514" });
  await db.schema.alterTable("run").dropConstraint("refused").execute();
  expect(doorbell.noted.recorded).toEqual([]);
  expect(await db.selectFrom("event").select("seq").where("kind", "=", "run.created").execute()).toEqual([]);
  expect(await triggered()).toMatchObject({ alreadyQueued: false });
});

test("an org whose runs are counted every few seconds waits for none of the counts but the first", async () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  const { db } = database;
  const { orgId } = await seedDevice(db);
  const counted: string[] = [];
  const counting = (name: string) =>
    db.withPlugin({
      transformQuery: ({ node }) => node,
      async transformResult({ result }) {
        counted.push(name);
        return result;
      },
    }) as Db;
  const quotas = createQuotas(
    { runs: 10, watchers: 1, devices: 1, tokens: 1, turns: 1 },
    { ahead: counting("ahead") },
  );
  const require = () => quotas.requireRoom(counting("caller"), "runs", orgId);
  for (let second = 0; second <= 12; second++) {
    await require();
    await require();
    await vi.waitFor(() => expect(counted).toHaveLength(1 + Math.floor(second / 3)));
    await new Promise((resolve) => setImmediate(resolve));
    vi.advanceTimersByTime(1_000);
  }
  expect(counted).toEqual(["caller", "ahead", "ahead", "ahead", "ahead"]);
  vi.useRealTimers();
});
