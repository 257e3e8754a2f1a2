import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { type Clients, connectDevice, Os, OverlapPolicy, TokenKind } from "@pinion/client";
import type { FaultProxy } from "../../support/fault-proxy.ts";
import type { Random } from "../../support/random.ts";
import { realNow } from "../clock.ts";
import type { HostDevice } from "../host/main.ts";
import { type Caller, cronOf } from "./calls.ts";
import type { Network } from "./network.ts";
import { anyWorker, everySeconds, promptFor, type RigWatcher } from "./workload.ts";

export const orgNames = ["north", "south", "east"] as const;
const workersPerOrg = 2;
const tasksAtOnce = 8;

/** A device or a fleet worker of the rig. */
export type Enrolled = { org: string; device: HostDevice; proxy: FaultProxy; isWorker: boolean };

type Places = {
  clients: ReadonlyMap<string, Clients>;
  directory: string;
  random: Random;
  count: number;
  network: Network;
};

const slotsOf = (random: Random) => random.pick([1, 1, 2, 3]);

/** Devices, dealt out to the orgs in turn. */
export async function enrolDevices(options: Places): Promise<Enrolled[]> {
  const { clients, random, network } = options;
  const wanted = Array.from({ length: options.count }, (_, index) => ({
    index,
    org: orgNames[index % orgNames.length]!,
    slots: slotsOf(random),
  }));
  const enrolments = wanted.map(({ index, org, slots }) => async () => {
    const proxy = await network.addProxy();
    const installId = randomUUID();
    const { fleet, device } = clients.get(org)!;
    const { joinCode } = await fleet.createJoinCode({});
    const { deviceId, token } = await device.enroll({
      joinCode,
      installId,
      label: `device-${index + 1}`,
      os: Os.LINUX,
    });
    const stateDir = join(options.directory, `device-${index + 1}`);
    // Child programs cost far more than functions; a tenth of the devices is enough to cover
    // them.
    const isDaemon = index % 10 === 9;
    const url = proxy.url;
    return {
      org,
      proxy,
      isWorker: false,
      device: { deviceId, installId, token, url, stateDir, slots, isDaemon },
    };
  });
  return someAtOnce(enrolments);
}

/**
 * Fleet workers, two to an org, each with a token of its own. The first hello of a worker makes its
 * row, and so its id.
 */
export async function enterWorkers(options: Places): Promise<Enrolled[]> {
  const { clients, random, network } = options;
  const wanted = Array.from({ length: options.count }, (_, index) => ({
    index,
    org: orgNames[Math.floor(index / workersPerOrg) % orgNames.length]!,
    slots: slotsOf(random),
  }));
  const entries = wanted.map(({ index, org, slots }) => async () => {
    const proxy = await network.addProxy();
    const { secret: token } = await clients.get(org)!.tokens.createToken({
      label: `worker-${index + 1}`,
      kind: TokenKind.SVC,
      scopes: ["fleet:run"],
    });
    const stateDir = join(options.directory, `worker-${index + 1}`);
    const named = { installId: randomUUID(), token, url: proxy.url, stateDir };
    const deviceId = await enter(named);
    return { org, proxy, isWorker: true, device: { ...named, deviceId, slots, isDaemon: false } };
  });
  return someAtOnce(entries);
}

/** Connects a worker until its welcome; resolves to its id. */
async function enter(worker: {
  installId: string;
  token: string;
  url: string;
  stateDir: string;
}): Promise<string> {
  const { promise: deviceId, resolve } = Promise.withResolvers<string>();
  const connection = connectDevice({
    ...worker,
    os: Os.LINUX,
    agentKinds: ["chaos"],
    onAssignment: () => Promise.reject(new Error("a worker without watchers was given work")),
    onEvent: (event) => event.type === "connected" && resolve(event.deviceId),
  });
  const failed = connection.closed.then(() => Promise.reject(new Error("the worker's connection ended")));
  try {
    return await Promise.race([deviceId, failed]);
  } finally {
    failed.catch(() => {});
    await connection.close();
  }
}

/** Runs the tasks, a few at once; resolves to their results in order. */
export async function someAtOnce<T>(tasks: readonly (() => Promise<T>)[]): Promise<T[]> {
  const results: T[] = [];
  for (let at = 0; at < tasks.length; at += tasksAtOnce) {
    results.push(...(await Promise.all(tasks.slice(at, at + tasksAtOnce).map((task) => task()))));
  }
  return results;
}

/**
 * For each device one watcher with a schedule and one without, pinned to the device; for each
 * worker two that are pinned to no device.
 */
export async function createWatchers(options: {
  clients: ReadonlyMap<string, Clients>;
  caller: Caller;
  random: Random;
  fleet: readonly Enrolled[];
  every: number | undefined;
}): Promise<RigWatcher[]> {
  const { clients, caller, random } = options;
  const makers = { clients, caller };
  const drafts: (() => Promise<RigWatcher>)[] = [];
  for (const enrolled of options.fleet) {
    const common = { maxAttempts: random.whole(1, 3), queues: random.chance(0.5) };
    const every = options.every ?? random.pick(everySeconds);
    const jitterMs = random.chance(0.3) ? 2_000 : 0;
    const deadlineMs = random.chance(0.2) ? 15_000 : 0;
    const isEdited = options.every === undefined && random.chance(0.3);
    const manual = { ...common, every: null, jitterMs: 0, isEdited: false, deadlineMs: 0 };
    drafts.push(
      () =>
        createWatcher(makers, enrolled, "scheduled", { ...common, every, jitterMs, isEdited, deadlineMs }),
      () => createWatcher(makers, enrolled, "manual", manual),
    );
  }
  return someAtOnce(drafts);
}

async function createWatcher(
  { clients, caller }: { clients: ReadonlyMap<string, Clients>; caller: Caller },
  { org, device, isWorker }: Enrolled,
  kind: "scheduled" | "manual",
  values: {
    every: number | null;
    jitterMs: number;
    isEdited: boolean;
    maxAttempts: number;
    queues: boolean;
    deadlineMs: number;
  },
): Promise<RigWatcher> {
  const slug = `${kind}-${device.deviceId}`;
  const deviceId = isWorker ? "" : device.deviceId;
  const addressee = isWorker ? anyWorker : deviceId;
  const { every, jitterMs, isEdited } = values;
  const made = await caller.call(
    org,
    { method: "createWatcher", device: deviceId, every, jitterMs, slug },
    () =>
      clients.get(org)!.watchers.createWatcher({
        slug,
        requestId: slug,
        spec: {
          name: slug,
          prompt: promptFor(addressee, 1),
          deviceId,
          schedule: cronOf(every),
          overlap: values.queues ? OverlapPolicy.QUEUE_ONE : OverlapPolicy.SKIP,
          jitter: durationFromMs(jitterMs),
          timeout: durationFromMs(10_000),
          maxAttempts: values.maxAttempts,
          ...(values.deadlineMs > 0 ? { startDeadline: durationFromMs(values.deadlineMs) } : {}),
        },
      }),
    ({ watcher }) => ({ watcher: watcher!.id }),
  );
  if (!made) throw new Error(`the watcher ${slug} was refused`);
  return { id: made.watcher!.id, org, device: addressee, every, isEdited, createdAt: realNow() };
}
