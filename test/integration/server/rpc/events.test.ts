import { Code } from "@connectrpc/connect";
import { sql } from "kysely";
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import type { WatchEventsResponse } from "#gen/pinion/v1/event_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import * as tokens from "../../../../src/store/people/credentials/tokens.ts";
import * as events from "../../../../src/store/work/service/events.ts";
import * as retention from "../../../../src/store/work/service/retention.ts";
import { useDatabase } from "../../../support/database.ts";
import { addTenant } from "../../../support/tenants.ts";
import { countTrips } from "../../../support/trips.ts";
import { type Api, startApi } from "../api.ts";

const database = useDatabase();
let api: Api;
let mine: ReturnType<Api["as"]>;

beforeEach(async () => {
  const tenant = await addTenant(database.db, "acme");
  api = await startApi(database.db);
  mine = api.as(tenant.secret);
});
afterEach(() => api.stop());

async function write(...kinds: string[]): Promise<void> {
  await database.db.transaction().execute((tx) =>
    events.append(
      tx,
      "acme",
      kinds.map((kind) => ({ kind, actor: "pinion", data: { nested: { n: 1 } } })),
    ),
  );
  api.wake("acme");
}

/** Reads `count` events from a stream; returns their kinds and the last cursor. */
async function read(
  stream: AsyncIterable<WatchEventsResponse>,
  count: number,
  onCursor?: () => Promise<void>,
) {
  const kinds: string[] = [];
  let cursor = "";
  for await (const { update } of stream) {
    if (update.case === "cursor") {
      cursor = update.value;
      await onCursor?.();
    } else if (update.case === "event") {
      kinds.push(update.value.kind);
      cursor = update.value.cursor;
    }
    if (kinds.length >= count) break;
  }
  return { kinds, cursor };
}

test("a cursor whose next events are past their retention is refused, and every other one goes on", async () => {
  await write("test.one", "test.two", "test.three");
  const { cursor: one } = await read(mine.events.watchEvents({ afterCursor: "0" }), 1);
  const { cursor: two } = await read(mine.events.watchEvents({ afterCursor: one }), 1);
  await database.db
    .updateTable("event_row")
    .set({ at: sql<Date>`now() - interval '31 days'` })
    .where("kind", "in", ["test.one", "test.two"])
    .execute();
  expect((await retention.deleteOld(database.db, { days: 30, conversationDays: 365 })).deleted).toBe(2);

  await expect(read(mine.events.watchEvents({ afterCursor: one }), 1)).rejects.toMatchObject({
    code: Code.FailedPrecondition,
    rawMessage: expect.stringContaining('resume after "0"'),
  });
  for (const afterCursor of [two, "0"]) {
    expect((await read(mine.events.watchEvents({ afterCursor }), 1)).kinds).toEqual(["test.three"]);
  }
  // Another org's log has no gap.
  const globex = await addTenant(database.db, "globex");
  const stream = api.as(globex.secret).events.watchEvents({ afterCursor: "1" })[Symbol.asyncIterator]();
  expect((await stream.next()).value.update.case).toBe("cursor");
  await stream.return?.();
});

test("a stream without a cursor shows what happens from now on, and one that resumes misses nothing", async () => {
  await write("test.before");
  const first = await read(mine.events.watchEvents({}), 1, () => write("test.one", "test.two"));
  expect(first.kinds).toEqual(["test.one"]);
  const rest = await read(mine.events.watchEvents({ afterCursor: first.cursor }), 2, () =>
    write("test.three"),
  );
  expect(rest.kinds).toEqual(["test.two", "test.three"]);
  const all = await read(mine.events.watchEvents({ afterCursor: "0" }), 4);
  expect(all.kinds).toEqual(["test.before", "test.one", "test.two", "test.three"]);
});

test("a backlog of more than one batch arrives whole, by kind if asked", async () => {
  await write(...Array.from({ length: 450 }, (_, i) => (i % 3 ? "run.created" : "watcher.paused")));
  const all = await read(mine.events.watchEvents({ afterCursor: "0" }), 450);
  expect(all.kinds).toHaveLength(450);
  const some = await read(mine.events.watchEvents({ afterCursor: "0", kinds: ["watcher."] }), 150);
  expect(new Set(some.kinds)).toEqual(new Set(["watcher.paused"]));
});

test("of the devices of a batch of events a member's rights are read at once, and hide what they may not read", async () => {
  const { db } = database;
  const devices = await sql<{ id: string; ownerId: string | null }>`
    with person as (insert into "user" (name) values ('Bea') returning id),
      joined as (insert into member (org_id, user_id, role) select 'acme', id, 'member' from person)
    insert into device (org_id, owner_id, install_id, os, label)
    select 'acme', case when i = 7 then (select id from person) end, 'i' || i, 'linux', 'box ' || i from generate_series(1, 100) i
    returning id, owner_id as "ownerId"`.execute(db);
  const userId = devices.rows.find(({ ownerId }) => ownerId !== null)!.ownerId!;
  const { secret } = await tokens.issue(db, {
    ...{ orgId: "acme", kind: "pat", label: "bea", scopes: ["read"], userId },
  });
  await events.append(
    db,
    "acme",
    devices.rows.map(({ id }) => ({
      ...{ kind: "run.failed", actor: `device:${id}`, deviceId: id, data: { reason: "said" } },
    })),
  );
  const trips = countTrips();
  onTestFinished(() => {
    vi.restoreAllMocks();
  });
  const told: string[] = [];
  let seen = 0;
  for await (const { update } of api.as(secret).events.watchEvents({ afterCursor: "0" })) {
    if (update.case !== "event") continue;
    if (update.value.data?.reason) told.push(update.value.deviceId);
    if (++seen === devices.rows.length) break;
  }
  expect(trips()).toBeLessThan(devices.rows.length / 2);
  expect(told).toEqual(devices.rows.flatMap(({ id, ownerId }) => (ownerId ? [id] : [])));
});

test("what is written through the API wakes whoever watches", async () => {
  const startedAt = performance.now();
  const { kinds } = await read(mine.events.watchEvents({}), 4, async () => {
    await mine.fleet.createJoinCode({});
    await mine.tokens.createToken({ kind: TokenKind.SVC, label: "ci", scopes: ["read"] });
    await mine.watchers.createWatcher({ slug: "nightly", spec: { name: "Nightly", prompt: "look" } });
    await mine.watchers.deleteWatcher({ watcherId: "nightly" });
  });
  expect(kinds).toEqual(["device.join_code_created", "token.created", "watcher.created", "watcher.deleted"]);
  // Far less than the five seconds of the poll interval.
  expect(performance.now() - startedAt).toBeLessThan(3_000);
});

test("a wake-up that was lost is made good by reading again", async () => {
  const stream = mine.events.watchEvents({});
  const { kinds } = await read(stream, 1, () =>
    events.append(database.db, "acme", [{ kind: "test.unheard", actor: "pinion" }]),
  );
  expect(kinds).toEqual(["test.unheard"]);
});

test("lists show the newest first, page by page, and a cursor or a token that is none names its field", async () => {
  await write("test.a", "test.b", "test.c");
  const page = await mine.events.listEvents({ pageSize: 2 });
  expect(page.events.map((event) => event.kind)).toEqual(["test.c", "test.b"]);
  expect(page.events[0]!.data).toEqual({ nested: { n: 1 } });
  const rest = await mine.events.listEvents({ pageSize: 2, pageToken: page.nextPageToken });
  expect(rest.events.map((event) => event.kind)).toEqual(["test.a"]);
  expect(rest.nextPageToken).toBe("");
  await expect(mine.events.listEvents({ pageToken: "W10" })).rejects.toMatchObject({
    code: Code.InvalidArgument,
  });
  const forged = Buffer.from(JSON.stringify(["1; drop table event"])).toString("base64url");
  await expect(mine.events.listEvents({ pageToken: forged })).rejects.toMatchObject({
    code: Code.InvalidArgument,
  });
  await expect(read(mine.events.watchEvents({ afterCursor: "9".repeat(30) }), 1)).rejects.toMatchObject({
    code: Code.InvalidArgument,
  });
  await expect(read(mine.events.watchEvents({ afterCursor: "-1" }), 1)).rejects.toMatchObject({
    code: Code.InvalidArgument,
  });
});
