import { slicesOf } from "../../../batches/slices.ts";
import type { Db } from "../../../store/pg/database.ts";
import type { Looks } from "../../../store/pg/looks.ts";
import * as active from "../../../store/work/attempts/active.ts";
import * as questions from "../../../store/work/turns/questions.ts";
import { attemptKinds, type Works } from "../attempts/work.ts";
import { answerMessage } from "../session/questions.ts";
import type { Session } from "../session/session.ts";
import type { Registry } from "./registry.ts";

const cancelsPerSweepMax = 10_000;
const sessionsPerSweepPart = 4_000;
/** Sessions whose attempts are listed in one turn of the event loop. */
const sessionsPerTurn = 128;
/** Attempts that make a statement of their own; idle sessions have none. */
const attemptsPerStatement = 1_000;
/** Milliseconds during which every sweep repeats an answer: a device ignores a repeated answer. */
const answersAgainMs = 45_000;
/** Minimum age, in milliseconds, of a claim whose answer counts as lost. */
const claimAnswerMs = 5_000;

/**
 * Finds the work of lost notifications, for all sessions of the replica: settled attempts,
 * requested cancels, answers, claims without an answer, and waiting work.
 */
export async function sweepSessions({
  db,
  looks,
  registry,
  works,
}: {
  db: Db;
  looks: Looks;
  registry: Registry;
  works: Works;
}): Promise<void> {
  const all = registry.sessions();
  if (all.length === 0) return;
  const { isCancelling, isClaimed, isWaiting } = await looks.ask(active.lookWaiting(claimAnswerMs));
  let out: Out[] = [];
  for await (const part of slicesOf(all, sessionsPerTurn)) {
    out.push(...part.flatMap((session) => session.assignments.list()));
    if (out.length < attemptsPerStatement) continue;
    await forgetGone(db, registry, out);
    out = [];
  }
  await forgetGone(db, registry, out);
  for (const wanted of isCancelling ? await active.listCancelling(db, cancelsPerSweepMax) : []) {
    registry.of(wanted.deviceId)?.assignments.cancel(wanted);
  }
  const holding = all.filter((session) => session.assignments.out.size > 0);
  for (const row of await questions.listAnswered(db, holding, answersAgainMs)) {
    registry.of(row.deviceId)?.answer(answerMessage(row));
  }
  // In parts, so that heartbeats are answered between the parts.
  for (let at = 0; at < all.length; at += sessionsPerSweepPart) {
    const part = all.slice(at, at + sessionsPerSweepPart);
    for (const claim of isClaimed ? await active.listClaimed(db, part, claimAnswerMs) : []) {
      registry.of(claim.deviceId)?.assignments.withdrawUnknown(claim);
    }
    for (const kind of attemptKinds.filter((kind) => isWaiting[kind])) {
      const waited = await works[kind].findWaited(part);
      for (const session of part) if (waited.has(session.deviceId)) registry.expect(session, kind);
    }
  }
}

type Out = ReturnType<Session["assignments"]["list"]>[number];

/** Takes the attempts that have ended meanwhile from their sessions. */
async function forgetGone(db: Db, registry: Registry, out: readonly Out[]): Promise<void> {
  for (const of of attemptKinds) {
    const ofKind = out.filter(({ kind }) => kind === of);
    for (const gone of await active.findGone(db, of, ofKind)) {
      registry.of(gone.deviceId)?.assignments.settled(gone.attemptToken);
    }
  }
}
