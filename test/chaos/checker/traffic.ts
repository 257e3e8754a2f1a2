import { startingOutcomes, type TrafficRows } from "../traffic.ts";
import { mayBeOfBefore, mayBeUndone } from "./losses.ts";
import { linesOf, type Violation, type World } from "./world.ts";

/** Hooks start once, ends start their followers once, and ends are told. */

/**
 * However often a sender posts a delivery, and on whichever replica: one run. No start without a
 * delivery.
 */
export function checkHooks(world: World): Violation | undefined {
  const rule = "a hook's delivery starts one run";
  const traffic = world.rows.traffic;
  if (!traffic) return undefined;
  const rows = new Map(traffic.hookDeliveries.map((row) => [`${row.hook} ${row.key}`, row]));
  const firstAt = new Map<string, number>();
  const answered = new Map<string, string | null>();
  for (const entry of world.history) {
    if (entry.kind === "posting") firstAt.set(`${entry.hook} ${entry.key}`, entry.at);
    if (entry.kind !== "posted") continue;
    const name = `${entry.hook} ${entry.key}`;
    const violation = (what: string) => ({
      rule,
      what: `delivery ${entry.key} of hook ${entry.hook} ${what}`,
      lines: linesOf(world, entry.run === null ? {} : { run: entry.run }),
    });
    if (mayBeUndone(world, firstAt.get(name) ?? entry.at, entry.at)) continue;
    const before = answered.get(name);
    if (before !== undefined && before !== entry.run) {
      return violation(`was answered with run ${before}, and again with run ${entry.run}`);
    }
    answered.set(name, entry.run);
    const row = rows.get(name);
    if (!row) return violation("was taken in, and the database does not know it");
    if (row.run !== entry.run) return violation(`was answered with run ${entry.run}, and is run ${row.run}`);
    if (startingOutcomes.has(row.outcome) && entry.run !== null && !world.runs.has(entry.run)) {
      return violation(`was ${row.outcome} as run ${entry.run}, which is not there`);
    }
  }
  const known = new Set(traffic.hookDeliveries.map(({ id }) => id));
  const runs = new Map<string, string>();
  for (const { run, hookDelivery, isRetry } of traffic.starts) {
    if (hookDelivery === null || isRetry) continue;
    const other = runs.get(hookDelivery);
    const lines = () => linesOf(world, { run });
    if (other)
      return { rule, what: `delivery ${hookDelivery} started run ${other} and run ${run}`, lines: lines() };
    runs.set(hookDelivery, run);
    if (!known.has(hookDelivery)) return { rule, what: `run ${run} is of no delivery`, lines: lines() };
  }
  return undefined;
}

/** A completed run starts each of its followers, once; a run that did not complete starts none. */
export function checkChains(world: World): Violation | undefined {
  const rule = "the end of a run starts each follower once";
  const traffic = world.rows.traffic;
  if (!traffic) return undefined;
  const started = new Map<string, string[]>();
  for (const { run, watcher, after, isRetry } of traffic.starts) {
    if (after === null || isRetry) continue;
    const name = `${after} ${watcher}`;
    started.set(name, [...(started.get(name) ?? []), run]);
    const ended = world.runs.get(after);
    if (ended?.status === "completed") continue;
    const what = `run ${run} follows run ${after}, which is ${ended?.status ?? "not there"}`;
    return { rule, what, lines: linesOf(world, { run: after }) };
  }
  for (const { watcher, after } of traffic.followers) {
    for (const run of world.rows.runs) {
      if (run.watcher !== after || run.status !== "completed") continue;
      const count = started.get(`${run.id} ${watcher}`)?.length ?? 0;
      // A run that a device gave back after a failover has ended before, and its start may be lost.
      if (count === 1 || (count === 0 && mayBeOfBefore(world, run.finishedAt ?? 0))) continue;
      const what = `the end of run ${run.id} started its follower ${watcher} ${count} times`;
      return { rule, what, lines: linesOf(world, { run: run.id }) };
    }
  }
  return undefined;
}

const toldEnds: ReadonlySet<string> = new Set(["completed", "failed", "timeout"]);

/** Each end is told, at least once, in the order of the ends, and nothing is told that is not. */
export function checkDeliveries(world: World): Violation | undefined {
  const rule = "every end is told";
  const traffic = world.rows.traffic;
  if (!traffic) return undefined;
  const received = receivedBy(world);
  const rows = new Map(traffic.deliveries.map((row) => [row.id, row]));
  for (const [id, { run, firstAt }] of received) {
    if (rows.has(id) || mayBeOfBefore(world, firstAt)) continue;
    const what = `message ${id} of run ${run} was received, and the database does not know it`;
    return { rule, what, lines: linesOf(world, { run }) };
  }
  // Moments of a wrong clock are hours away: a try may wait until then, and nothing is lost.
  const hadWrongClock = world.history.some(
    (entry) => entry.kind === "fault" && entry.name === "database_clock",
  );
  for (const { id, run, state } of traffic.deliveries) {
    if (run === null || (state === "pending" && hadWrongClock)) continue;
    const isTaken = received.get(id)?.takenAt !== undefined;
    if (state === "delivered" && isTaken) continue;
    const what = `message ${id} of run ${run} is ${state}, and was ${isTaken ? "" : "not "}taken by its receiver`;
    return { rule, what, lines: linesOf(world, { run }) };
  }
  return checkNoneMissing(world, traffic) ?? checkOrder(world, traffic, received);
}

function checkNoneMissing(world: World, traffic: TrafficRows): Violation | undefined {
  const told = new Set(traffic.told);
  const named = new Set(traffic.deliveries.map(({ run, kind }) => `${run} ${kind}`));
  for (const { id, watcher, status, finishedAt } of world.rows.runs) {
    if (!told.has(watcher) || !toldEnds.has(status) || named.has(`${id} run.${status}`)) continue;
    if (mayBeOfBefore(world, finishedAt ?? 0)) continue;
    const what = `run ${id} is ${status}, and no message says so`;
    return { rule: "every end is told", what, lines: linesOf(world, { run: id }) };
  }
  return undefined;
}

/** X2: the messages of a watcher are taken in their order. */
function checkOrder(
  world: World,
  traffic: TrafficRows,
  received: ReadonlyMap<string, Received>,
): Violation | undefined {
  const last = new Map<string, { at: number; id: string }>();
  for (const { id, watcher, run } of [...traffic.deliveries].sort((a, b) => a.seq - b.seq)) {
    const at = received.get(id)?.takenAt;
    if (watcher === null || run === null || at === undefined) continue;
    const before = last.get(watcher);
    if (before && at < before.at) {
      const what = `message ${id} of watcher ${watcher} was taken before message ${before.id}, which is older`;
      return { rule: "messages arrive in order", what, lines: linesOf(world, { run }) };
    }
    last.set(watcher, { at, id });
  }
  return undefined;
}

type Received = { run: string; firstAt: number; takenAt: number | undefined };

/** By message: when it came first, and when it was taken first. */
function receivedBy(world: World): Map<string, Received> {
  const received = new Map<string, Received>();
  for (const entry of world.history) {
    if (entry.kind !== "received") continue;
    const { delivery, run, at, status } = entry;
    const known = received.get(delivery) ?? { run, firstAt: at, takenAt: undefined };
    if (status === 200) known.takenAt ??= at;
    received.set(delivery, known);
  }
  return received;
}
