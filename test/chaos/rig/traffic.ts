import { randomUUID } from "node:crypto";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Clients } from "@pinion/client";
import { NotifyWhen } from "#gen/pinion/v1/destination_pb.js";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { OverlapPolicy } from "#gen/pinion/v1/watcher_pb.js";
import type { Random } from "../../support/random.ts";
import type { Record } from "../history.ts";
import type { TrafficRows } from "../traffic.ts";
import type { Cluster } from "./cluster.ts";
import { promptFor } from "./workload.ts";

/**
 * A receiver of messages, watchers that follow others and tell the receiver, and a sender that
 * posts to hooks until its posts are answered.
 */
export type Traffic = {
  /** `errors`: every message is refused with 500 at its first try. */
  behave(how: Behaviour): void;
  /** Stops the sender; its last posts are answered before. */
  stop(): Promise<void>;
  close(): Promise<void>;
};

export type Behaviour = "well" | "down" | "slow" | "errors";

const slowMs = 3_000;
/** Between two posts to a hook, in ms. */
const postsEveryMs = 6_000;
const postDeadlineMs = 8_000;
const againMs = 300;

type Place = { org: string; deviceId: string };

export async function openTraffic(options: {
  clients: ReadonlyMap<string, Clients>;
  random: Random;
  /** Each device has a watcher `scheduled-<device>`, which is followed. */
  places: readonly Place[];
  /** The address for senders. */
  url: string;
  record: Record;
}): Promise<Traffic> {
  const receiver = await openReceiver(options.record);
  const hooks: { id: string; secret: string }[] = [];
  for (const org of new Set(options.places.map((place) => place.org))) {
    await options.clients.get(org)!.destinations.createDestination({
      slug: "receiver",
      spec: { name: "receiver", kind: { case: "webhook", value: { url: receiver.url } } },
    });
  }
  for (const { org, deviceId } of options.places) {
    const { watchers, hooks: hookClient } = options.clients.get(org)!;
    const common = {
      ...{ prompt: promptFor(deviceId, 1), deviceId, timeout: durationFromMs(10_000) },
      ...{ overlap: OverlapPolicy.QUEUE_ALL, notify: [{ to: "receiver", when: NotifyWhen.ALWAYS }] },
    };
    const name = `follower-${deviceId}`;
    const after = [`scheduled-${deviceId}`];
    await watchers.createWatcher({ slug: name, spec: { ...common, name, after } });
    const hooked = `hooked-${deviceId}`;
    await watchers.createWatcher({ slug: hooked, spec: { ...common, name: hooked } });
    const secret = randomUUID();
    const spec = { watcherId: hooked, kind: HookKind.BEARER, ratePerMinute: 6_000 };
    await hookClient.createHook({ slug: hooked, spec, secret });
    const { hook } = await hookClient.getHook({ hookId: hooked });
    hooks.push({ id: hook!.id, secret });
  }
  const [stopping, closing] = [new AbortController(), new AbortController()];
  const signals = { stop: stopping.signal, end: closing.signal };
  const senders = hooks.map((hook) => send(hook, { ...options, ...signals }));
  const stop = async () => {
    stopping.abort();
    await Promise.all(senders);
  };
  return {
    behave: receiver.behave,
    stop,
    async close() {
      // After a failure no replica may be left that answers.
      closing.abort();
      await stop();
      await receiver.close();
    },
  };
}

async function openReceiver(record: Record) {
  let how: Behaviour = "well";
  const tried = new Set<string>();
  async function answer(delivery: string, response: ServerResponse): Promise<number> {
    const isFirst = !tried.has(delivery);
    tried.add(delivery);
    if (how === "slow") await delay(slowMs);
    if (how === "down") {
      response.destroy();
      return 0;
    }
    const status = how === "errors" && isFirst ? 500 : 200;
    response.writeHead(status).end();
    return status;
  }
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("error", () => {});
    response.on("error", () => {});
    request.on("end", async () => {
      const { data } = JSON.parse(Buffer.concat(chunks).toString("utf8")) as {
        data: { run?: { id: string }; watcher?: { id: string } };
      };
      const delivery = String(request.headers["webhook-id"]);
      const status = await answer(delivery, response);
      const { run, watcher } = data;
      if (run && watcher) record({ kind: "received", delivery, run: run.id, watcher: watcher.id, status });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    behave(next: Behaviour) {
      how = next;
    },
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/**
 * Posts to a hook; each delivery is repeated until an answer of 202, and at times once more.
 * `stop`: no further deliveries; `end`: no further posts either.
 */
async function send(
  { id, secret }: { id: string; secret: string },
  options: { random: Random; url: string; record: Record; stop: AbortSignal; end: AbortSignal },
): Promise<void> {
  const { random, record, stop, end } = options;
  async function post(key: string): Promise<void> {
    while (!end.aborted) {
      try {
        const response = await fetch(`${options.url}/hooks/${id}`, {
          method: "POST",
          body: JSON.stringify({ key }),
          headers: { authorization: `Bearer ${secret}`, "idempotency-key": key, connection: "close" },
          signal: AbortSignal.any([end, AbortSignal.timeout(postDeadlineMs)]),
        });
        const { run_id: run = null } = (await response.json()) as { run_id?: string };
        if (response.status === 202) return record({ kind: "posted", hook: id, key, run });
      } catch {
        // No answer: the delivery may have been taken in all the same.
      }
      await delay(againMs);
    }
  }
  while (!stop.aborted) {
    await delay(postsEveryMs * (0.5 + random.next()), undefined, { signal: stop }).catch(() => {});
    if (stop.aborted) return;
    const key = randomUUID();
    record({ kind: "posting", hook: id, key });
    // A sender that lost the answer sends again while the first post is under way.
    await Promise.all(random.chance(0.4) ? [post(key), post(key)] : [post(key)]);
    if (random.chance(0.2)) await post(key);
  }
}

/** Pending messages that are due within the time of a settling rig. */
export const pendingDeliveries = "select count(*)::int from delivery where state = 'pending'";

export async function readTraffic(cluster: Cluster): Promise<TrafficRows> {
  const json = async <T>(text: string) => (await cluster.query<{ row: T }>(text)).map(({ row }) => row);
  return {
    starts: await json(`
      select jsonb_build_object('run', run_id, 'watcher', watcher_id, 'hookDelivery', hook_delivery_id,
        'after', after_run_id, 'isRetry', is_retry) as row from run_start`),
    hookDeliveries: await json(`
      select jsonb_build_object('id', id, 'hook', hook_id, 'key', delivery_key, 'outcome', outcome, 'run', run_id) as row
      from hook_delivery`),
    deliveries: await json(`
      select jsonb_build_object('id', id, 'watcher', watcher_id, 'run', run_id, 'kind', kind, 'seq', seq, 'state', state) as row
      from delivery where kind like 'run.%'`),
    followers: await json(`
      select jsonb_build_object('watcher', watcher_id, 'after', after_id) as row from watcher_after`),
    told: (await cluster.query<{ id: string }>("select id from watcher where notify is not null")).map(
      ({ id }) => id,
    ),
  };
}
