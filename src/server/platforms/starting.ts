/**
 * One start of a platform: the program starts, and the outcome is recorded in the platform's row.
 * An outcome that may not have been recorded is looked up, and otherwise the program is stopped.
 */
import { Refusal, refuse } from "../../errors.ts";
import * as starts from "../../store/agents/platform-starts.ts";
import * as platforms from "../../store/agents/platforms.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Logger } from "../../telemetry/log.ts";
import { within } from "../../time/abort.ts";
import { mask, openSecrets, type SecretSources } from "./secrets.ts";
import type { PlatformStarter } from "./starter.ts";

/** Milliseconds. Ends well before `startDeadlineMs`, so that the outcome is still recorded. */
const startMs = 20_000;
export type StartingDeps = SecretSources & {
  db: Db;
  log: Logger;
  feed: { eventsAppended(orgId: string): void };
  starter: PlatformStarter;
};

/** Records how a start ended; see starts.endStart. */
export type Recorder = (end: starts.StartEnd & { orgId: string }) => Promise<platforms.Platform | undefined>;

/**
 * Starts the platform of the row as the row asks, and records the outcome. Refuses if the
 * platform did not start.
 */
export async function carryOut(
  deps: StartingDeps,
  platform: platforms.Platform,
  actor: string,
  record: Recorder = (end) => starts.endStart(deps.db, end),
): Promise<platforms.Platform> {
  const named = { orgId: platform.org_id, stableId: platform.stable_id };
  const { epoch } = platform;
  const failure = await startOnce(deps, platform);
  const ended = await record({ ...named, epoch, actor, failure }).catch((error) =>
    afterLostEnd(deps, error, platform, { actor, failure }),
  );
  if (!ended) {
    await stop(deps, { ...named, epoch });
    refuse(
      "aborted",
      `"${platform.stable_id}" was stopped, deleted or started anew meanwhile; read it again`,
      {
        retryAfterMs: 0,
      },
    );
  }
  deps.feed.eventsAppended(platform.org_id);
  if (failure !== undefined) {
    await stop(deps, { ...named, epoch });
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
  deps: StartingDeps,
  error: unknown,
  platform: platforms.Platform,
  { actor, failure }: { actor: string; failure: string | undefined },
): Promise<platforms.Platform> {
  const { org_id: orgId, stable_id: stableId, epoch } = platform;
  const named = { orgId, stableId };
  try {
    const lost = failure ?? "the outcome of the start could not be recorded";
    const ended = await starts.endStart(deps.db, { ...named, epoch, actor, failure: lost });
    if (ended) {
      deps.feed.eventsAppended(orgId);
      if (failure !== undefined) return ended;
    } else {
      const now = await platforms.find(deps.db, named);
      const wanted = failure === undefined ? "running" : "failed";
      if (now?.epoch === epoch && now.status === wanted) return now;
    }
  } catch {
    // The first error tells why.
  }
  await stop(deps, { ...named, epoch });
  throw error;
}

/**
 * The reason why the platform did not start; undefined if it started. The reason contains none of
 * its secrets.
 */
async function startOnce(
  { log, starter, ...sources }: StartingDeps,
  platform: platforms.Platform,
): Promise<string | undefined> {
  const { org_id: orgId, stable_id: stableId, agent_id: agentId, kind, config, epoch } = platform;
  let secrets: Record<string, string> = {};
  const stopping = AbortSignal.timeout(startMs);
  try {
    secrets = openSecrets(sources, platform);
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
export async function stop(
  { starter, log }: StartingDeps,
  platform: { orgId: string; stableId: string; epoch: number },
): Promise<void> {
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
