import { HeldAttemptState, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import { pairsOf } from "../../../batches/pairs.ts";
import type { Ends } from "../../../scheduler/doorbell.ts";
import * as devices from "../../../store/people/devices/devices.ts";
import type { Db } from "../../../store/pg/database.ts";
import { onlyRow } from "../../../store/pg/values/only-row.ts";
import { type HeldByServer, lockActive } from "../../../store/work/attempts/active.ts";
import type { FailurePolicy } from "../../../store/work/attempts/settlements.ts";
import * as presence from "../../../store/work/service/presence.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { type AttemptKind, attemptKinds } from "../attempts/work.ts";
import { runs } from "./reconcile-runs.ts";
import { turns } from "./reconcile-turns.ts";
import type { Held, OpeningSession, Reconciliation, Verdict } from "./reconciliation.ts";

export type Opening = Ends & {
  /** The device of the session; a fleet worker learns its id after the hello. */
  deviceId: string;
  epoch: number;
  sessionId: string;
  /** The replica with a stream of the device that the new session replaces. */
  replacedReplicaId: string | null;
  /** For each held attempt, in order. */
  verdicts: HeldVerdict[];
  /** Attempts that continue in the new session. */
  continuing: Continuing[];
};

/** An attempt that continues; `workId` is the id of the run or turn. */
export type Continuing = HeldByServer & { kind: AttemptKind };

const reconciliations: Readonly<Record<AttemptKind, Reconciliation>> = { run: runs, turn: turns };

type Options = { replicaId: string; policy: FailurePolicy; ttlMs: number; log?: Logger };

/** A device, and the attempts that its hello lists. */
export type Greeting = { orgId: string; deviceId: string; held: readonly Held[] };

/** Opens a session: {@link openSessions} for one device. */
export async function openSession(tx: Db, options: Options & Greeting): Promise<Opening> {
  return onlyRow(await openSessions(tx, options, [options]));
}

/**
 * Opens sessions of different devices, in order: takes each device's next epoch, and reconciles the
 * attempts that the device holds with the attempts that the server has on record for the device, in
 * one transaction. Devices with the same attempts on both sides share every statement.
 *
 *   active, and held      ──▶ continues in the new session
 *   active, and not held  ──▶ ends, or waits again
 *   held, and not active  ──▶ judged by its past
 */
export async function openSessions(
  tx: Db,
  options: Options,
  greetings: readonly Greeting[],
): Promise<Opening[]> {
  const { ttlMs } = options;
  const opened = await presence.openAll(tx, options, greetings);
  const sessions = pairsOf(greetings, opened).map(([{ orgId, deviceId, held }, session]) => {
    return { ...options, orgId, deviceId, held, ...session };
  });
  const absent = sessions.flatMap(({ orgId, deviceId, absentSince: since }) =>
    since ? [{ orgId, deviceId, since }] : [],
  );
  await devices.noteAbsences(tx, ttlMs, absent);
  const active = Map.groupBy(await lockActive(tx, greetings), ({ deviceId }) => deviceId);
  const found = sessions.map((session) => ({ session, ...sort(session, active.get(session.deviceId)) }));
  for (const kind of attemptKinds) {
    const attempts = found.flatMap(({ session, continuing }) =>
      continuing.filter((attempt) => attempt.kind === kind).map(({ workId }) => ({ ...session, workId })),
    );
    await reconciliations[kind].adopt(tx, { ttlMs, attempts });
  }
  const openings: Opening[] = [];
  const appends: (() => Promise<void>)[] = [];
  for (const { session, continuing, missing } of found) {
    const past = await judgePast(tx, session, without(session.held, continuing));
    const { deviceId, held, epoch, sessionId, replacedReplicaId } = session;
    openings.push({
      ...{ deviceId, epoch, sessionId, replacedReplicaId, continuing },
      ...(await endMissing(tx, session, missing, appends)),
      verdicts: held.map((attempt) => judge(attempt, past.get(attempt.attemptToken))),
    });
  }
  // Appending events takes the org's lock, so no other statement follows.
  for (const append of appends) await append();
  return openings;
}

/** The active attempts that the device holds, and the others. */
function sort({ held }: Greeting, active: readonly Continuing[] = []) {
  const tokens = new Set(held.map(({ attemptToken }) => attemptToken));
  const continuing = active.filter(({ attemptToken }) => tokens.has(attemptToken));
  return { continuing, missing: without(active, continuing) };
}

/** The verdicts of held attempts that are not active, by token. */
async function judgePast(
  tx: Db,
  { orgId, deviceId }: OpeningSession,
  held: readonly Held[],
): Promise<ReadonlyMap<string, Verdict>> {
  if (held.length === 0) return new Map();
  const names = held.map(({ workId, attemptToken }) => ({ orgId, deviceId, workId, attemptToken }));
  const past = new Map<string, Verdict>(names.map(({ attemptToken }) => [attemptToken, "unknown"]));
  for (const kind of attemptKinds) {
    const verdicts = await reconciliations[kind].findVerdicts(tx, names);
    const superseded = held.filter((_, index) => verdicts[index] === "superseded");
    const arriving = superseded.filter(({ state }) => state === HeldAttemptState.FINISHED);
    await reconciliations[kind].awaitResults(tx, orgId, arriving);
    for (const [index, { attemptToken }] of held.entries()) {
      const verdict = verdicts[index];
      if (verdict && verdict !== "unknown") past.set(attemptToken, verdict);
    }
  }
  return past;
}

/** Adds the writes of the events to `appends`. */
async function endMissing(
  tx: Db,
  session: OpeningSession,
  missing: readonly Continuing[],
  appends: (() => Promise<void>)[],
): Promise<Ends> {
  const all: Ends = { settled: [], turnsEnded: [], turnsWithdrawn: [] };
  if (missing.length === 0) return all;
  for (const kind of attemptKinds) {
    const ofKind = missing.filter((attempt) => attempt.kind === kind);
    const { ends, append } = await reconciliations[kind].endMissing(tx, session, ofKind);
    Object.assign(all, ends);
    appends.push(append);
  }
  return all;
}

function without<Attempt extends { attemptToken: string }>(
  attempts: readonly Attempt[],
  others: readonly { attemptToken: string }[],
): Attempt[] {
  const tokens = new Set(others.map(({ attemptToken }) => attemptToken));
  return attempts.filter(({ attemptToken }) => !tokens.has(attemptToken));
}

/** The device's instruction for an attempt; `past` is set for an attempt that is not active. */
export function judge(held: Pick<Held, "state">, past: Verdict | undefined): HeldVerdict {
  if (past === "already_stored") return HeldVerdict.ALREADY_STORED;
  // A program's result is wanted in any case (R10): the completion's verdict tells the outcome.
  if (held.state === HeldAttemptState.FINISHED) return HeldVerdict.SEND_RESULT;
  return past ? HeldVerdict.ABORT : HeldVerdict.CONTINUE;
}
