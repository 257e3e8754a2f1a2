import { refuse } from "../../errors.ts";
import type * as starts from "../../store/agents/platform-starts.ts";
import * as platforms from "../../store/agents/platforms.ts";
import type { Db } from "../../store/pg/database.ts";
import { within } from "../../time/abort.ts";

/**
 * A waiter reads the row again at each new event of the org (the end of a start appends an event),
 * and at least this often, in milliseconds.
 */
const lookMs = 1_000;
/** Maximum time, in milliseconds, that one call waits for other calls' starts, however many. */
const waitMs = platforms.startDeadlineMs;

/** A source of hints that an org's events grew, here or on another replica. */
export interface EventWaker {
  subscribe(orgId: string, wake: () => void): () => void;
  eventsAppended(orgId: string): void;
}

type WaitingDeps = { db: Db; feed: Pick<EventWaker, "subscribe"> };

/** Takes steps until there is nothing to wait for. */
export async function settle(
  deps: WaitingDeps,
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
    await waitForEnd(deps, step.platform, ending);
    if (signal.aborted) refuse("deadline_exceeded", "the call ended while another one's start was under way");
    if (ending.aborted) {
      refuse("aborted", `others keep starting "${step.platform.stable_id}"; do it again`, {
        retryAfterMs: 1_000,
      });
    }
  }
}

/** Resolves once the start of the named epoch has ended, or the signal aborts. */
async function waitForEnd(
  { db, feed }: WaitingDeps,
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
