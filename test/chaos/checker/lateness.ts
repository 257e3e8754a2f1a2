import type { FaultKind } from "../plan.ts";
import { isOfNetwork } from "../plan.ts";
import { pastAttemptsMax, type RunRow } from "../rows.ts";
import { mayBeOfBefore } from "./losses.ts";
import { recoveryMs } from "./owners.ts";
import { iso } from "./slots.ts";
import { merge, type Span, subtract } from "./spans.ts";
import { linesOf, namesOf, type Violation, type World } from "./world.ts";

/**
 * Messages between replicas are hints. Even if hints are lost, a run that its device could take is
 * pushed at the next sweep.
 */

/** They lose hints, and nothing else; every other fault may be why a run is late. */
const lossesOfHints: ReadonlySet<FaultKind> = new Set<FaultKind>([
  ...(["notifications_lost", "listen_dropped"] as const),
  // No device and no replica waits for the receiver of messages.
  ...(["receiver_down", "receiver_slow", "receiver_errors"] as const),
]);

/** The time in which a run was due and not pushed, although nothing prevented the push. */
export type Wait = { run: RunRow; from: number; to: number };

/**
 * A run is late by at most the sweep interval, while its device is connected with a free slot and
 * no fault is active.
 */
export function checkLateness(world: World): Violation | undefined {
  const { sweepMs, pushSlackMs } = world.bounds;
  const wait = waitsAbove(world, sweepMs + pushSlackMs)[0];
  if (!wait) return undefined;
  const { run, from, to } = wait;
  const what = `run ${run.id} was due at ${iso(run.dueAt)}, and for ${Math.round(to - from)} ms from ${iso(from)} nobody pushed it to device ${run.device}, which was there and had a slot for it`;
  const ofRun = linesOf(world, { run: run.id, watcher: run.watcher });
  const ofDevice = linesOf(world, { device: run.device!, from, to });
  const lines = [...new Set([...ofRun, ...ofDevice])].sort((a, b) => a.at - b.at);
  return { rule: "late by at most the sweep", what, lines };
}

/** A frame may be so early: the promise of the look-ahead. */
const earlyMsMax = 1;

/** However early a run is recorded, its device receives the run when the run is due. */
export function checkEarliness(world: World): Violation | undefined {
  // A due time by a wrong clock is put right after the push.
  const isByWrongClock = new Set(
    world.rows.events.flatMap(({ kind, run, isByWrongClock }) =>
      kind === "run.created" && isByWrongClock && run ? [run] : [],
    ),
  );
  for (const { at, message } of world.seen) {
    if (message.case !== "assignment") continue;
    const run = world.runs.get(message.run);
    if (!run || at >= run.dueAt - earlyMsMax) continue;
    // A failover lost the run; recorded again, the run has another due time.
    if (mayBeOfBefore(world, at) || isByWrongClock.has(run.id)) continue;
    const what = `run ${run.id} was due at ${iso(run.dueAt)} and pushed ${Math.round(run.dueAt - at)} ms before`;
    return {
      rule: "never pushed before it is due",
      what,
      lines: linesOf(world, { run: run.id, watcher: run.watcher }),
    };
  }
  return undefined;
}

/**
 * The longest time of each run in which only the push was missing, if longer than `ms`
 * milliseconds.
 */
export function waitsAbove(world: World, ms: number): Wait[] {
  const created = new Set(
    world.rows.events.flatMap(({ kind, run }) => (kind === "run.created" && run ? [run] : [])),
  );
  const pushed = firstPushes(world);
  const end = world.history.at(-1)?.at ?? 0;
  // Obstacles are only computed for the few runs that waited at all.
  const unpinned = new Set(world.rows.watchers.flatMap(({ id, device }) => (device === null ? [id] : [])));
  const late = world.rows.runs.flatMap((run) => {
    const to = pushed.get(run.id) ?? run.finishedAt ?? end;
    // The row of a run that is pinned to no device names the last of its workers, not the first.
    const isKnown = run.device !== null && (!unpinned.has(run.watcher) || run.past.length === 0);
    return isKnown && created.has(run.id) && to - run.dueAt > ms ? [{ run, to }] : [];
  });
  if (late.length === 0) return [];
  const connected = connectedSpans(world);
  const struck = struckSpans(world);
  const busy = busySpans(world);
  const active = activeSpans(world);
  return late.flatMap(({ run, to }) => {
    const others = <T extends { run: string }>(spans: readonly T[] = []) =>
      spans.filter((span) => span.run !== run.id);
    const holes = merge([
      ...(struck.get(run.device!) ?? []),
      ...fullSpans(others(busy.get(run.device!)), world.slotsOfDevice.get(run.device!) ?? 0),
      ...others(active.get(run.watcher)),
    ]);
    const clear = (connected.get(run.device!) ?? []).map((span) => ({
      from: Math.max(span.from, run.dueAt),
      to: Math.min(span.to, to),
    }));
    const longest = subtract(clear, holes).sort((a, b) => b.to - b.from - (a.to - a.from))[0];
    return longest && longest.to - longest.from > ms ? [{ run, ...longest }] : [];
  });
}

/** The moment when a run's own device first received the run. */
function firstPushes(world: World): Map<string, number> {
  const pushed = new Map<string, number>();
  for (const { at, message } of world.seen) {
    if (message.case === "assignment" && !pushed.has(message.run)) pushed.set(message.run, at);
  }
  return pushed;
}

/**
 * The spans in which each device had a stream to a replica that was up and answered: between two
 * messages of one stream at most half a TTL apart, until the replica asks for the end of the
 * stream.
 */
function connectedSpans(world: World): Map<string, Span[]> {
  const spans = new Map<string, Span[]>();
  const last = new Map<string, { span: Span; isDrained: boolean }>();
  for (const { at, device, stream, message } of world.seen) {
    const before = last.get(stream);
    const isDrained = message.case === "drain" || before?.isDrained === true;
    if (before && !before.isDrained && at - before.span.to <= world.bounds.ttlMs / 2) {
      before.span.to = at;
      before.isDrained = isDrained;
      continue;
    }
    const span = { from: at, to: at };
    last.set(stream, { span, isDrained });
    append(spans, device, span);
  }
  return spans;
}

/** The spans in which a fault other than lost hints affected each device, or had just ended. */
function struckSpans(world: World): Map<string, Span[]> {
  const spans = new Map<string, Span[]>();
  const devices = [...world.slotsOfDevice.keys()];
  const onHost = (names: readonly string[]) =>
    devices.filter((device) => names.includes(world.hostOfDevice.get(device) ?? ""));
  const open = new Map<string, { from: number; devices: readonly string[] }>();
  const begin = (name: string, from: number, struck: readonly string[]) => {
    if (!open.has(name)) open.set(name, { from, devices: struck });
  };
  const end = (name: string, to: number) => {
    const fault = open.get(name);
    open.delete(name);
    for (const device of fault?.devices ?? []) append(spans, device, { from: fault!.from, to });
  };
  for (const entry of world.history) {
    if (entry.kind === "fault" && !lossesOfHints.has(entry.name)) {
      const { name, targets } = entry;
      const isOfHost = name.startsWith("host") || name === "disk_full";
      const struck = isOfNetwork(name) ? targets : isOfHost ? onHost(targets) : devices;
      if (entry.phase === "begin") begin(`fault ${entry.fault}`, entry.at, struck);
      else end(`fault ${entry.fault}`, entry.at + recoveryMs(world.bounds));
    } else if (entry.kind === "replica") {
      // A replica replaced in an orderly way also loses the pushes it was about to make.
      const isBack = entry.phase === "serving" || entry.phase === "continued";
      if (isBack) end(entry.replica, entry.at + recoveryMs(world.bounds));
      else begin(entry.replica, entry.at, devices);
    }
  }
  for (const name of [...open.keys()]) end(name, Number.POSITIVE_INFINITY);
  return spans;
}

/**
 * The spans in which attempts used a slot of each device: from the claim until both the database
 * and the device have ended the attempt.
 */
function busySpans(world: World): Map<string, (Span & { run: string })[]> {
  const lastWord = new Map<string, number>();
  for (const { at, message } of [...world.sent, ...world.seen]) {
    if (message.case === "heartbeat" || message.case === "heartbeatAck" || message.case === "output")
      continue;
    for (const { token } of namesOf(message)) {
      lastWord.set(token, Math.max(at, lastWord.get(token) ?? 0));
    }
  }
  const holders = new Map(
    world.seen.flatMap(({ device, message }) =>
      message.case === "assignment" ? [[message.token, device] as const] : [],
    ),
  );
  const spans = new Map<string, (Span & { run: string })[]>();
  for (const { token, run, claimedAt, endedAt, fencedAt } of world.attempts.values()) {
    const holder = holders.get(token) ?? run.device;
    if (holder === null) continue;
    const to = Math.max(endedAt ?? Number.POSITIVE_INFINITY, fencedAt ?? 0, lastWord.get(token) ?? 0);
    // A run claimed ahead uses no slot before its due time.
    append(spans, holder, { run: run.id, from: Math.max(claimedAt, run.dueAt), to });
  }
  for (const run of world.rows.runs) {
    if (run.device === null || run.past.length < pastAttemptsMax) continue;
    // The run's first attempts are no longer known.
    append(spans, run.device, { run: run.id, from: run.dueAt, to: Number.POSITIVE_INFINITY });
  }
  return spans;
}

/** The spans in which at least `slots` of the given spans overlap. */
export function fullSpans(spans: readonly Span[], slots: number): Span[] {
  const turns = spans
    .flatMap(({ from, to }) => [
      { at: from, by: 1 },
      { at: to, by: -1 },
    ])
    .sort((a, b) => a.at - b.at || a.by - b.by);
  const full: Span[] = [];
  let count = 0;
  let from: number | undefined = slots <= 0 ? Number.NEGATIVE_INFINITY : undefined;
  for (const { at, by } of turns) {
    count += by;
    if (from === undefined && count >= slots) from = at;
    else if (from !== undefined && count < slots) {
      full.push({ from, to: at });
      from = undefined;
    }
  }
  if (from !== undefined) full.push({ from, to: Number.POSITIVE_INFINITY });
  return full;
}

const runEnds = new Set(["run.completed", "run.failed", "run.timeout", "run.cancelled", "run.skipped"]);

/**
 * The spans in which each watcher had an active run: no other run of the watcher may begin
 * meanwhile.
 */
function activeSpans(world: World): Map<string, (Span & { run: string })[]> {
  const spans = new Map<string, (Span & { run: string })[]>();
  const open = new Map<string, Span & { run: string }>();
  for (const { kind, run, watcher, committedAt } of world.rows.events) {
    if (!run || !watcher) continue;
    if (kind === "run.created") {
      const span = { run, from: committedAt, to: Number.POSITIVE_INFINITY };
      open.set(run, span);
      append(spans, watcher, span);
    } else if (runEnds.has(kind)) {
      const span = open.get(run);
      if (span) span.to = committedAt;
    }
  }
  return spans;
}

function append<T>(lists: Map<string, T[]>, name: string, item: T): void {
  const list = lists.get(name);
  if (list) list.push(item);
  else lists.set(name, [item]);
}
