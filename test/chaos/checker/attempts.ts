import type { AttemptName } from "../history.ts";
import { iso } from "./slots.ts";
import { linesOf, type Violation, type World } from "./world.ts";

/** R1, and the part of R5 about the fence. */

/**
 * At no moment does a watcher have two active runs, or a run two attempts, by the database's clock
 * and its order of commits.
 */
export function checkAttempts(world: World): Violation | undefined {
  return checkActiveRuns(world) ?? checkCurrentAttempts(world);
}

const finished = ["completed", "failed", "timeout", "cancelled"];
/** A late result ends the run, too, while no later attempt has been claimed. */
const ends = new Set(
  [...finished, ...finished.map((status) => `${status}_late`), "skipped"].map((end) => `run.${end}`),
);

function checkActiveRuns(world: World): Violation | undefined {
  const active = new Map<string, string>();
  // The log of an org is in the order of its commits.
  for (const { kind, run, watcher, committedAt } of world.rows.events) {
    if (!run || !watcher) continue;
    if (ends.has(kind) && active.get(watcher) === run) active.delete(watcher);
    if (kind !== "run.created") continue;
    const other = active.get(watcher);
    if (other !== undefined) {
      const what = `run ${run} of watcher ${watcher} began at ${iso(committedAt)} while run ${other} was active`;
      return {
        rule: "one active run per watcher",
        what,
        lines: [...linesOf(world, { run: other }), ...linesOf(world, { run })],
      };
    }
    active.set(watcher, run);
  }
  return undefined;
}

function checkCurrentAttempts(world: World): Violation | undefined {
  const rule = "one current attempt per run";
  const runOfToken = new Map<string, string>();
  for (const run of world.rows.runs) {
    // A restored attempt has the times of its restoration.
    const attempts = run.past
      .filter(({ isRestored }) => !isRestored)
      .map(({ token, claimedAt, endedAt }) => ({ token, claimedAt, endedAt }));
    if (run.token !== null) {
      const endedAt = run.finishedAt ?? Number.POSITIVE_INFINITY;
      attempts.push({ token: run.token, claimedAt: run.claimedAt ?? Number.NaN, endedAt });
    }
    for (const [index, attempt] of attempts.entries()) {
      const other = runOfToken.get(attempt.token);
      if (other !== undefined) {
        const what = `the token ${attempt.token} is in run ${other} and again in run ${run.id}`;
        return { rule, what, lines: linesOf(world, { run: run.id }) };
      }
      runOfToken.set(attempt.token, run.id);
      const before = attempts[index - 1];
      if (!before || attempt.claimedAt >= before.endedAt) continue;
      const claimed = Number.isNaN(attempt.claimedAt)
        ? "never claimed"
        : `claimed at ${iso(attempt.claimedAt)}`;
      const what = `run ${run.id} was ${claimed} and its attempt before ended at ${iso(before.endedAt)}`;
      return { rule, what, lines: linesOf(world, { run: run.id }) };
    }
  }
  return undefined;
}

/** A device that asks about an attempt after the attempt was taken away is not told to go on. */
export function checkFences(world: World): Violation | undefined {
  const asked = new Map<string, { at: number; held: (AttemptName & { state: "running" | "finished" })[] }>();
  for (const { at, stream, message } of world.sent) {
    if (message.case === "hello") asked.set(stream, { at, held: message.held });
  }
  for (const { device, stream, message } of world.seen) {
    if (message.case !== "welcome") continue;
    const hello = asked.get(stream);
    if (!hello) continue;
    for (const { run, token, verdict } of message.verdicts) {
      const fencedAt = world.attempts.get(token)?.fencedAt;
      if (fencedAt === undefined || hello.at <= fencedAt) continue;
      if (verdict !== "continue" && verdict !== "send_result") continue;
      // R10: the result of an ended program is wanted, even if late.
      const told = hello.held.find((attempt) => attempt.token === token);
      if (verdict === "send_result" && told?.state === "finished") continue;
      const what = `device ${device} asked at ${iso(hello.at)} about an attempt that ended at ${iso(fencedAt)}, and was told ${verdict}`;
      return { rule: "a fenced attempt stays fenced", what, lines: linesOf(world, { run }) };
    }
  }
  return undefined;
}
