/**
 * What comes in and goes out: the time of a hook's answer, and what chains, destinations, groups
 * and selectors cost. Each is measured beside the same work without, on the same replica.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createClients } from "@pinion/client";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { newToken } from "../src/values/ids.ts";
import type { Bench } from "./lib/bench.ts";
import { startChild } from "./lib/children.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { percentiles, poissonGaps } from "./lib/percentiles.ts";
import { atMost, type Row } from "./lib/report.ts";
import { seedServices } from "./lib/seed.ts";
import { type LifecycleResult, openLifecycle, runLifecycle } from "./lifecycle.ts";

/** `held`: runs that are held by a group and a rate limit while others are claimed. */
const full = {
  devices: 1_000,
  runs: 5_000,
  posts: 1_500,
  postsPerSecond: 50,
  triggers: 200,
  perSecond: 20,
  held: 200,
};
const smoke = {
  devices: 50,
  runs: 200,
  posts: 60,
  postsPerSecond: 30,
  triggers: 30,
  perSecond: 20,
  held: 20,
};
const orgs = 5;
const hooks = 50;
const answerMsWanted = 50;
const withinMs = 60_000;

type Options = typeof full;
type Opened = Awaited<ReturnType<typeof openLifecycle>>;

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  const receiver = createServer((request, response) => {
    request.resume().on("end", () => response.end());
  });
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  // Read by the replica, which inherits the environment.
  process.env.PINION_DESTINATION_NETWORKS = "127.0.0.0/8";
  process.env.PINION_SECRET_KEYS = `bench:${Buffer.alloc(32, 7).toString("base64")}`;
  try {
    const opened = await openLifecycle(cluster, "in_and_out", { ...options, orgs });
    const { url } = opened;
    await runLifecycle(cluster, opened);
    const plain = await runLifecycle(cluster, opened);
    const services = await seedServices(url, orgs, () => newToken("svc"));
    const answers = await measureHooks(opened, services, options);
    const base = await measureTriggers(opened, services, options);
    await holdRuns(opened, services, options);
    const beside = await measureTriggers(opened, services, options);
    await removeHeld(url);
    const selected = await measureSelected(opened, services, options);
    await addDestinations(opened, (receiver.address() as AddressInfo).port);
    const told = await runLifecycle(cluster, opened);
    await query(url, "update watcher set notify = null");
    await addFollowers(url);
    const followed = await runLifecycle(cluster, opened);
    await opened.close();
    const row = (milliseconds: string, { p50, p99, max }: ReturnType<typeof percentiles>): Row => ({
      ...{ milliseconds, p50, p99, max },
    });
    return {
      options,
      rows: [
        row("a hook's post to its answer", answers),
        row("trigger to frame", base),
        row(`trigger to frame, ${options.held} runs are held by a group and a rate limit`, beside),
        row(`trigger to frame, ${options.devices} devices by a selector`, selected),
        costs("a run", plain),
        costs("a run that is told to a webhook", told),
        costs("a run that starts a follower (two runs)", followed),
      ],
      budgets: [
        atMost("hook's answer, p99 ms", answers.p99, answerMsWanted),
        atMost("claims beside held runs, p50 times", beside.p50 / base.p50, 1.3),
        atMost("a destination, times the cost of a run", all(told) / all(plain), 1.6),
      ],
    };
  } finally {
    receiver.close();
    receiver.closeAllConnections();
    await cluster.close();
  }
};

const all = ({ cpu }: LifecycleResult) => cpu.server + cpu.postgres;

function costs(name: string, { cpu, runsPerSecond, walKiB }: LifecycleResult): Row {
  return {
    milliseconds: name,
    "per second": runsPerSecond,
    "server s/1000": cpu.server,
    "postgres s/1000": cpu.postgres,
    "WAL KiB": walKiB,
  };
}

type Services = Awaited<ReturnType<typeof seedServices>>;

/** Posts at the arrivals of a Poisson process; returns the times of the answers. */
async function measureHooks(opened: Opened, services: Services, options: Options) {
  const { orgId, token } = services[0]!;
  const clients = createClients({ url: opened.replicaUrl, token });
  const { rows } = await query(opened.url, "select id from watcher where org_id = $1 order by id limit $2", [
    orgId,
    hooks,
  ]);
  const made = [];
  for (const { id } of rows) {
    const spec = { watcherId: id as string, kind: HookKind.BEARER, ratePerMinute: 6_000 };
    made.push(await clients.hooks.createHook({ spec }));
  }
  const gaps = poissonGaps(options.postsPerSecond, 7);
  const times: number[] = [];
  const posts: Promise<void>[] = [];
  let at = performance.now();
  for (let index = 0; index < options.posts; index++) {
    at += gaps.next().value as number;
    const leftMs = at - performance.now();
    if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs));
    const { url, secret } = made[index % made.length]!;
    const from = performance.now();
    const post = fetch(`${opened.replicaUrl}${url}`, {
      method: "POST",
      body: JSON.stringify({ index, commits: [{ id: "a".repeat(40), message: "m".repeat(500) }] }),
      headers: { authorization: `Bearer ${secret}`, "idempotency-key": `post-${index}` },
    }).then(async (response) => {
      if (response.status !== 202)
        throw new Error(`a hook answered ${response.status}: ${await response.text()}`);
      await response.arrayBuffer();
      times.push(performance.now() - from);
    });
    posts.push(post);
  }
  await Promise.all(posts);
  clients.close();
  await untilIdle(opened.url);
  // The first posts warm up connections and plans.
  return percentiles(times.slice(Math.floor(times.length / 10)));
}

async function untilIdle(url: string): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (performance.now() < deadline) {
    const { rows } = await query(url, "select count(*)::int as live from run where not is_held");
    if (rows[0].live === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("runs are left");
}

/** Triggers watchers of devices without waiting runs; returns the times from call to frame. */
async function measureTriggers(opened: Opened, services: Services, options: Options) {
  const { rows } = await query(
    opened.url,
    `select org_id as "orgId", id from watcher where slug like 'w-%' and not exists (
      select from run r where r.org_id = watcher.org_id and r.watcher_id = watcher.id)
    order by id desc limit $1`,
    [options.triggers],
  );
  return triggered(opened, services, rows as { orgId: string; id: string }[], options);
}

async function triggered(
  opened: Opened,
  services: Services,
  watchers: { orgId: string; id: string }[],
  options: Options,
) {
  await opened.load.ask({ kind: "reset" });
  const gaps = poissonGaps(options.perSecond, 11);
  const gapsMs = watchers.map(() => gaps.next().value as number);
  const callers = await startChild("callers.ts");
  const asked = await callers.ask<{ runId: string; at: number }[]>({
    ...{ kind: "trigger", url: opened.replicaUrl, services, watchers, gapsMs },
  });
  await opened.load.ask({ kind: "acknowledged", count: watchers.length, withinMs });
  const { frames } = await opened.load.ask<{ frames: { runId: string; at: number }[] }>({
    kind: "measurements",
  });
  await callers.kill();
  const frameAt = new Map(frames.map((frame) => [frame.runId, frame.at]));
  return percentiles(
    asked.slice(Math.floor(asked.length / 10)).map(({ runId, at }) => frameAt.get(runId)! - at),
  );
}

/** Runs that are held: of one key, of which one run begins a minute. */
async function holdRuns(opened: Opened, services: Services, { held }: Options): Promise<void> {
  const { orgId, token } = services[0]!;
  const clients = createClients({ url: opened.replicaUrl, token });
  const { rows } = await query(opened.url, "select id from device where org_id = $1 limit 1", [orgId]);
  const spec = { prompt: "x", agentId: "bench", deviceId: rows[0].id as string, group: { name: "crowd" } };
  for (let index = 0; index < held; index++) {
    const rateLimit = { key: "crowd", perMinute: 1 };
    const { watcher } = await clients.watchers.createWatcher({
      spec: { ...spec, name: `waits ${index}`, rateLimit },
    });
    await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  }
  clients.close();
}

async function removeHeld(url: string): Promise<void> {
  await query(url, "delete from run where is_held");
  await query(url, "delete from watcher where slug like 'waits-%'");
}

/** Watchers that select among all devices of their org. */
async function measureSelected(opened: Opened, services: Services, options: Options) {
  const clients = new Map(
    services.map(({ orgId, token }) => [orgId, createClients({ url: opened.replicaUrl, token })]),
  );
  const watchers = [];
  for (let index = 0; index < options.triggers; index++) {
    const { orgId } = services[index % services.length]!;
    const { watcher } = await clients.get(orgId)!.watchers.createWatcher({
      spec: { name: `selects ${index}`, prompt: "x", agentId: "bench", selector: 'os == "linux"' },
    });
    watchers.push({ orgId, id: watcher!.id });
  }
  for (const one of clients.values()) one.close();
  const times = await triggered(opened, services, watchers, options);
  await query(opened.url, "delete from watcher where id = any($1::uuid[])", [watchers.map(({ id }) => id)]);
  return times;
}

async function addDestinations(opened: Opened, port: number): Promise<void> {
  // Tokens of their own: the scopes of a used token are kept for a while.
  const admins = await seedServices(opened.url, orgs, () => newToken("svc"));
  await query(opened.url, "update token set scopes = '{read,write,admin}' where kind = 'svc'");
  for (const { token } of admins) {
    const clients = createClients({ url: opened.replicaUrl, token });
    const kind = { case: "webhook" as const, value: { url: `http://127.0.0.1:${port}/` } };
    await clients.destinations.createDestination({
      slug: "bench",
      spec: { name: "bench", takesAlerts: false, kind },
    });
    clients.close();
  }
  await query(opened.url, `update watcher set notify = '[{"to": "bench", "when": "always"}]'`);
}

/** For each watcher with a schedule another one that follows, pinned to the same device. */
async function addFollowers(url: string): Promise<void> {
  await query(
    url,
    `with made as (
      insert into watcher (org_id, slug, name, agent_id, device_id, overlap)
      select org_id, 'f-' || slug, 'follows ' || id, 'bench', device_id, 'skip' from watcher where schedule is not null
      returning org_id, id, name
    ), positions as (
      insert into schedule_position (org_id, watcher_id) select org_id, id from made
    ), revised as (
      insert into watcher_revision (org_id, watcher_id, version, name, prompt) select org_id, id, 1, 'bench', 'x' from made
    )
    insert into watcher_after (org_id, watcher_id, after_id)
    select org_id, id, substr(name, 9)::uuid from made`,
  );
}
