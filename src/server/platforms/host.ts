/**
 * Instances of platforms on a replica. A running platform has one instance, on the replica with its
 * lease (P5): the instance asks for messages and sends replies. A platform that sends messages to
 * our port reaches any replica, whose line to the platform then only takes them in.
 *
 *   running, without a lease ──taken by a pass──▶ instance ──lease lost, stopped──▶ closed
 *   StartPlatform ──probe, lease, open──▶ instance
 */
import { within } from "../../abort.ts";
import { Refusal } from "../../errors.ts";
import { excerpt } from "../../excerpt.ts";
import type { Logger } from "../../log.ts";
import type { Doorbell } from "../../scheduler/doorbell.ts";
import { type Loop, startLoop } from "../../scheduler/loop.ts";
import type { QuestionBell } from "../../scheduler/questions.ts";
import * as leases from "../../store/agents/platform-leases.ts";
import * as replies from "../../store/agents/platform-replies.ts";
import * as starts from "../../store/agents/platform-starts.ts";
import type * as platforms from "../../store/agents/platforms.ts";
import type { Quotas } from "../../store/people/quotas.ts";
import type { Db } from "../../store/pg/database.ts";
import { wordsOf } from "../destinations/answer.ts";
import type { ToPlatform } from "../destinations/sender.ts";
import { createEar } from "./ear.ts";
import { type Line, PlatformRefused } from "./lines/line.ts";
import type { Lines } from "./lines/lines.ts";
import { createNews } from "./news.ts";
import { answer } from "./replier.ts";
import { mask, openSecrets, type SecretSources } from "./secrets.ts";
import { createSpeakers, type Speakers } from "./speakers.ts";
import { partsOf, type SpeechFeed } from "./speech.ts";
import type { PlatformStarter, StartablePlatform } from "./starter.ts";

/** Platforms taken per pass, so that replicas share what a lost replica left. */
const takenPerPassMax = 50;
/** Platforms opened at once by a pass. */
const openedAtOnceMax = 8;
/** Milliseconds that opening an instance may take. */
const openMs = 20_000;
/** Milliseconds until the next try after a failed taking over. */
const retryMs = 15_000;
/** Replies under way on a replica. */
const repliesMax = 500;
/** Milliseconds between passes over owed replies without a wake-up. */
const repliesSweepMs = 5_000;
/** Milliseconds between looks at a lease that another replica is to give back. */
const lookMs = 50;
/** Milliseconds that closing an instance may take. */
const closeMs = 5_000;

export type PlatformHost = PlatformStarter & {
  /** Lines of this replica that only speak and take messages in. */
  speakers: Speakers;
  /** For destinations. */
  post: ToPlatform;
  /** A hint of another replica. */
  poke(hint: PlatformHint): void;
  /** Gives all leases back. */
  close(): Promise<void>;
};

export type HostDeps = SecretSources & {
  /** Across orgs. */
  db: Db;
  log: Logger;
  replicaId: string;
  ttlMs: number;
  lines: Lines;
  feed: SpeechFeed & { eventsAppended(orgId: string): void };
  quotas: Quotas;
  bell: Pick<Doorbell, "turnStarted"> & QuestionBell;
  publicUrl: string | undefined;
  /** Tells all other replicas. */
  announce(hint: PlatformHint): void;
};

/** News between replicas, which may be lost: a reply is owed, or the platform starts or stops. */
export type PlatformHint = { orgId: string; stableId: string; about: "reply" | "state" };

type Instance = {
  platform: StartablePlatform;
  lease: leases.Lease;
  line: Line;
  /** Milliseconds of the replica's own clock at which the lease may be another's. */
  validUntil: number;
  stopping: AbortController;
  atWork: Map<string, Promise<void>>;
};

const keyOf = ({ orgId, stableId }: { orgId: string; stableId: string }) => `${orgId} ${stableId}`;

export function createPlatformHost(deps: HostDeps): PlatformHost {
  const { db, log, replicaId, ttlMs, lines } = deps;
  const instances = new Map<string, Instance>();
  /** Ends one at a time: an instance that is closed gives its lease back after that. */
  const closing = new Map<string, Promise<void>>();
  const news = createNews({ db, log });
  let isClosed = false;

  const earOf = (platform: StartablePlatform) =>
    createEar({
      ...deps,
      platform,
      news,
      onOwed: () => {
        const { orgId, stableId } = platform;
        if (instances.has(keyOf(platform))) repliesLoop.poke();
        else deps.announce({ orgId, stableId, about: "reply" });
      },
    });
  const speakers = createSpeakers({ ...deps, earOf });

  /** Opens the instance of a lease; the lease is the caller's to give back. */
  async function open(platform: StartablePlatform, lease: leases.Lease, validUntil: number) {
    const line = await lines.open(platform, { listens: true, ear: earOf(platform) });
    const stopping = new AbortController();
    instances.set(keyOf(platform), { platform, lease, line, validUntil, stopping, atWork: new Map() });
    log.info({ ...lease, kind: platform.kind }, "an instance of a platform runs here");
    repliesLoop.poke();
  }

  /** Closes an instance, and gives its lease back if it still is this replica's. Never rejects. */
  function end(instance: Instance, { isOwn }: { isOwn: boolean }): Promise<void> {
    const key = keyOf(instance.platform);
    if (instances.get(key) === instance) instances.delete(key);
    instance.stopping.abort();
    const ended = (async () => {
      try {
        await within(Promise.all([instance.line.close(), ...instance.atWork.values()]), closeMs);
        if (isOwn) await leases.release(db, [instance.lease]);
      } catch (error) {
        log.warn({ ...instance.lease, err: error }, "an instance of a platform was not closed in order");
      }
    })();
    closing.set(key, ended);
    return ended.finally(() => {
      if (closing.get(key) === ended) closing.delete(key);
    });
  }

  async function renew(): Promise<void> {
    const local = [...instances.values()];
    const from = performance.now();
    const kept = await leases.renew(db, { replicaId, ttlMs, leases: local.map(({ lease }) => lease) });
    const own = new Set(kept.map((lease) => `${keyOf(lease)} ${lease.epoch}`));
    for (const instance of local) {
      if (own.has(`${keyOf(instance.lease)} ${instance.lease.epoch}`)) instance.validUntil = from + ttlMs;
      // Stopped, deleted, started anew, or taken by another replica.
      else void end(instance, { isOwn: true });
    }
  }

  async function takeOver(): Promise<number> {
    const from = performance.now();
    const taken = await leases.takeAbandoned(db, {
      ...{ replicaId, ttlMs, kinds: lines.kinds, limit: takenPerPassMax },
    });
    const left = [...taken];
    const work = Array.from({ length: Math.min(openedAtOnceMax, left.length) }, async () => {
      for (let one = left.shift(); one; one = left.shift()) await resume(one, from + ttlMs);
    });
    await Promise.all(work);
    return taken.length;
  }

  /** Opens an instance in place of the one that another replica had. */
  async function resume(
    { platform: row, ...lease }: leases.Lease & { platform: platforms.Platform },
    until: number,
  ) {
    let secrets: Record<string, string> = {};
    try {
      await closing.get(keyOf(lease));
      secrets = openSecrets(deps, row);
      const platform = startableOf(row, secrets);
      await lines.probe(platform, AbortSignal.timeout(openMs));
      await open(platform, lease, until);
    } catch (error) {
      const reason = mask(wordsOf(error), secrets);
      if (isFinal(error)) {
        await starts.fail(db, { ...lease, startEpoch: row.epoch, reason });
        deps.feed.eventsAppended(lease.orgId);
      } else {
        await leases.note(db, [{ ...lease, error: reason }]);
      }
      await leases.release(db, [lease], { retryInMs: retryMs });
      log.warn({ ...lease, reason }, "an instance of a platform could not be taken over");
    }
  }

  async function passReplies(): Promise<number> {
    const valid = [...instances.values()].filter(isValid);
    const atWork = valid.flatMap((instance) => [...instance.atWork.keys()]);
    const own = valid.map(({ lease }) => lease);
    const due = await replies.listDue(db, { leases: own, atWork, limit: repliesMax - atWork.length });
    for (const owed of due) {
      const instance = instances.get(keyOf(owed));
      if (!instance) continue;
      const { platform, line, lease, stopping } = instance;
      const work = answer(
        {
          ...{ db, log, feed: deps.feed, line, lease, publicUrl: deps.publicUrl, signal: stopping.signal },
          mask: (text) => mask(text, platform.secrets),
          said: () => news.said(platform),
          trouble: (what) => news.trouble(platform, mask(what, platform.secrets)),
        },
        owed,
      ).finally(() => {
        instance.atWork.delete(owed.turnId);
        repliesLoop.poke();
      });
      instance.atWork.set(owed.turnId, work);
    }
    return Math.min(Math.max((await replies.findNextDueMs(db, own)) ?? repliesSweepMs, 50), repliesSweepMs);
  }

  const isValid = (instance: Instance) => performance.now() < instance.validUntil;

  /** Ends instances whose lease could not be renewed in time, for example without a database. */
  const watch = setInterval(() => {
    for (const instance of instances.values()) if (!isValid(instance)) void end(instance, { isOwn: false });
  }, ttlMs / 10);
  watch.unref();

  const leaseLoop: Loop = startLoop({
    name: "platforms",
    log,
    async pass() {
      if (isClosed) return ttlMs;
      await renew();
      return (await takeOver()) === takenPerPassMax ? 0 : ttlMs / 3;
    },
  });
  const repliesLoop: Loop = startLoop({ name: "platform-replies", log, pass: passReplies });

  return {
    speakers,
    async start(platform, signal) {
      await lines.probe(platform, signal);
      const own = instances.get(keyOf(platform));
      if (own) await end(own, { isOwn: true });
      deps.announce({ orgId: platform.orgId, stableId: platform.stableId, about: "state" });
      const from = performance.now();
      const lease = await takeFor(platform, signal);
      try {
        await open(platform, lease, from + ttlMs);
        signal.throwIfAborted();
      } catch (error) {
        await endStart(platform, lease);
        throw error;
      }
    },
    async stop({ orgId, stableId, epoch }) {
      const own = instances.get(keyOf({ orgId, stableId }));
      if (own && own.platform.epoch <= epoch) await end(own, { isOwn: true });
      speakers.forget({ orgId, stableId });
      deps.announce({ orgId, stableId, about: "state" });
      const until = performance.now() + ttlMs;
      const which = { orgId, stableId, startEpoch: epoch, replicaId };
      while (performance.now() < until && (await leases.isHeld(db, which))) await pause();
    },
    async post({ orgId, stableId, chat }, { id, text }) {
      const failed = (error: string) => ({ outcome: "failed", status: 0, error }) as const;
      const line = await speakers.find({ orgId, stableId });
      if (!line) return failed(`there is no platform "${stableId}", or it does not run`);
      try {
        const [first] = partsOf(text, line.textMax, deps.publicUrl, 1);
        await line.post(await line.threadOf(chat), { text: first! }, id);
      } catch (error) {
        return failed(excerpt(wordsOf(error), 300));
      }
      news.said({ orgId, stableId });
      return { outcome: "delivered", status: 200 };
    },
    poke(hint) {
      if (!instances.has(keyOf(hint))) return;
      if (hint.about === "reply") repliesLoop.poke();
      else leaseLoop.poke();
    },
    async close() {
      isClosed = true;
      clearInterval(watch);
      await Promise.all([leaseLoop.stop(), repliesLoop.stop()]);
      await Promise.all([...instances.values()].map((instance) => end(instance, { isOwn: true })));
      await Promise.all([...closing.values(), speakers.close()]);
      await news.close();
    },
  };

  async function takeFor(platform: StartablePlatform, signal: AbortSignal): Promise<leases.Lease> {
    const { orgId, stableId, epoch: startEpoch } = platform;
    while (true) {
      const taken = await leases.take(db, { orgId, stableId, startEpoch, replicaId, ttlMs });
      if (taken === "gone") throw new Error("it was stopped, deleted or started anew meanwhile");
      if (taken !== "held") return taken;
      signal.throwIfAborted();
      await pause();
    }
  }

  async function endStart(platform: StartablePlatform, lease: leases.Lease): Promise<void> {
    const own = instances.get(keyOf(platform));
    if (own?.lease.epoch === lease.epoch) await end(own, { isOwn: true });
    else await leases.release(db, [lease]);
  }

  function pause(): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, lookMs));
  }
}

/** Whether a later try would end in the same way, on every replica. */
function isFinal(error: unknown): boolean {
  return (
    error instanceof PlatformRefused || (error instanceof Refusal && error.reason === "invalid_argument")
  );
}

export function startableOf(row: platforms.Platform, secrets: Record<string, string>): StartablePlatform {
  const { org_id: orgId, stable_id: stableId, agent_id: agentId, kind, config, epoch } = row;
  return { orgId, stableId, agentId, kind, config, secrets, epoch };
}
