/**
 * The starts of platforms: one call starts, the others wait for the outcome (see
 * src/store/agents/platform-starts.ts).
 *
 * A start is independent of the call that asked for it: if the caller disconnects, the start still
 * ends and is recorded. No database connection is held during a start.
 */
import { within } from "../../abort.ts";
import { createBatcher } from "../../batcher.ts";
import { Refusal, refuse } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Keyring, References } from "../../secrets.ts";
import * as edits from "../../store/agents/platform-edits.ts";
import * as starts from "../../store/agents/platform-starts.ts";
import * as platforms from "../../store/agents/platforms.ts";
import { type Db, mayBeOfOneRow } from "../../store/pg/database.ts";
import { mask, openSecrets, requireReferences } from "./secrets.ts";
import type { PlatformStarter } from "./starter.ts";

/** Milliseconds. Ends well before `startDeadlineMs`, so that the outcome is still recorded. */
const startMs = 20_000;
/**
 * A waiter reads the row again at each new event of the org (the end of a start appends an event),
 * and at least this often, in milliseconds.
 */
const lookMs = 1_000;
/** Maximum time, in milliseconds, that one call waits for other calls' starts, however many. */
const waitMs = platforms.startDeadlineMs;

export type Upserted = {
  platform: platforms.Platform;
  outcome: starts.Outcome;
  willRestart: boolean;
  changed: string[];
};

type Wanted = Omit<edits.Wanted, "waitedEpoch">;

export type PlatformRunner = {
  /** See UpsertPlatform. */
  upsert(options: Wanted & { orgId: string }, signal: AbortSignal): Promise<Upserted>;
  /**
   * See BatchUpsertPlatforms. Returns the results in the order of `wanted`; rejects only if the
   * database is away.
   */
  upsertAll(
    options: { orgId: string; wanted: readonly Wanted[] },
    signal: AbortSignal,
  ): Promise<PromiseSettledResult<Upserted>[]>;
  /** See StartPlatform. */
  start(
    options: { orgId: string; stableId: string; actor: string },
    signal: AbortSignal,
  ): Promise<platforms.Platform>;
  /** See StopPlatform. */
  stop(options: { orgId: string; stableId: string; actor: string }): Promise<platforms.Platform>;
  /** Stops platforms whose rows are deleted. Never rejects. */
  endAll(removed: readonly platforms.Platform[]): Promise<void>;
};

/** A source of hints that an org's events grew, here or on another replica. */
export interface EventWaker {
  subscribe(orgId: string, wake: () => void): () => void;
  eventsAppended(orgId: string): void;
}

export function createPlatformRunner(deps: {
  db: Db;
  log: Logger;
  feed: EventWaker;
  keyring: Keyring;
  references: References;
  starter: PlatformStarter;
}): PlatformRunner {
  const { db, log, feed, keyring, references, starter } = deps;

  /** Takes steps until there is nothing to wait for. */
  async function settle(
    look: (waitedEpoch: number | undefined) => Promise<starts.Step>,
    signal: AbortSignal,
    first?: starts.Step,
  ): Promise<Exclude<starts.Step, { do: "wait" }>> {
    let waitedEpoch: number | undefined;
    let ending: AbortSignal | undefined;
    let known = first;
    while (true) {
      const step = known ?? (await look(waitedEpoch));
      known = undefined;
      if (step.do !== "wait") return step;
      waitedEpoch = step.platform.epoch;
      ending ??= AbortSignal.any([signal, AbortSignal.timeout(waitMs)]);
      await waitForEnd(step.platform, ending);
      if (signal.aborted)
        refuse("deadline_exceeded", "the call ended while another one's start was under way");
      if (ending.aborted) {
        refuse("aborted", `others keep starting "${step.platform.stable_id}"; do it again`, {
          retryAfterMs: 1_000,
        });
      }
    }
  }

  /** Resolves once the start of the named epoch has ended, or the signal aborts. */
  async function waitForEnd(
    { org_id: orgId, stable_id: stableId, epoch }: platforms.Platform,
    signal: AbortSignal,
  ) {
    let wake = () => {};
    const unsubscribe = feed.subscribe(orgId, () => wake());
    const abort = () => wake();
    signal.addEventListener("abort", abort, { once: true });
    try {
      while (!signal.aborted) {
        const woken = new Promise<void>((resolve) => {
          wake = resolve;
        });
        const now = await platforms.find(db, { orgId, stableId });
        if (now?.status !== "starting" || now.epoch !== epoch) return;
        await within(woken, lookMs);
      }
    } finally {
      signal.removeEventListener("abort", abort);
      unsubscribe();
    }
  }

  /**
   * Starts the platform of the row as the row asks, and records the outcome. Refuses if the
   * platform did not start.
   */
  async function carryOut(
    platform: platforms.Platform,
    actor: string,
    record: Recorder = (end) => starts.endStart(db, end),
  ): Promise<platforms.Platform> {
    const named = { orgId: platform.org_id, stableId: platform.stable_id };
    const { epoch } = platform;
    const failure = await startOnce(platform);
    const ended = await record({ ...named, epoch, actor, failure }).catch((error) =>
      afterLostEnd(error, platform, { actor, failure }),
    );
    if (!ended) {
      await end({ ...named, epoch });
      refuse(
        "aborted",
        `"${platform.stable_id}" was stopped, deleted or started anew meanwhile; read it again`,
        {
          retryAfterMs: 0,
        },
      );
    }
    feed.eventsAppended(platform.org_id);
    if (failure !== undefined) {
      await end({ ...named, epoch });
      refuse("failed_precondition", `the platform "${platform.stable_id}" did not start: ${failure}`);
    }
    return ended;
  }

  /**
   * Handles an outcome that was perhaps not recorded. Returns the row if it has the outcome after
   * all. Otherwise stops the platform, records the failure if the database accepts it, so that no
   * waiter waits for the deadline, and throws the error.
   */
  async function afterLostEnd(
    error: unknown,
    platform: platforms.Platform,
    { actor, failure }: { actor: string; failure: string | undefined },
  ): Promise<platforms.Platform> {
    const { org_id: orgId, stable_id: stableId, epoch } = platform;
    const named = { orgId, stableId };
    try {
      const lost = failure ?? "the outcome of the start could not be recorded";
      const ended = await starts.endStart(db, { ...named, epoch, actor, failure: lost });
      if (ended) {
        feed.eventsAppended(orgId);
        if (failure !== undefined) return ended;
      } else {
        const now = await platforms.find(db, named);
        const wanted = failure === undefined ? "running" : "failed";
        if (now?.epoch === epoch && now.status === wanted) return now;
      }
    } catch {
      // The first error tells why.
    }
    await end({ ...named, epoch });
    throw error;
  }

  /**
   * The reason why the platform did not start; undefined if it started. The reason contains none of
   * its secrets.
   */
  async function startOnce(platform: platforms.Platform): Promise<string | undefined> {
    const { org_id: orgId, stable_id: stableId, agent_id: agentId, kind, config, epoch } = platform;
    let secrets: Record<string, string> = {};
    const stopping = AbortSignal.timeout(startMs);
    try {
      secrets = openSecrets({ keyring, references }, platform);
      const started = starter.start({ orgId, stableId, agentId, kind, config, secrets, epoch }, stopping);
      const isStarted = await within(
        started.then(() => true),
        startMs,
      );
      return isStarted ? undefined : `it took longer than ${startMs / 1_000} s`;
    } catch (error) {
      const reason = mask(error instanceof Error ? error.message : String(error), secrets);
      log.warn({ orgId, platform: stableId, kind, reason }, "a platform did not start");
      return reason || "for a reason that was not given";
    }
  }

  /** Stops the platform. Never rejects: the row already has the wanted state. */
  async function end(platform: { orgId: string; stableId: string; epoch: number }): Promise<void> {
    try {
      await starter.stop(platform);
    } catch (error) {
      const name =
        error instanceof Refusal ? error.message : error instanceof Error ? error.name : typeof error;
      log.error(
        { orgId: platform.orgId, platform: platform.stableId, why: name },
        "a platform was not stopped",
      );
    }
  }

  /** Takes the first step (`begun`, if any), carries out the start and returns the answer. */
  async function upsertOne(
    options: Wanted & { orgId: string },
    signal: AbortSignal,
    begun: { step?: starts.Step; record?: Recorder } = {},
  ): Promise<Upserted> {
    const { orgId, actor } = options;
    if (options.isDryRun) requireReferences(references, orgId, options.values.secrets);
    const look = (waitedEpoch: number | undefined) => edits.upsert(db, { ...options, waitedEpoch, keyring });
    const step = await settle(look, signal, begun.step);
    const { outcome, changed } = step;
    const willRestart = step.do === "start" && step.willRestart;
    const isChanged = !options.isDryRun && (step.do === "start" || outcome !== "noop");
    // In a batch, the first step announces the events once for all items.
    if (isChanged && step !== begun.step) feed.eventsAppended(orgId);
    const platform =
      step.do === "start" && !options.isDryRun
        ? await carryOut(step.platform, actor, begun.record)
        : step.platform;
    return { platform, outcome, willRestart, changed };
  }

  /**
   * The first step of all items; item by item if one item fails the batch with a text that
   * PostgreSQL does not accept.
   */
  async function lookAtAll(options: {
    orgId: string;
    wanted: readonly edits.Wanted[];
  }): Promise<(starts.Step | "again" | Error)[]> {
    try {
      return await edits.upsertAll(db, { ...options, keyring });
    } catch (error) {
      if (!isOfData(error)) throw error;
      if (options.wanted.length === 1) return [error as Error];
      const answers: (starts.Step | "again" | Error)[] = [];
      for (const one of options.wanted) {
        answers.push(...(await lookAtAll({ ...options, wanted: [one] })));
      }
      return answers;
    }
  }

  return {
    upsert: (options, signal) => upsertOne(options, signal),
    async upsertAll({ orgId, wanted }, signal) {
      const steps = await lookAtAll({
        orgId,
        wanted: wanted.map((one) => ({ ...one, waitedEpoch: undefined })),
      });
      if (wanted.some(({ isDryRun }) => !isDryRun)) feed.eventsAppended(orgId);
      // Starts that end together are recorded together.
      const ends = createBatcher<starts.StartEnd, platforms.Platform | undefined>({
        run: (batch) => starts.endStarts(db, { orgId, ends: batch }),
        itemsMax: wanted.length,
        queueMax: wanted.length,
        overflow: () => new Refusal("unavailable", "too many starts at once", { retryAfterMs: 1_000 }),
        mayIsolate: mayBeOfOneRow,
      });
      const record: Recorder = ({ orgId: _orgId, ...end }) => ends.add(end);
      return Promise.allSettled(
        wanted.map(async (one, index) => {
          const step = steps[index]!;
          if (step instanceof Error) throw step;
          return upsertOne({ ...one, orgId }, signal, step === "again" ? {} : { step, record });
        }),
      );
    },
    async start(options, signal) {
      const step = await settle((waitedEpoch) => starts.start(db, { ...options, waitedEpoch }), signal);
      if (step.do === "nothing") return step.platform;
      feed.eventsAppended(options.orgId);
      return carryOut(step.platform, options.actor);
    },
    async stop(options) {
      const { platform, isChanged } = await starts.stop(db, options);
      if (isChanged) feed.eventsAppended(options.orgId);
      await end({ orgId: options.orgId, stableId: options.stableId, epoch: platform.epoch });
      return platform;
    },
    async endAll(removed) {
      for (const { org_id: orgId, stable_id: stableId, epoch } of removed)
        await end({ orgId, stableId, epoch });
    },
  };
}

/**
 * PostgreSQL's class 22: a value that PostgreSQL does not accept, for example half a surrogate
 * pair.
 */
function isOfData(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" && /^22[0-9A-Z]{3}$/.test(code);
}

/** Records how a start ended; see starts.endStart. */
type Recorder = (end: starts.StartEnd & { orgId: string }) => Promise<platforms.Platform | undefined>;
