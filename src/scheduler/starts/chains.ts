/**
 * Chains: the end of a watcher's run starts the watchers that follow it, in the transaction that
 * stores the result, so the end and the starts are committed together or not at all. Only a final
 * end starts followers: a run with another attempt to come has not ended. A lost run ends as a
 * timeout; a late result that replaces the end is evaluated again, and a follower started by the
 * first end is not started again.
 */
import { compile, ExpressionError, jsonOf } from "../../cel/expression.ts";
import * as rights from "../../store/people/devices/rights.ts";
import type { Quotas } from "../../store/people/orgs/quotas.ts";
import { type Db, undoOnFailure } from "../../store/pg/database.ts";
import { mayBeOfOneRow } from "../../store/pg/failures.ts";
import type { Settled, Settlement } from "../../store/work/attempts/settlements.ts";
import * as starts from "../../store/work/runs/starts.ts";
import type { NewEvent } from "../../store/work/service/events.ts";
import { chainDepthMax } from "../../store/work/watchers/chains.ts";
import * as schedules from "../../store/work/watchers/schedules.ts";
import type * as slotRows from "../../store/work/watchers/slot-rows.ts";
import { followerRunId } from "../../values/ids.ts";
import { inputBytesMax, problemOf } from "../../values/input.ts";
import { canonicalJson, isShallow, type JsonValue } from "../../values/json.ts";
import type { Followed } from "../doorbell.ts";
import { startLocked } from "./starts.ts";

/**
 * Maximum characters of each text of a result given to a follower: half from the beginning, half
 * from the end.
 */
const textCharactersMax = 12_000;
/** Maximum bytes of a result's structured data, as JSON. */
const structuredBytesMax = 24_000;

export const conditionNames = ["run", "result"] as const;
/** The condition of a follower without one. */
const conditionDefault = 'run.status == "completed"';

/** The facts of a run's end, from its settlement and its row. */
export type End = Pick<Settlement, "output" | "answer" | "exitCode" | "attention"> & {
  run: Pick<starts.EndedRun, "runId" | "watcherSlug" | "source" | "finishedAt">;
  status: string;
  reason: string;
  attempt: number;
};

/** The values that a condition sees, and a follower receives as its input. */
export function inputOf(end: End): { run: JsonValue; result: JsonValue } {
  const structured = end.answer?.structured as JsonValue | undefined;
  const isKept =
    structured !== undefined &&
    isShallow(structured) &&
    Buffer.byteLength(canonicalJson(structured)) <= structuredBytesMax;
  const input = {
    run: {
      id: end.run.runId,
      watcher: end.run.watcherSlug ?? "",
      status: end.status,
      reason: end.reason.slice(0, 2_000),
      source: end.run.source,
      attempt: end.attempt,
      exit_code: end.exitCode ?? null,
      attention: [...(end.attention ?? [])],
      finished_at: end.run.finishedAt.toISOString(),
    },
    result: {
      text: cut(end.answer?.result ?? ""),
      output: cut(end.answer?.result ? "" : (end.output ?? "")),
      ...(isKept ? { structured } : {}),
      ...(structured !== undefined && !isKept ? { is_structured_omitted: true } : {}),
    },
  };
  // Texts of multi-byte or escaped characters may exceed the limit; without the texts the input
  // always fits.
  for (const name of ["output", "text"] as const) {
    if (Buffer.byteLength(canonicalJson(input)) > inputBytesMax) input.result[name] = "";
  }
  return input;
}

function cut(text: string): string {
  if (text.length <= textCharactersMax) return text;
  const half = textCharactersMax / 2;
  return `${text.slice(0, half)}\n… ${text.length - textCharactersMax} characters left out …\n${text.slice(-half)}`.toWellFormed();
}

/** Whether the end starts a follower; an error if the condition has no boolean value. */
export function judge(condition: string, input: ReturnType<typeof inputOf>): boolean | { error: string } {
  try {
    const value = compile(condition.trim() || conditionDefault, conditionNames).evaluate(input);
    if (typeof value === "boolean") return value;
    return {
      error: `its value is no true or false but ${JSON.stringify(jsonOf(value, 1_000)).slice(0, 100)}`,
    };
  } catch (error) {
    if (error instanceof ExpressionError) return { error: error.message };
    throw error;
  }
}

/**
 * Starts the followers of runs that have just ended, in the caller's transaction. Returns the
 * events, which the caller appends last, and adds the written runs to `settled`. An error here
 * never undoes an end: it becomes an event.
 */
export async function startFollowers(
  tx: Db,
  ended: readonly Ended[],
  options: { quotas?: Quotas | undefined },
): Promise<NewEvent[]> {
  const followed = ended.filter(
    ({ run }) => run.hasFollowers && run.action === "finished" && run.status !== "skipped",
  );
  if (followed.length === 0) return [];
  const done = await undoOnFailure(tx, () => start(tx, followed, options));
  if ("value" in done) {
    for (const { run, written, isWaiting } of done.value.started) {
      run.followers = [...(run.followers ?? []), ...written];
      run.hasBacklog ||= isWaiting;
    }
    return done.value.events;
  }
  if (!mayBeOfOneRow(done.error)) throw done.error;
  const reason = done.error instanceof Error ? done.error.message : String(done.error);
  return followed.map(({ run }) => failed(run, { follower: "", reason }));
}

type Ended = { run: Followed; settlement: Settlement | undefined };

type Done = {
  started: { run: Followed; written: slotRows.RecordedRun[]; isWaiting: boolean }[];
  events: NewEvent[];
};

/** A start that a follower's condition wants. */
type Wanted = {
  run: Followed;
  fact: starts.EndedRun;
  follower: starts.Follower;
  input: ReturnType<typeof inputOf>;
  runId: string;
};

async function start(
  tx: Db,
  followed: readonly Ended[],
  options: { quotas?: Quotas | undefined },
): Promise<Done> {
  const runs = followed.map(({ run }) => run);
  const followers = await starts.listFollowers(tx, runs);
  const facts = new Map((await starts.findEnded(tx, runs)).map((fact) => [fact.runId, fact]));
  const done: Done = { started: [], events: [] };
  const wanted = followers.flatMap((follower) =>
    followed.flatMap((ended) => {
      const fact = facts.get(ended.run.runId);
      return fact ? wantedStart(ended, fact, follower, done.events) : [];
    }),
  );
  const allowed = await readable(tx, wanted, done.events);
  if (allowed.length === 0) return done;
  const free = await starts.lockFree(
    tx,
    allowed.map(({ follower }) => follower),
  );
  const there = await starts.listThere(
    tx,
    allowed.map(({ run: { orgId }, runId }) => ({ orgId, runId })),
  );
  for (const one of allowed) {
    const [isFree, isThere] = [free.has(one.follower.watcherId), there.has(one.runId)];
    await startOne(tx, one, done, { ...options, isFree, isThere });
  }
  return done;
}

/** The start of the follower, if its condition is true; a condition that fails becomes an event. */
function wantedStart(
  { run, settlement }: Ended,
  fact: starts.EndedRun,
  follower: starts.Follower,
  events: NewEvent[],
): Wanted[] {
  if (run.orgId !== follower.orgId || run.watcherId !== follower.afterId) return [];
  const { status, reason, attempt } = run;
  const input = inputOf({ ...settlement, run: fact, status, reason, attempt });
  const verdict = judge(follower.condition, input);
  if (verdict === false) return [];
  const problem =
    verdict !== true
      ? `after_condition: ${verdict.error}`
      : fact.depth >= chainDepthMax
        ? `the chain has ${chainDepthMax} runs, and may have no more`
        : undefined;
  const runId = followerRunId({ afterRunId: run.runId, watcherId: follower.watcherId });
  if (problem === undefined) return [{ run, fact, follower, input, runId }];
  events.push(failed(run, { follower: follower.slug, reason: problem }));
  return [];
}

/**
 * Starts the follower, or puts the start into the follower's queue if its watcher is not free.
 * `isThere`: the run is; the database forgot the end in a failover, and the device of the
 * follower's run was first to give its result back.
 */
async function startOne(
  tx: Db,
  { run, fact, follower, input, runId }: Wanted,
  done: Done,
  options: { quotas?: Quotas | undefined; isFree: boolean; isThere: boolean },
): Promise<void> {
  const { orgId, watcherId, slug } = follower;
  const origin = {
    ...starts.noOrigin,
    afterRunId: run.runId,
    afterWatcherSlug: fact.watcherSlug ?? "",
    depth: fact.depth + 1,
  };
  const begun = { orgId, watcherId, runId, actor: "pinion", source: "after" as const, input, origin };
  if (options.isThere) {
    await starts.insert(tx, begun);
    return;
  }
  const asked = await starts.findAsked(tx, follower);
  const problem = asked && problemOf(asked.prompt, input);
  if (problem) {
    done.events.push(failed(run, { follower: slug, reason: problem }));
    return;
  }
  const locked = options.isFree ? await schedules.lockOne(tx, follower) : undefined;
  if (locked) {
    const { written, events } = await startLocked(tx, locked, begun, options);
    done.events.push(...events);
    done.started.push({ run, written, isWaiting: false });
    return;
  }
  // Another transaction holds the follower's lock, while runs are locked here: waiting could
  // deadlock. The start joins the follower's queue.
  if (await starts.insert(tx, begun)) {
    await starts.wait(tx, { orgId, watcherId, runId, source: "after" });
    done.started.push({ run, written: [], isWaiting: true });
  }
}

/**
 * The starts whose follower's sponsor may read the device of the ended run at this moment: the
 * follower is given the run's texts, and the right may have been taken back since the edit.
 */
async function readable(tx: Db, wanted: readonly Wanted[], refused: NewEvent[]): Promise<Wanted[]> {
  const allowed = new Set<Wanted>();
  const bySponsor = Map.groupBy(wanted, ({ follower }) => `${follower.orgId} ${follower.sponsor}`);
  for (const theirs of bySponsor.values()) {
    const [
      {
        follower: { orgId, sponsor },
      },
    ] = theirs as [Wanted, ...Wanted[]];
    const who = rights.whoOf(sponsor);
    const deviceIds = [...new Set(theirs.flatMap(({ run }) => run.deviceId ?? []))];
    const found = who ? await rights.standings(tx, { orgId, who, deviceIds }) : [];
    const lacking = new Map(
      found.filter((standing) => !rights.rightTo("read", standing)).map((one) => [one.deviceId, one.label]),
    );
    for (const one of theirs) {
      const label = one.run.deviceId === null ? undefined : lacking.get(one.run.deviceId);
      if (label === undefined) allowed.add(one);
      else {
        const reason = `${sponsor}, who edited it last, may not read the runs of device "${label}"`;
        refused.push(failed(one.run, { follower: one.follower.slug, reason }));
      }
    }
  }
  return wanted.filter((one) => allowed.has(one));
}

function failed(run: Settled, { follower, reason }: { follower: string; reason: string }): NewEvent {
  return {
    orgId: run.orgId,
    kind: "watcher.after_failed",
    actor: "pinion",
    runId: run.runId,
    watcherId: run.watcherId,
    deviceId: run.deviceId,
    data: { ...(follower ? { follower } : {}), reason },
  };
}
