import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { sql } from "kysely";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CatchupPolicy, OverlapPolicy, WatcherService, WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import {
  BadRequestSchema,
  RetryInfoSchema,
} from "../../../../src/server/access/interceptors/error-details.ts";
import { useDatabase } from "../../../support/database.ts";
import { addDevice, addTenant, type Tenant } from "../../../support/tenants.ts";
import { type Api, startApi } from "../api.ts";

const database = useDatabase();
let api: Api;
let tenant: Tenant;
let mine: ReturnType<Api["as"]>;

beforeEach(async () => {
  tenant = await addTenant(database.db, "acme");
  api = await startApi(database.db);
  mine = api.as(tenant.secret);
});
afterEach(() => api.stop());

const spec = { name: "Nightly", prompt: "look", schedule: "0 3 * * *" };

/** The code and the field of a failed call's error. */
async function failure(call: Promise<unknown>): Promise<[string, string]> {
  try {
    await call;
    return ["ok", ""];
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    const [detail] = error.findDetails(BadRequestSchema) as unknown as {
      fieldViolations: { field: string }[];
    }[];
    return [Code[error.code]!, detail?.fieldViolations[0]?.field ?? ""];
  }
}

test("a watcher comes back as it was written, with the defaults as values", async () => {
  const { watcher } = await mine.watchers.createWatcher({
    spec: { ...spec, extractionSchema: { type: "object", required: ["a"] } },
  });
  expect(watcher).toMatchObject({
    slug: "nightly",
    version: 1,
    status: WatcherStatus.ACTIVE,
    activeRunId: "",
    spec: {
      ...spec,
      agentId: "pinion-default",
      deviceId: "",
      timeZone: "UTC",
      overlap: OverlapPolicy.SKIP,
      catchup: CatchupPolicy.COLLAPSE,
      catchupWindow: { seconds: 86_400n },
      timeout: { seconds: 3_600n },
      maxAttempts: 1,
      extractionSchema: { type: "object", required: ["a"] },
    },
  });
  expect(watcher!.spec!.startDeadline).toBeUndefined();
  const { watcher: read } = await mine.watchers.getWatcher({ watcherId: "nightly" });
  expect(read).toEqual(watcher);
});

test("what cannot be is refused by the name of its field", async () => {
  const create = (changes: object) => failure(mine.watchers.createWatcher({ spec: { ...spec, ...changes } }));
  const invalid = (field: string) => ["InvalidArgument", field];
  expect(await create({ schedule: "61 * * * *" })).toEqual(invalid("spec.schedule"));
  expect(await create({ schedule: "0 0 31 2 *" })).toEqual(invalid("spec.schedule"));
  expect(await create({ timeZone: "Mars/Base" })).toEqual(invalid("spec.time_zone"));
  expect(await create({ prompt: "x".repeat(1024 * 1024) })).toEqual(invalid("spec.prompt"));
  expect(await create({ prompt: "" })).toEqual(invalid("spec.prompt"));
  expect(await create({ timeout: { seconds: 0n } })).toEqual(invalid("spec.timeout"));
  expect(await create({ extractionSchema: { x: "y".repeat(65_536) } })).toEqual(
    invalid("spec.extraction_schema"),
  );
  expect(await create({ name: "日報" })).toEqual(invalid("slug"));
  expect(await create({ prompt: "nul \u0000" })).toEqual(["InvalidArgument", ""]);
  expect(await failure(mine.watchers.createWatcher({ slug: "No Spaces", spec }))).toEqual(invalid("slug"));
  expect(await failure(mine.watchers.createWatcher({ slug: crypto.randomUUID(), spec }))).toEqual(
    invalid("slug"),
  );
  expect(await failure(mine.watchers.createWatcher({}))).toEqual(invalid("spec"));
  expect(await failure(mine.watchers.listWatchers({ pageToken: "bm9uc2Vuc2U" }))).toEqual(
    invalid("page_token"),
  );
  expect(await failure(mine.watchers.listWatchers({ pageSize: 501 }))).toEqual(invalid("page_size"));
});

test("a refusal over Connect with JSON names its field just as over gRPC", async () => {
  const transport = createConnectTransport({
    baseUrl: api.url,
    httpVersion: "2",
    useBinaryFormat: false,
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${tenant.secret}`);
        return next(request);
      },
    ],
  });
  const { createWatcher } = createClient(WatcherService, transport);
  expect(await failure(createWatcher({ spec: { ...spec, schedule: "61 * * * *" } }))).toEqual([
    "InvalidArgument",
    "spec.schedule",
  ]);
});

test("a slug is taken once, and a repeated request id returns the first one's watcher", async () => {
  const first = await mine.watchers.createWatcher({ spec, requestId: "r-1" });
  const repeat = await mine.watchers.createWatcher({ spec, requestId: "r-1" });
  expect(repeat).toEqual(first);
  expect(await failure(mine.watchers.createWatcher({ spec }))).toEqual(["AlreadyExists", "slug"]);
  expect(await failure(mine.watchers.createWatcher({ spec: { ...spec, agentId: "nobody" } }))).toEqual([
    "NotFound",
    "spec.agent_id",
  ]);
});

test("an update changes the named fields, clears those that are not set, and checks the whole", async () => {
  await mine.watchers.createWatcher({ spec: { ...spec, agentKind: "codex", maxAttempts: 5 } });
  const update = (paths: string[], changes: object = {}, expectedVersion = 0) =>
    mine.watchers.updateWatcher({
      watcherId: "nightly",
      spec: changes,
      updateMask: { paths },
      expectedVersion,
    });
  const { watcher } = await update(["prompt", "agent_kind", "start_deadline"], {
    prompt: "look again",
    name: "not in the mask",
    startDeadline: { seconds: 90n },
  });
  expect(watcher).toMatchObject({
    version: 2,
    spec: {
      name: "Nightly",
      prompt: "look again",
      agentKind: "",
      maxAttempts: 5,
      startDeadline: { seconds: 90n },
    },
  });
  expect(await failure(update(["prompt"]))).toEqual(["InvalidArgument", "spec.prompt"]);
  expect(await failure(update(["schedule"], { schedule: "never" }))).toEqual([
    "InvalidArgument",
    "spec.schedule",
  ]);
  expect(await failure(update(["colour"]))).toEqual(["InvalidArgument", "update_mask"]);
  expect(await failure(update([]))).toEqual(["InvalidArgument", "update_mask"]);
  const overtaken = await update(["name"], { name: "x" }, 1).catch((error) => error as ConnectError);
  expect(overtaken).toMatchObject({ code: Code.Aborted });
  expect((overtaken as ConnectError).findDetails(RetryInfoSchema)).toHaveLength(1);
});

test("a slot that is due when the schedule is edited gets its row first, under the old schedule", async () => {
  const { watcher } = await mine.watchers.createWatcher({ spec });
  const slot = "2026-01-05T03:00:00.000Z";
  await sql`update schedule_position set next_slot_at = ${slot}, next_due_at = ${slot}`.execute(database.db);
  const { watcher: edited } = await mine.watchers.updateWatcher({
    watcherId: watcher!.id,
    spec: { schedule: "0 4 * * *" },
    updateMask: { paths: ["schedule"] },
  });
  expect(timestampDate(edited!.nextSlotAt!).toISOString()).toMatch(/T04:00:00/);
  const { rows: slots } = await sql<{ at: Date }>`
    select scheduled_for as at from run_all where scheduled_for is not null order by scheduled_for`.execute(
    database.db,
  );
  expect(slots[0]!.at.toISOString()).toBe(slot);
  const { events } = await mine.events.listEvents({ pageSize: 500 });
  expect(events[0]!.kind).toBe("watcher.updated");
  expect(events.some((event) => event.kind.startsWith("run."))).toBe(true);
});

test("pause, resume, trigger and delete", async () => {
  const { watcher } = await mine.watchers.createWatcher({ spec });
  const watcherId = watcher!.id;
  const { watcher: paused } = await mine.watchers.pauseWatcher({ watcherId: "nightly", reason: "holidays" });
  expect(paused).toMatchObject({ status: WatcherStatus.PAUSED, pausedReason: "holidays" });
  expect(paused!.nextSlotAt).toBeUndefined();
  const first = await mine.watchers.triggerWatcher({ watcherId: "nightly" });
  expect(first).toMatchObject({ alreadyQueued: false, run: { watcherId } });
  expect(await mine.watchers.triggerWatcher({ watcherId })).toMatchObject({
    alreadyQueued: true,
    run: { id: first.run!.id },
  });
  const { watcher: resumed } = await mine.watchers.resumeWatcher({ watcherId });
  expect(resumed).toMatchObject({ status: WatcherStatus.ACTIVE, activeRunId: first.run!.id });
  expect(resumed!.nextSlotAt).toBeDefined();

  await mine.watchers.deleteWatcher({ watcherId });
  expect(await failure(mine.watchers.getWatcher({ watcherId }))).toEqual(["NotFound", ""]);
  const ended = await database.db.selectFrom("run_finished").select(["id", "status", "reason"]).execute();
  expect(ended).toEqual([{ id: first.run!.id, status: "cancelled", reason: "the watcher was deleted" }]);
});

test("a preview shows the next moments of a watcher or of a schedule, in its zone", async () => {
  const after = timestampFromDate(new Date("2026-03-28T12:00:00Z"));
  const preview = await mine.watchers.previewSchedule({
    schedule: "0 9 * * *",
    timeZone: "Europe/Berlin",
    after,
    count: 2,
  });
  expect(preview.slots.map((slot) => timestampDate(slot).toISOString())).toEqual([
    "2026-03-29T07:00:00.000Z",
    "2026-03-30T07:00:00.000Z",
  ]);
  expect(preview.timeZone).toBe("Europe/Berlin");
  await mine.watchers.createWatcher({ spec });
  expect((await mine.watchers.previewSchedule({ watcherId: "nightly" })).slots).toHaveLength(5);
  expect(await failure(mine.watchers.previewSchedule({ schedule: "61 * * * *" }))).toEqual([
    "InvalidArgument",
    "schedule",
  ]);
  expect(await failure(mine.watchers.previewSchedule({ schedule: "@daily", timeZone: "Mars/Base" }))).toEqual(
    ["InvalidArgument", "time_zone"],
  );
  expect(await failure(mine.watchers.previewSchedule({}))).toEqual(["InvalidArgument", "schedule"]);
  expect(await failure(mine.watchers.previewSchedule({ watcherId: "nightly", schedule: "@daily" }))).toEqual([
    "InvalidArgument",
    "schedule",
  ]);
});

test("a backfill reaches back 366 days, names the end of a span that is too long, and counts its slots", async () => {
  await mine.watchers.createWatcher({ spec: { ...spec, schedule: "0 * * * *" } });
  const day = 86_400_000;
  const hour = Math.floor(Date.now() / 3_600_000) * 3_600_000;
  const backfill = (startAt: number, endAt: number) =>
    mine.watchers.backfillWatcher({
      watcherId: "nightly",
      start: timestampFromDate(new Date(startAt)),
      end: timestampFromDate(new Date(endAt)),
    });
  expect(await failure(backfill(hour - 367 * day, hour - 366 * day))).toEqual(["InvalidArgument", "start"]);
  expect(await failure(backfill(hour - 30 * day, hour))).toEqual(["InvalidArgument", "end"]);
  expect(await backfill(hour - day, hour)).toMatchObject({ slotsAccepted: 24, slotsPresent: 0 });
  expect(await backfill(hour - day, hour)).toMatchObject({ slotsAccepted: 0, slotsPresent: 24 });
  expect(
    await failure(
      mine.watchers.backfillWatcher({
        watcherId: "nightly",
        start: { seconds: 10n ** 15n },
        end: { seconds: 0n },
      }),
    ),
  ).toEqual(["InvalidArgument", "start"]);
});

test("lists go page by page to the end", async () => {
  for (const slug of ["e", "b", "d", "a", "c"]) await mine.watchers.createWatcher({ slug, spec });
  const seen: string[] = [];
  let pageToken = "";
  do {
    const answer = await mine.watchers.listWatchers({ pageSize: 2, pageToken });
    seen.push(...answer.watchers.map((watcher) => watcher.slug));
    pageToken = answer.nextPageToken;
  } while (pageToken !== "");
  expect(seen).toEqual(["a", "b", "c", "d", "e"]);
});

test("another org's things answer not found, whatever is asked of them", async () => {
  const other = await addTenant(database.db, "other");
  const device = await addDevice(database.db, other, { os: "ios" });
  const theirs = api.as(other.secret);
  const { watcher } = await theirs.watchers.createWatcher({ spec });
  const watcherId = watcher!.id;
  const { deviceId } = device;
  const span = { start: timestampFromDate(new Date(Date.now() - 1_000)), end: timestampFromDate(new Date()) };
  const calls: Record<string, () => Promise<unknown>> = {
    getWatcher: () => mine.watchers.getWatcher({ watcherId }),
    getWatcherBySlug: () => mine.watchers.getWatcher({ watcherId: "nightly" }),
    updateWatcher: () =>
      mine.watchers.updateWatcher({
        watcherId,
        spec: { name: "mine" },
        updateMask: { paths: ["name"] },
      }),
    deleteWatcher: () => mine.watchers.deleteWatcher({ watcherId }),
    pauseWatcher: () => mine.watchers.pauseWatcher({ watcherId }),
    resumeWatcher: () => mine.watchers.resumeWatcher({ watcherId }),
    triggerWatcher: () => mine.watchers.triggerWatcher({ watcherId }),
    previewSchedule: () => mine.watchers.previewSchedule({ watcherId }),
    backfillWatcher: () => mine.watchers.backfillWatcher({ watcherId, ...span }),
    createWatcherOnDevice: () => mine.watchers.createWatcher({ spec: { ...spec, deviceId } }),
    getDevice: () => mine.fleet.getDevice({ deviceId }),
    updateDevice: () =>
      mine.fleet.updateDevice({ deviceId, label: "mine", updateMask: { paths: ["label"] } }),
    deleteDevice: () => mine.fleet.deleteDevice({ deviceId }),
    disconnectDevice: () => mine.fleet.disconnectDevice({ deviceId }),
    revokeToken: () => mine.tokens.revokeToken({ tokenId: other.tokenId }),
  };
  for (const [name, call] of Object.entries(calls)) {
    expect([name, (await failure(call()))[0]]).toEqual([name, "NotFound"]);
  }
  expect((await mine.watchers.listWatchers({})).watchers).toEqual([]);
  expect((await mine.watchers.listWatchers({ deviceId })).watchers).toEqual([]);
  expect((await mine.fleet.listDevices({})).devices).toEqual([]);
  expect((await mine.tokens.listTokens({})).tokens.map((token) => token.id)).toEqual([tenant.tokenId]);
  expect((await mine.events.listEvents({})).events).toEqual([]);
  // And nothing happened to them.
  expect((await theirs.watchers.getWatcher({ watcherId })).watcher).toEqual(watcher);
  expect((await theirs.fleet.getDevice({ deviceId })).device?.label).toBe("box");
});

test("a watcher that fires once rests when its slot was recorded, and can be edited and woken", async () => {
  const at = new Date(Date.now() + 86_400_000).toISOString().slice(0, 16);
  const { watcher: made } = await mine.watchers.createWatcher({
    slug: "once",
    spec: { ...spec, schedule: `@at ${at}Z`, timeZone: "Europe/Berlin" },
  });
  expect(made).toMatchObject({ status: WatcherStatus.ACTIVE, spec: { schedule: `@at ${at}Z` } });
  expect(timestampDate(made!.nextSlotAt!).toISOString().slice(0, 16)).toBe(at);
  // The day has come: the slot was recorded, and the schedule has moved on to none.
  await sql`
    with passed as (
      update schedule_position set next_slot_at = null, next_due_at = null where watcher_id = ${made!.id}
    )
    update watcher set schedule = '@at 2026-01-01T09:00Z' where id = ${made!.id}`.execute(database.db);
  const watcherId = "once";
  expect((await mine.watchers.getWatcher({ watcherId })).watcher!.status).toBe(WatcherStatus.RESTING);
  const renamed = await mine.watchers.updateWatcher({
    watcherId,
    spec: { name: "Renamed" },
    updateMask: { paths: ["name"] },
  });
  expect(renamed.watcher).toMatchObject({ status: WatcherStatus.RESTING, spec: { name: "Renamed" } });
  const past = {
    watcherId,
    spec: { schedule: "@at 2026-01-02T09:00Z" },
    updateMask: { paths: ["schedule"] },
  };
  expect(await failure(mine.watchers.updateWatcher(past))).toEqual(["InvalidArgument", "spec.schedule"]);
  const woken = await mine.watchers.updateWatcher({
    watcherId,
    spec: { schedule: "@every 90m" },
    updateMask: { paths: ["schedule"] },
  });
  expect(woken.watcher!.status).toBe(WatcherStatus.ACTIVE);
});

test("slots that are closer than the org's floor are refused", async () => {
  const create = (schedule: string) =>
    mine.watchers.createWatcher({ slug: "fast", spec: { ...spec, schedule } });
  await sql`update org set metadata = metadata || '{"interval_min_ms": 60000}'`.execute(database.db);
  expect(await failure(create("*/30 * * * * *"))).toEqual(["InvalidArgument", "spec.schedule"]);
  expect(await failure(create("@every 59s"))).toEqual(["InvalidArgument", "spec.schedule"]);
  expect(await failure(create("* * * * *"))).toEqual(["ok", ""]);
});
