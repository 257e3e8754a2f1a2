import { Refusal } from "../../errors.ts";
import * as leases from "../../store/agents/platform-leases.ts";
import type { OwedReply } from "../../store/agents/platform-replies.ts";
import * as starts from "../../store/agents/platform-starts.ts";
import type * as platforms from "../../store/agents/platforms.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Looks } from "../../store/pg/looks.ts";
import type { Logger } from "../../telemetry/log.ts";
import { within } from "../../time/abort.ts";
import { wordsOf } from "../destinations/answer.ts";
import { type Ear, type Line, PlatformRefused } from "./lines/line.ts";
import type { Lines } from "./lines/lines.ts";
import { mask, openSecrets, type SecretSources } from "./secrets.ts";
import type { StartablePlatform } from "./starter.ts";

/** Platforms taken per pass, so that replicas share what a lost replica left. */
export const takenPerPassMax = 50;
/** Platforms opened at once by a pass. */
const openedAtOnceMax = 8;
/** Milliseconds that opening an instance may take. */
const openMs = 20_000;
/** Milliseconds until the next try after a failed taking over. */
const retryMs = 15_000;
/** Milliseconds between looks at a lease that another replica is to give back. */
const lookMs = 50;
/** Milliseconds that closing an instance may take. */
const closeMs = 5_000;

/** A try to send a reply. */
export type Sending = {
  owed: OwedReply;
  /** Never rejects. */
  ended: Promise<void>;
};

export type Instance = {
  platform: StartablePlatform;
  lease: leases.Lease;
  line: Line;
  /** Milliseconds of the replica's own clock at which the lease may be another's. */
  validUntil: number;
  stopping: AbortController;
  /** Replies under way, by turn. */
  atWork: Map<string, Sending>;
};

/** The parts of the replica for its instances. */
export type InstanceDeps = SecretSources & {
  /** Across orgs. */
  db: Db;
  looks: Looks;
  log: Logger;
  replicaId: string;
  ttlMs: number;
  lines: Lines;
};

type Deps = InstanceDeps & {
  feed: { eventsAppended(orgId: string): void };
  earOf(platform: StartablePlatform): Ear;
  /** An instance runs here, and may owe replies. */
  onOpened(): void;
};

const keyOf = ({ orgId, stableId }: { orgId: string; stableId: string }) => `${orgId} ${stableId}`;

const pause = () => new Promise<void>((resolve) => setTimeout(resolve, lookMs));

/**
 * The instances of a replica, each under its lease. An instance whose lease could not be renewed in
 * time ends, for example without a database.
 *
 *   lease taken ──open──▶ instance ──renewed──▶ instance ──lease lost, stopped──▶ closed
 */
export class Instances {
  readonly #deps: Deps;
  readonly #instances = new Map<string, Instance>();
  /** Ends, one at a time: an instance that is closed gives its lease back after that. */
  readonly #closing = new Map<string, Promise<void>>();
  readonly #watch: NodeJS.Timeout;

  constructor(deps: Deps) {
    this.#deps = deps;
    this.#watch = setInterval(() => this.#endInvalid(), deps.ttlMs / 10);
    this.#watch.unref();
  }

  find(platform: { orgId: string; stableId: string }): Instance | undefined {
    return this.#instances.get(keyOf(platform));
  }

  /** The instances whose leases are this replica's for certain. */
  valid(): Instance[] {
    return [...this.#instances.values()].filter(isValid);
  }

  /** Opens the instance of a lease; the lease is the caller's to give back. */
  async open(platform: StartablePlatform, lease: leases.Lease, validUntil: number): Promise<void> {
    const { lines, log, earOf, onOpened } = this.#deps;
    const line = await lines.open(platform, { listens: true, ear: earOf(platform) });
    const stopping = new AbortController();
    this.#instances.set(keyOf(platform), {
      ...{ platform, lease, line, validUntil, stopping, atWork: new Map() },
    });
    log.info({ ...lease, kind: platform.kind }, "an instance of a platform runs here");
    onOpened();
  }

  /** Closes an instance, and gives its lease back if it still is this replica's. Never rejects. */
  end(instance: Instance, { isOwn }: { isOwn: boolean }): Promise<void> {
    const key = keyOf(instance.platform);
    if (this.#instances.get(key) === instance) this.#instances.delete(key);
    instance.stopping.abort();
    const ended = this.#close(instance, isOwn);
    this.#closing.set(key, ended);
    return ended.finally(() => {
      if (this.#closing.get(key) === ended) this.#closing.delete(key);
    });
  }

  async #close({ line, lease, atWork }: Instance, isOwn: boolean): Promise<void> {
    const { db, log } = this.#deps;
    try {
      await within(Promise.all([line.close(), ...[...atWork.values()].map(({ ended }) => ended)]), closeMs);
      if (isOwn) await leases.release(db, [lease]);
    } catch (error) {
      log.warn({ ...lease, err: error }, "an instance of a platform was not closed in order");
    }
  }

  #endInvalid(): void {
    for (const instance of this.#instances.values()) {
      if (!isValid(instance)) void this.end(instance, { isOwn: false });
    }
  }

  async renew(): Promise<void> {
    const { db, replicaId, ttlMs } = this.#deps;
    const local = [...this.#instances.values()];
    const from = performance.now();
    const kept = await leases.renew(db, { replicaId, ttlMs, leases: local.map(({ lease }) => lease) });
    const own = new Set(kept.map((lease) => `${keyOf(lease)} ${lease.epoch}`));
    for (const instance of local) {
      if (own.has(`${keyOf(instance.lease)} ${instance.lease.epoch}`)) instance.validUntil = from + ttlMs;
      // Stopped, deleted, started anew, or taken by another replica.
      else void this.end(instance, { isOwn: true });
    }
  }

  /** Takes over platforms without a lease; returns the number of platforms taken. */
  async takeOver(): Promise<number> {
    const { db, looks, replicaId, ttlMs, lines } = this.#deps;
    const from = performance.now();
    const taken = await leases.takeAbandoned(db, {
      ...{ looks, replicaId, ttlMs, kinds: lines.kinds, limit: takenPerPassMax },
    });
    const left = [...taken];
    const work = Array.from({ length: Math.min(openedAtOnceMax, left.length) }, async () => {
      for (let one = left.shift(); one; one = left.shift()) await this.#resume(one, from + ttlMs);
    });
    await Promise.all(work);
    return taken.length;
  }

  /** Opens an instance in place of the instance that another replica had. */
  async #resume(
    { platform: row, ...lease }: leases.Lease & { platform: platforms.Platform },
    until: number,
  ): Promise<void> {
    let secrets: Record<string, string> = {};
    try {
      await this.#closing.get(keyOf(lease));
      secrets = openSecrets(this.#deps, row);
      const platform = startableOf(row, secrets);
      await this.#deps.lines.probe(platform, AbortSignal.timeout(openMs));
      await this.open(platform, lease, until);
    } catch (error) {
      await this.#giveUp(error, lease, { startEpoch: row.epoch, secrets });
    }
  }

  /** Gives back the lease of a platform that cannot run here; no replica tries again in vain. */
  async #giveUp(
    error: unknown,
    lease: leases.Lease,
    { startEpoch, secrets }: { startEpoch: number; secrets: Record<string, string> },
  ): Promise<void> {
    const { db, log, feed } = this.#deps;
    const reason = mask(wordsOf(error), secrets);
    if (isFinal(error)) {
      await starts.fail(db, { ...lease, startEpoch, reason });
      feed.eventsAppended(lease.orgId);
    } else {
      await leases.note(db, [{ ...lease, error: reason }]);
    }
    await leases.release(db, [lease], { retryInMs: retryMs });
    log.warn({ ...lease, reason }, "an instance of a platform could not be taken over");
  }

  /** The lease of a start, as soon as another replica has given the lease back. */
  async takeFor(platform: StartablePlatform, signal: AbortSignal): Promise<leases.Lease> {
    const { db, replicaId, ttlMs } = this.#deps;
    const { orgId, stableId, epoch: startEpoch } = platform;
    while (true) {
      const taken = await leases.take(db, { orgId, stableId, startEpoch, replicaId, ttlMs });
      if (taken === "gone") throw new Error("it was stopped, deleted or started anew meanwhile");
      if (taken !== "held") return taken;
      signal.throwIfAborted();
      await pause();
    }
  }

  /** Takes back a start that failed under the lease. */
  async endStart(platform: StartablePlatform, lease: leases.Lease): Promise<void> {
    const own = this.find(platform);
    if (own?.lease.epoch === lease.epoch) await this.end(own, { isOwn: true });
    else await leases.release(this.#deps.db, [lease]);
  }

  /** Waits until no other replica runs the start, for one lease's time at most. */
  async waitUntilFree(platform: { orgId: string; stableId: string; startEpoch: number }): Promise<void> {
    const { db, replicaId, ttlMs } = this.#deps;
    const until = performance.now() + ttlMs;
    while (performance.now() < until && (await leases.isHeld(db, { ...platform, replicaId }))) await pause();
  }

  /** Ends all instances, and gives their leases back. */
  async close(): Promise<void> {
    clearInterval(this.#watch);
    await Promise.all([...this.#instances.values()].map((instance) => this.end(instance, { isOwn: true })));
    await Promise.all(this.#closing.values());
  }
}

const isValid = (instance: Instance) => performance.now() < instance.validUntil;

/** Whether a later try would end in the same way, on every replica. */
function isFinal(error: unknown): boolean {
  return (
    error instanceof PlatformRefused || (error instanceof Refusal && error.reason === "invalid_argument")
  );
}

function startableOf(row: platforms.Platform, secrets: Record<string, string>): StartablePlatform {
  const { org_id: orgId, stable_id: stableId, agent_id: agentId, kind, config, epoch } = row;
  return { orgId, stableId, agentId, kind, config, secrets, epoch };
}
