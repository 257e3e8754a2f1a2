import type { Digest, Outcome } from "../history.ts";
import { pastAttemptsMax } from "../rows.ts";
import { mayBeOfBefore } from "./losses.ts";
import { linesOf, type Violation, type World } from "./world.ts";

/**
 * R5: each result reported by a device is stored once, with its bytes; a device does not forget a
 * result that was not stored.
 */

type Reported = { run: string; device: string; firstAt: number; outcome: Outcome; output: Digest };

function reportedBy(world: World): Map<string, Reported> {
  const reported = new Map<string, Reported>();
  for (const { at, device, message } of world.sent) {
    if (message.case !== "complete" || reported.has(message.token)) continue;
    const { run, outcome, output } = message;
    reported.set(message.token, { run, device, firstAt: at, outcome, output });
  }
  return reported;
}

/** The verdict on an attempt whose result the device held: the device forgets the result then. */
type Told = { at: number; run: string; token: string; verdict: string; windowId: string };

function toldTo(world: World): Told[] {
  return world.seen.flatMap(({ at, message }): Told[] => {
    if (message.case === "completionAck") {
      const { run, token, verdict, windowId } = message;
      return [{ at, run, token, verdict, windowId }];
    }
    if (message.case !== "welcome") return [];
    // An attempt that the device is told to abort is not forgotten: a finished result is sent.
    return message.verdicts
      .filter(({ verdict }) => verdict === "already_stored")
      .map(({ run, token, verdict }) => ({ at, run, token, verdict, windowId: "" }));
  });
}

/** Every acknowledgement is true, and every sent result was acknowledged or is held. */
export function checkCompletions(world: World): Violation | undefined {
  const reported = reportedBy(world);
  const told = toldTo(world);
  const stored = new Map<string, number>();
  const lastTold = new Map(told.map((one) => [one.token, one]));
  const late = new Set(world.rows.late.map(({ token }) => token));
  for (const one of told) {
    const { at, run, token, verdict } = one;
    const isOfBefore = mayBeOfBefore(world, at);
    const rule = "an acknowledgement is true";
    const lines = () => linesOf(world, { run });
    const known = world.attempts.get(token);
    const isForgotten = (world.runs.get(run)?.past.length ?? 0) >= pastAttemptsMax;
    // Of a run that a failover lost: the device sends the result again, with the run.
    const isAskedAgain = verdict === "unknown" && world.isUndone(token) && one !== lastTold.get(token);
    if (verdict === "invalid" || (verdict === "unknown" && !isForgotten && !isAskedAgain)) {
      return {
        rule,
        what: `the result of attempt ${token} of run ${run} was answered with ${verdict}`,
        lines: lines(),
      };
    }
    if (isAskedAgain) continue;
    if (verdict === "superseded") {
      if (!known?.isReported || isOfBefore) continue;
      const what = `attempt ${token} of run ${run} is stored as reported, and its device was told that it was superseded`;
      return { rule, what, lines: lines() };
    }
    if (verdict === "stored" || verdict === "stored_late") {
      const before = stored.get(token);
      if (before !== undefined && !mayBeOfBefore(world, before)) {
        return { rule, what: `attempt ${token} of run ${run} was stored twice`, lines: lines() };
      }
      stored.set(token, at);
    }
    if (isForgotten && !known) continue;
    // A failover may have undone the answer; the device's next answer counts. After the last answer
    // the result is stored, perhaps in another place.
    if (isOfBefore && (one !== lastTold.get(token) || late.has(token))) continue;
    const problem = whyNotStored(world, one, reported.get(token));
    if (problem)
      return {
        rule,
        what: `attempt ${token} of run ${run} was answered with ${verdict}, ${problem}`,
        lines: lines(),
      };
  }
  return checkNothingLost(world, reported, new Set(told.map(({ token }) => token)));
}

function whyNotStored(world: World, told: Told, reported: Reported | undefined): string | undefined {
  const run = world.runs.get(told.run);
  const known = world.attempts.get(told.token);
  if (!run || !known) return "and the database does not know it";
  if (!known.isReported) return `and the database does not hold it: the run is ${run.status}, ${run.reason}`;
  // A "cancelled" outcome sent by the device has no bytes.
  if (!reported) return undefined;
  const { outcome } = reported;
  if (!known.isLast) {
    return outcome === "failed" || outcome === "timeout"
      ? undefined
      : `and its ${outcome} result made way for another attempt`;
  }
  if (run.status !== outcome && !(run.status === "cancelled" && told.verdict === "already_stored")) {
    return `it reported ${outcome}, and the run is ${run.status}`;
  }
  if (run.status !== "completed") return undefined;
  const windows = world.rows.windows.filter((window) => window.run === run.id);
  if (windows.length !== 1) return `and the run has ${windows.length} windows`;
  const [window] = windows;
  if (told.windowId !== "" && told.windowId !== window!.id && !mayBeOfBefore(world, told.at))
    return `as window ${told.windowId}, and the run's is ${window!.id}`;
  if (!isSame(window!.output, reported.output)) {
    return `and its bytes are others: ${JSON.stringify(reported.output)} became ${JSON.stringify(window!.output)}`;
  }
  return undefined;
}

const isSame = (a: Digest, b: Digest) => a.sha256 === b.sha256 && a.characters === b.characters;

/**
 * A sent result had been written to the disk; from then on the device keeps the result until the
 * verdict.
 */
function checkNothingLost(
  world: World,
  reported: ReadonlyMap<string, Reported>,
  answered: ReadonlySet<string>,
): Violation | undefined {
  const held = new Set(
    world.history.flatMap((entry) => (entry.kind === "held" ? entry.attempts.map(({ token }) => token) : [])),
  );
  for (const [token, { run, device, firstAt }] of reported) {
    if (answered.has(token) || held.has(token)) continue;
    // During a full disk, a result was in memory alone.
    if (hadFullDisk(world, device, firstAt)) continue;
    const what = `device ${device} sent the result of attempt ${token} of run ${run}, was never answered, and does not hold it any more`;
    return { rule: "no result is lost", what, lines: linesOf(world, { run }) };
  }
  return undefined;
}

/** From the end of an attempt to its sending, on a busy machine. */
const sendingMs = 5_000;

export function hadFullDisk(world: World, device: string, at: number): boolean {
  const host = world.hostOfDevice.get(device) ?? "";
  let isFull = false;
  for (const entry of world.history) {
    if (entry.kind !== "fault" || entry.name !== "disk_full" || !entry.targets.includes(host)) continue;
    if (entry.phase === "begin") {
      if (entry.at > at) return isFull;
      isFull = true;
    } else if (entry.at + sendingMs < at) isFull = false;
  }
  return isFull;
}

/**
 * A completed run has one window, with the bytes of its last attempt; other runs have no window.
 */
export function checkWindows(world: World): Violation | undefined {
  const rule = "one window per completed run";
  const reported = reportedBy(world);
  const windowsOf = new Map<string, number>();
  for (const { run: id, id: windowId, org, watcher, output } of world.rows.windows) {
    const run = world.runs.get(id);
    const lines = () => linesOf(world, { run: id });
    windowsOf.set(id, (windowsOf.get(id) ?? 0) + 1);
    if (
      run?.status !== "completed" ||
      run.windowId !== windowId ||
      run.org !== org ||
      run.watcher !== watcher
    ) {
      return {
        rule,
        what: `window ${windowId} is of run ${id}, which is ${run?.status ?? "not there"}`,
        lines: lines(),
      };
    }
    const sent = reported.get(run.token ?? "");
    if (sent?.outcome !== "completed" || !isSame(sent.output, output)) {
      return {
        rule,
        what: `window ${windowId} of run ${id} has bytes that its device did not send`,
        lines: lines(),
      };
    }
  }
  for (const run of world.rows.runs) {
    const count = windowsOf.get(run.id) ?? 0;
    if ((run.status === "completed" ? 1 : 0) === count) continue;
    return {
      rule,
      what: `run ${run.id} is ${run.status} and has ${count} windows`,
      lines: linesOf(world, { run: run.id }),
    };
  }
  return undefined;
}
