/**
 * The starts of platforms: one call starts, the others wait for the outcome (see
 * src/store/agents/platform-starts.ts).
 *
 * A start is independent of the call that asked for it: if the caller disconnects, the start still
 * ends and is recorded. No database connection is held during a start.
 */
import { createBatcher } from "../../batches/batcher.ts";
import { pairsOf } from "../../batches/pairs.ts";
import { codeOf, Refusal } from "../../errors.ts";
import * as edits from "../../store/agents/platform-edits.ts";
import * as starts from "../../store/agents/platform-starts.ts";
import type * as platforms from "../../store/agents/platforms.ts";
import { mayBeOfOneRow } from "../../store/pg/failures.ts";
import { requireReferences } from "./secrets.ts";
import { carryOut, type Recorder, type StartingDeps, stop } from "./starting.ts";
import { type EventWaker, settle } from "./waiting.ts";

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

type RunnerDeps = StartingDeps & { feed: EventWaker };

export function createPlatformRunner(deps: RunnerDeps): PlatformRunner {
  const { db, feed } = deps;
  return {
    upsert: (options, signal) => upsertOne(deps, options, signal),
    upsertAll: (options, signal) => upsertAll(deps, options, signal),
    async start(options, signal) {
      const step = await settle(deps, (waitedEpoch) => starts.start(db, { ...options, waitedEpoch }), signal);
      if (step.do === "nothing") return step.platform;
      feed.eventsAppended(options.orgId);
      return carryOut(deps, step.platform, options.actor);
    },
    async stop(options) {
      const { platform, isChanged } = await starts.stop(db, options);
      if (isChanged) feed.eventsAppended(options.orgId);
      await stop(deps, { orgId: options.orgId, stableId: options.stableId, epoch: platform.epoch });
      return platform;
    },
    async endAll(removed) {
      for (const { org_id: orgId, stable_id: stableId, epoch } of removed)
        await stop(deps, { orgId, stableId, epoch });
    },
  };
}

/** Takes the first step (`begun`, if any), carries out the start and returns the answer. */
async function upsertOne(
  deps: RunnerDeps,
  options: Wanted & { orgId: string },
  signal: AbortSignal,
  begun: { step?: starts.Step; record?: Recorder } = {},
): Promise<Upserted> {
  const { db, feed, keyring, references } = deps;
  const { orgId, actor } = options;
  if (options.isDryRun) requireReferences(references, orgId, options.values.secrets);
  const look = (waitedEpoch: number | undefined) => edits.upsert(db, { ...options, waitedEpoch, keyring });
  const step = await settle(deps, look, signal, begun.step);
  const { outcome, changed } = step;
  const willRestart = step.do === "start" && step.willRestart;
  const isChanged = !options.isDryRun && (step.do === "start" || outcome !== "noop");
  // In a batch, the first step announces the events once for all items.
  if (isChanged && step !== begun.step) feed.eventsAppended(orgId);
  const platform =
    step.do === "start" && !options.isDryRun
      ? await carryOut(deps, step.platform, actor, begun.record)
      : step.platform;
  return { platform, outcome, willRestart, changed };
}

async function upsertAll(
  deps: RunnerDeps,
  { orgId, wanted }: { orgId: string; wanted: readonly Wanted[] },
  signal: AbortSignal,
): Promise<PromiseSettledResult<Upserted>[]> {
  const { db, feed } = deps;
  const steps = await lookAtAll(deps, {
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
    pairsOf(wanted, steps).map(async ([one, step]) => {
      if (step instanceof Error) throw step;
      return upsertOne(deps, { ...one, orgId }, signal, step === "again" ? {} : { step, record });
    }),
  );
}

/**
 * The first step of all items; item by item if one item fails the batch with a text that
 * PostgreSQL does not accept.
 */
async function lookAtAll(
  deps: RunnerDeps,
  options: { orgId: string; wanted: readonly edits.Wanted[] },
): Promise<(starts.Step | "again" | Error)[]> {
  try {
    return await edits.upsertAll(deps.db, { ...options, keyring: deps.keyring });
  } catch (error) {
    if (!isBadValue(error)) throw error;
    if (options.wanted.length === 1) return [error as Error];
    const answers: (starts.Step | "again" | Error)[] = [];
    for (const one of options.wanted) {
      answers.push(...(await lookAtAll(deps, { ...options, wanted: [one] })));
    }
    return answers;
  }
}

/**
 * PostgreSQL's class 22: a value that PostgreSQL does not accept, for example half a surrogate
 * pair.
 */
function isBadValue(error: unknown): boolean {
  return /^22[0-9A-Z]{3}$/.test(codeOf(error) ?? "");
}
