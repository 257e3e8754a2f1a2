import type { Db } from "../../store/pg/database.ts";
import * as questions from "../../store/work/questions.ts";
import { answerMessage } from "./questions.ts";
import type { Registry } from "./registry.ts";
import type { Session } from "./session.ts";
import { type AttemptKind, attemptKinds, type Works } from "./work.ts";

const cancelsPerSweepMax = 10_000;
const sessionsPerSweepPart = 4_000;
/** An answer is said again by each sweep for so long: its device ignores an answer that it has. */
const answersAgainMs = 45_000;
/** A claim whose answer was lost is this old when the sweep looks. */
const claimAnswerMs = 5_000;

/**
 * Makes good what lost notifications missed, for all sessions of the replica: settled attempts, wanted ends, answers,
 * claims whose answer was lost, and work that waits. `expect` wakes a session for work of a kind.
 */
export async function sweepSessions(
  { db, registry, works }: { db: Db; registry: Registry; works: Works },
  expect: (session: Session, kind: AttemptKind) => void,
): Promise<void> {
  const all = registry.sessions();
  if (all.length === 0) return;
  const out = all.flatMap((session) => session.attemptsOut());
  for (const of of attemptKinds) {
    for (const gone of await works[of].findGone(out.filter(({ kind }) => kind === of))) {
      registry.of(gone.deviceId)?.settled(gone.attemptToken);
    }
    for (const wanted of await works[of].listCancelling(cancelsPerSweepMax)) {
      registry.of(wanted.deviceId)?.cancel(wanted);
    }
  }
  const holding = all.filter((session) => session.activeCount > 0);
  for (const row of await questions.listAnswered(db, holding, answersAgainMs)) {
    registry.of(row.deviceId)?.answer(answerMessage(row));
  }
  // In parts, so that beats are answered in between.
  for (let at = 0; at < all.length; at += sessionsPerSweepPart) {
    const part = all.slice(at, at + sessionsPerSweepPart);
    for (const kind of attemptKinds) {
      for (const claim of await works[kind].listClaimed(part, claimAnswerMs)) {
        registry.of(claim.deviceId)?.withdrawUnknown({ ...claim, kind });
      }
      const waited = await works[kind].findWaited(part);
      for (const session of part) if (waited.has(session.deviceId)) expect(session, kind);
    }
  }
}
