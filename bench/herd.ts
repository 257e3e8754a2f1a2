/**
 * Everything at :00. Very many watchers of many orgs are due in the same second, a tenth of their
 * devices is connected; one watcher of another org is due a second later, and other watchers of
 * that org are triggered from the moment on. Measures the time until every slot has a row, the time
 * until every connected device has its runs, the delay of the other org's watcher, and of its
 * triggers.
 */
import { newToken, secretHash } from "../src/values/ids.ts";
import type { Bench } from "./lib/bench.ts";
import { type Child, startChild } from "./lib/children.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { percentiles } from "./lib/percentiles.ts";
import { atMost } from "./lib/report.ts";
import { nextYear, seedDevices, seedOrgs, seedServices, seedWatchers } from "./lib/seed.ts";

const full = { watchers: 100_000, devices: 10_000, connected: 1_000, orgs: 100 };
const smoke = { watchers: 2_000, devices: 200, connected: 100, orgs: 10 };
/** Early enough for all slots that can be recorded ahead. */
const dueInMs = 60_000;
const otherIsLaterMs = 1_000;
/** The replica is watched from so many milliseconds before the moment on. */
const watchBeforeMs = 500;
const withinMs = 120_000;
const lookEveryMs = 100;
const triggers = { count: 40, gapMs: 50 };
/** The server's default interval: a session without beats ends before the slots are due. */
const beatMs = 20_000;

type Measured = { frames: { runId: string; dueAt: number; at: number }[] };

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const { triggered, ...measured } = await measureHerd(options, isSmoke ? 4_000 : dueInMs);
  return { options, ...report({ ...measured, triggered: percentiles(triggered) }) };
};

/**
 * `watch` is told of the replica shortly before the moment, and what it returns is called after the
 * last acknowledgement.
 */
export async function measureHerd(
  options: typeof full,
  dueIn: number,
  watch: (replica: Child) => Promise<() => Promise<void>> = async () => async () => {},
) {
  const perDevice = options.watchers / options.devices;
  const cluster = await openCluster();
  try {
    const url = await cluster.database("herd");
    // The last org is the other org: a device and its watchers, and nothing else.
    await seedOrgs(url, options.orgs + 1);
    const devices = await seedDevices(url, {
      ...{ count: options.devices, orgs: options.orgs, slots: Math.min(64, perDevice) },
      tokenOf: () => newToken("dev"),
    });
    await seedWatchers(url, perDevice);
    const other = await seedOther(url, options.orgs);
    const replica = await startChild("replica.ts", { DATABASE_URL: url, PINION_SWEEP_INTERVAL_MS: "2000" });
    const urls = [await replica.ask<string>({ kind: "url" })];
    const load = await startChild("load.ts");
    const connected = { devices: devices.slice(0, options.connected), slots: perDevice };
    await load.ask({ kind: "connect", urls, ...connected, beatMs });
    const otherLoad = await startChild("load.ts");
    await otherLoad.ask({ kind: "connect", urls, devices: [other], slots: triggers.count + 1, beatMs });
    await query(url, "checkpoint");

    const dueAt = new Date(Date.now() + dueIn);
    await makeAllDue(url, { dueAt, otherOrg: `org-${options.orgs}` });
    const recorded = untilRecorded(url, options.watchers + 1 + triggers.count);
    const watching = new Promise((resolve) => setTimeout(resolve, dueIn - watchBeforeMs)).then(() =>
      watch(replica),
    );
    const asked = await triggerFrom(dueAt, { url, replicaUrl: urls[0]!, other, org: options.orgs });
    await otherLoad.ask({ kind: "acknowledged", count: 1 + triggers.count, withinMs });
    const others = (await otherLoad.ask<Measured>({ kind: "measurements" })).frames;
    const frame = others.find((one) => one.dueAt === dueAt.getTime() + otherIsLaterMs);
    const otherLateMs = frame!.at - frame!.dueAt;
    const frameAt = new Map(others.map((one) => [one.runId, one.at]));
    const triggered = asked.map(({ runId, at }) => frameAt.get(runId)! - at);
    await load.ask({ kind: "acknowledged", count: options.connected * perDevice, withinMs });
    await (await watching)();
    const { frames } = await load.ask<Measured>({ kind: "measurements" });
    await recorded;
    const recordedSeconds = ((await lastRecordedAt(url)) - dueAt.getTime()) / 1_000;
    const deliveredSeconds = (Math.max(...frames.map((one) => one.at)) - dueAt.getTime()) / 1_000;
    await load.kill();
    await otherLoad.kill();
    await replica.kill();
    return { recordedSeconds, deliveredSeconds, otherLateMs, triggered, dueAt };
  } finally {
    await cluster.close();
  }
}

function report(measured: {
  recordedSeconds: number;
  deliveredSeconds: number;
  otherLateMs: number;
  triggered: { p50: number; p99: number };
}) {
  const { recordedSeconds, deliveredSeconds, otherLateMs, triggered } = measured;
  return {
    rows: [
      { "": "all slots recorded, s after they are due", value: recordedSeconds },
      { "": "all runs of connected devices delivered, s after", value: deliveredSeconds },
      { "": "the other org's watcher late by, ms", value: otherLateMs },
      { "": "trigger to frame of the other org, p50 ms", value: triggered.p50 },
      { "": "p99", value: triggered.p99 },
    ],
    budgets: [
      atMost("all slots recorded, seconds after they are due", recordedSeconds, 0),
      atMost("all runs of connected devices delivered, seconds after", deliveredSeconds, 1.5),
      atMost("the other org's watcher late by, ms", otherLateMs, 25),
      atMost("trigger to frame of the other org, p99 ms", triggered.p99, 100),
    ],
  };
}

/** All watchers are due at a moment, and the watcher of the other org a little later. */
async function makeAllDue(
  url: string,
  { dueAt, otherOrg }: { dueAt: Date; otherOrg: string },
): Promise<void> {
  await query(
    url,
    `update schedule_position s set next_slot_at = d.at, next_due_at = d.at
    from (select id, case when org_id = $1 then $3::timestamptz else $2::timestamptz end as at from watcher) d
    where d.id = s.watcher_id and s.next_slot_at is not null`,
    [otherOrg, dueAt, new Date(dueAt.getTime() + otherIsLaterMs)],
  );
}

type Asked = { runId: string; at: number };

/** Triggers the other org's watchers, one after another, from the moment on. */
async function triggerFrom(
  moment: Date,
  of: { url: string; replicaUrl: string; other: { watcherIds: string[]; orgId: string }; org: number },
): Promise<Asked[]> {
  const services = await seedServices(of.url, of.org + 1, () => newToken("svc"));
  const callers = await startChild("callers.ts");
  const watchers = of.other.watcherIds.map((id) => ({ orgId: of.other.orgId, id }));
  const gapsMs = watchers.map((_, index) =>
    index === 0 ? Math.max(0, moment.getTime() - Date.now()) : triggers.gapMs,
  );
  const asked = await callers.ask<Asked[]>({
    ...{ kind: "trigger", url: of.replicaUrl, services, watchers, gapsMs },
  });
  await callers.kill();
  return asked;
}

async function seedOther(url: string, org: number) {
  const token = newToken("dev");
  const orgId = `org-${org}`;
  const [device] = (
    await query(
      url,
      `insert into device (org_id, install_id, os, label) values ($1, 'install-other', 'linux', 'other')
      returning id`,
      [orgId],
    )
  ).rows;
  await query(
    url,
    `insert into token (org_id, kind, label, sha256, scopes, device_id) values ($1, 'dev', 'bench', $2, '{device:run}', $3)`,
    [orgId, secretHash(token), device.id],
  );
  const { rows } = await query(
    url,
    `with made as (
      insert into watcher (org_id, slug, name, agent_id, device_id, schedule)
      select $1, 'other-' || i, 'other', 'bench', $2, case when i = 0 then '0 0 1 1 *' end
      from generate_series(0, $3::int) i returning org_id, id, schedule
    ), positions as (
      insert into schedule_position (org_id, watcher_id, next_slot_at, next_due_at)
      select org_id, id, next_at, next_at
      from made, lateral (select case when schedule is not null then ${nextYear} end as next_at) n
    ), revised as (
      insert into watcher_revision (org_id, watcher_id, version, name, prompt)
      select org_id, id, 1, 'other', 'Say hello' from made
    ) select id from made where schedule is null`,
    [orgId, device.id, triggers.count],
  );
  const watcherIds = rows.map((row) => row.id as string);
  return { orgId, deviceId: device.id as string, installId: "install-other", token, watcherIds };
}

/** Resolves when so many slots are rows; seconds later, perhaps. */
async function untilRecorded(url: string, count: number): Promise<void> {
  for (const deadline = Date.now() + withinMs; Date.now() < deadline; ) {
    // The statistics of the table, so that the measurement does not count the rows.
    const { rows } = await query(
      url,
      "select n_tup_ins::int as count from pg_stat_user_tables where relname = 'run'",
    );
    if (rows[0].count >= count) return;
    await new Promise((resolve) => setTimeout(resolve, lookEveryMs));
  }
  throw new Error("the slots were not recorded in time");
}

/** The wall-clock time of the last slot's commit. */
async function lastRecordedAt(url: string): Promise<number> {
  const { rows } = await query(
    url,
    "select (extract(epoch from max(pg_xact_commit_timestamp(xmin))) * 1000)::float8 as at from event_row where kind = 'run.created' and actor = 'pinion'",
  );
  return rows[0].at as number;
}
