import { pastAttemptsMax } from "../rows.ts";
import { hadFullDisk } from "./completions.ts";
import { iso } from "./slots.ts";
import { linesOf, type Violation, type World } from "./world.ts";

/**
 * R10: the result of a finished program is stored, as its run's end or as a late result, or is
 * still held by its device. The program itself records its finish, within the device's process,
 * before the rest of the system hears of the result.
 */

/** From the end of a program until its result is on the device's disk, on a busy machine. */
const writingMs = 3_000;

/** From the last line of a child program to its exit, on a busy machine. */
const exitMs = 2_000;

/** From the word to end a program until its signal is there, on a busy machine. */
const signalMs = 80;

/**
 * Whether the device was told to end the attempt's program so that the signal may have reached the
 * program between its last line and its exit.
 */
function wasEnding(world: World, token: string, at: number): boolean {
  return world.seen.some(
    ({ at: seenAt, message }) =>
      seenAt >= at - signalMs &&
      seenAt <= at + exitMs &&
      message.case === "cancel" &&
      message.token === token,
  );
}

export function checkPrograms(world: World): Violation | undefined {
  const late = new Set(world.rows.late.map(({ token }) => token));
  const held = new Set(
    world.history.flatMap((entry) => (entry.kind === "held" ? entry.attempts.map(({ token }) => token) : [])),
  );
  const finished = new Map<string, number>();
  for (const entry of world.history) {
    if (entry.kind !== "work" || entry.phase !== "finished") continue;
    const { device, run, token, at } = entry;
    const rule = "a finished program's result is kept";
    const times = (finished.get(token) ?? 0) + 1;
    finished.set(token, times);
    if (times > 1) {
      const what = `the program of attempt ${token} of run ${run} finished ${times} times`;
      return { rule, what, lines: linesOf(world, { run }) };
    }
    if (world.attempts.get(token)?.isReported || late.has(token) || held.has(token)) continue;
    if (isMemoryLost(world, device, at)) continue;
    if (entry.isProgram && wasEnding(world, token, at)) continue;
    // Of a run with more attempts the oldest are not known any more.
    if ((world.runs.get(run)?.past.length ?? 0) >= pastAttemptsMax) continue;
    const what = `the program of attempt ${token} of run ${run} finished on device ${device}, and its result is nowhere`;
    return { rule, what, lines: linesOf(world, { run }) };
  }
  return undefined;
}

/**
 * A run whose device has sent a completed result does not run again there, even if a failover lost
 * the run and its slot is recorded anew. A slot has one name, whatever its runs are called.
 */
export function checkReruns(world: World): Violation | undefined {
  const slotOf = new Map<string, string>();
  for (const { message } of world.seen) {
    if (message.case !== "assignment") continue;
    const { run, token, watcher, slot } = message;
    slotOf.set(token, typeof slot === "number" ? `${watcher} ${slot}` : run);
  }
  const sent = new Map<string, { at: number; token: string; run: string }>();
  for (const { at, device, message } of world.sent) {
    if (message.case !== "complete" || message.outcome !== "completed") continue;
    const { run, token } = message;
    const name = `${device} ${slotOf.get(token)}`;
    if (slotOf.has(token) && !sent.has(name)) sent.set(name, { at, token, run });
  }
  for (const entry of world.history) {
    if (entry.kind !== "work" || entry.phase !== "begun") continue;
    const { at, device, run, token } = entry;
    const first = sent.get(`${device} ${slotOf.get(token)}`);
    if (!first || first.token === token || at <= first.at) continue;
    // The device kept the result in memory alone.
    if (hadFullDisk(world, device, first.at)) continue;
    const what = `the program of run ${run} began again on device ${device} at ${iso(at)}, though the device had sent its result (attempt ${first.token} of run ${first.run}) at ${iso(first.at)}`;
    const lines = [
      ...linesOf(world, { run: first.run }),
      ...(first.run === run ? [] : linesOf(world, { run })),
    ];
    return { rule: "a finished slot's program does not run again", what, lines };
  }
  return undefined;
}

/**
 * Whether the device's process was killed before the result of a program that finished at `at` can
 * have been on the disk.
 */
function isMemoryLost(world: World, device: string, at: number): boolean {
  const host = world.hostOfDevice.get(device) ?? "";
  const delays = fullSpans(world, host).filter(({ from, to }) => from <= at + writingMs && to >= at);
  const writtenBy = Math.max(at, ...delays.map(({ to }) => to)) + writingMs;
  return world.history.some(
    (entry) =>
      entry.kind === "host" &&
      entry.host === host &&
      entry.phase === "killed" &&
      entry.at >= at &&
      entry.at <= writtenBy,
  );
}

/** The spans in which a host's disk was full. */
function fullSpans(world: World, host: string): { from: number; to: number }[] {
  const spans: { from: number; to: number }[] = [];
  for (const entry of world.history) {
    if (entry.kind !== "fault" || entry.name !== "disk_full" || !entry.targets.includes(host)) continue;
    if (entry.phase === "begin") spans.push({ from: entry.at, to: Number.POSITIVE_INFINITY });
    else Object.assign(spans.at(-1) ?? {}, { to: entry.at });
  }
  return spans;
}
