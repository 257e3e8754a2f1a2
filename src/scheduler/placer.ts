import type { Logger } from "../log.ts";
import type { Quotas } from "../store/people/quotas.ts";
import * as rights from "../store/people/rights.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import { isUnavailable } from "../store/pg/failures.ts";
import * as events from "../store/work/events.ts";
import * as placements from "../store/work/placements.ts";
import * as spreads from "../store/work/spreads.ts";
import { createPlan, type Plan, type Rights } from "./placement.ts";

/**
 * Places gated runs: runs with a selector, and runs held back by a group or a rate limit. A pass
 * handles one org, in one transaction under the org's lock, on any replica. Passes are requested
 * after changes that may give a held run its place, and by the sweep; orgs without gated runs cost
 * nothing.
 *
 *   held ──place──▶ pending with its device ──claim──▶ …
 *     ▲                    │ its device goes, or does not take the run
 *     └────take back───────┘  (a gated run back in pending is held again: settlements.ts)
 */
export type Placer = {
  /** A run was recorded that needs placing, now or when it falls due. */
  recorded(orgId: string, dueAt: Date): void;
  /** A slot may be free, or a group have room: of interest where gated runs live. */
  freed(orgId: string): void;
  /** As {@link freed}, at a later time. */
  freedAt(orgId: string, at: Date): void;
  /** Facts of devices, or the rights to use them, have changed. */
  changed(orgId: string): void;
  /** Another replica has gated runs of the org. */
  heard(orgId: string): void;
  /** Checks every org with gated runs. */
  sweep(): Promise<void>;
  idle(): Promise<void>;
  stop(): void;
};

/** The placed runs' devices, to be notified. */
export type Rung = { orgId: string; deviceId: string | null };

/** Held runs per read, and reads per pass. */
const heldPerPage = 2_000;
const pagesPerPass = 50;
/** Maximum runs placed per pass; the next pass continues. */
const placedPerPassMax = 500;
/** Maximum runs spread per pass: each becomes a run for every matching device. */
const spreadsPerPassMax = 20;
/** A placed run not claimed by its device for this time, in milliseconds, is held again. */
export const patienceMs = 10_000;
/**
 * Milliseconds that a replica assumes gated runs in an org, and milliseconds between announcements
 * to other replicas.
 */
const knownMs = 60_000;
const announceMs = 10_000;
/** Maximum number of pending timers for passes. */
const timersMax = 1_000;

export function createPlacer(options: {
  db: Db;
  log: Logger;
  ttlMs: number;
  quotas: Pick<Quotas, "find" | "add">;
  /** Rings the devices, after the commit. */
  ring: (placed: readonly Rung[]) => void;
  /** Runs changed; their watchers are woken. */
  moved: (runs: readonly { orgId: string; runId: string }[]) => void;
  /** Tells other replicas that the org has gated runs. */
  announce: (orgId: string) => void;
}): Placer {
  const { db, log } = options;
  const asked = new Set<string>();
  const known = new Map<string, number>();
  const announcedAt = new Map<string, number>();
  const timers = new Map<string, { at: number; timer: NodeJS.Timeout }>();
  let running: Promise<void> | undefined;
  let isStopped = false;

  function ask(orgId: string): void {
    if (isStopped) return;
    asked.add(orgId);
    running ??= drain();
  }

  async function drain(): Promise<void> {
    // Requests in the same turn of the event loop share a pass.
    await Promise.resolve();
    for (const orgId of asked) {
      asked.delete(orgId);
      try {
        await serve(orgId);
      } catch (error) {
        // The sweep comes again.
        log[isUnavailable(error) ? "warn" : "error"]({ err: error, orgId }, "runs were not placed");
      }
    }
    running = undefined;
    if (asked.size > 0) running = drain();
  }

  async function serve(orgId: string): Promise<void> {
    const passed = await placeOnce(db, { ...options, orgId });
    options.ring(passed.rung);
    options.moved(passed.moved);
    if (passed.live === 0) known.delete(orgId);
    else remember(orgId);
    if (passed.isMore) ask(orgId);
    else if (passed.againMs !== undefined) later(orgId, Date.now() + passed.againMs);
  }

  function remember(orgId: string): void {
    const now = Date.now();
    known.set(orgId, now + knownMs);
    if ((announcedAt.get(orgId) ?? 0) > now - announceMs) return;
    announcedAt.set(orgId, now);
    options.announce(orgId);
  }

  function isKnown(orgId: string): boolean {
    const until = known.get(orgId);
    if (until === undefined) return false;
    if (until > Date.now()) return true;
    known.delete(orgId);
    announcedAt.delete(orgId);
    return false;
  }

  /** A timer for each org, for its earliest time; a pass sets the next timer. */
  function later(orgId: string, at: number): void {
    if (isStopped) return;
    const before = timers.get(orgId);
    if (before && before.at <= at) return;
    if (!before && timers.size >= timersMax) return;
    clearTimeout(before?.timer);
    const timer = setTimeout(
      () => {
        timers.delete(orgId);
        ask(orgId);
      },
      // Slightly after the time, because the database's clock decides.
      Math.min(Math.max(0, at - Date.now()) + 5, 2_147_483_647),
    );
    timer.unref();
    timers.set(orgId, { at, timer });
  }

  return {
    recorded(orgId, dueAt) {
      remember(orgId);
      if (dueAt.getTime() <= Date.now()) ask(orgId);
      else later(orgId, dueAt.getTime());
    },
    freed(orgId) {
      if (isKnown(orgId)) ask(orgId);
    },
    freedAt(orgId, at) {
      if (isKnown(orgId)) later(orgId, at.getTime());
    },
    changed: (orgId) => ask(orgId),
    heard(orgId) {
      known.set(orgId, Date.now() + knownMs);
    },
    async sweep() {
      for (const orgId of await placements.listOrgs(db)) ask(orgId);
      await running;
    },
    async idle() {
      while (running) await running;
    },
    stop() {
      isStopped = true;
      for (const { timer } of timers.values()) clearTimeout(timer);
      timers.clear();
    },
  };
}

export type Pass = {
  rung: Rung[];
  moved: { orgId: string; runId: string }[];
  /** Number of live gated runs of the org. */
  live: number;
  /** There is more to place at once. */
  isMore: boolean;
  /** Milliseconds after which time alone may give a run its place. */
  againMs: number | undefined;
};

/** A pass over an org's held runs. */
export function placeOnce(
  db: Db,
  options: { orgId: string; ttlMs: number; quotas: Pick<Quotas, "find" | "add"> },
): Promise<Pass> {
  const { orgId, ttlMs } = options;
  return transaction(db, async (tx) => {
    const pass: Pass = { rung: [], moved: [], live: 0, isMore: false, againMs: undefined };
    await placements.lockOrg(tx, orgId);
    pass.live = await placements.tidy(tx, orgId);
    if (pass.live === 0) return pass;
    await placements.takeBack(tx, { orgId, ttlMs, patienceMs });
    pass.againMs = await placements.findNextMs(tx, orgId);
    let page = await placements.listHeld(tx, { orgId, limit: heldPerPage });
    if (page.length === 0) return pass;
    const know = await knowing(tx, { orgId, ttlMs });
    let plan: Plan | undefined;
    const places: { run: placements.Held; deviceId: string | null }[] = [];
    const reasons: { runId: string; watcherId: string; reason: string; before: string }[] = [];
    const spread: placements.Held[] = [];
    const again = (ms: number) => {
      pass.againMs = Math.min(pass.againMs ?? Number.POSITIVE_INFINITY, ms);
    };
    for (
      let pages = 0;
      page.length > 0 && pages < pagesPerPass && places.length < placedPerPassMax;
      pages++
    ) {
      plan = await know.planFor(page, plan);
      for (const run of page) {
        if (run.spread === "all") {
          if (spread.length < spreadsPerPassMax) spread.push(run);
          else pass.isMore = true;
          continue;
        }
        const verdict = plan.next(run);
        if ("deviceId" in verdict) places.push({ run, deviceId: verdict.deviceId });
        else {
          if (verdict.againMs !== undefined) again(verdict.againMs);
          reasons.push({
            ...{ runId: run.runId, watcherId: run.watcherId },
            ...{ reason: verdict.waits, before: run.reason },
          });
        }
        if (places.length >= placedPerPassMax) {
          pass.isMore = true;
          break;
        }
      }
      const last = page.at(-1)!;
      page =
        page.length < heldPerPage
          ? []
          : await placements.listHeld(tx, { orgId, after: last, limit: heldPerPage });
    }
    const placed = await placements.place(
      tx,
      orgId,
      places.map(({ run, deviceId }) => ({ runId: run.runId, deviceId })),
    );
    const written: Omit<events.NewEvent, "orgId">[] = placed.map(({ runId, watcherId, deviceId }) => ({
      kind: "run.placed",
      actor: "pinion",
      ...{ runId, watcherId, deviceId },
    }));
    await noteStarts(tx, orgId, places, placed);
    for (const run of spread) {
      const result = await spreadOut(tx, { ...options, run, plan: plan! });
      if ("waits" in result) {
        reasons.push({
          ...{ runId: run.runId, watcherId: run.watcherId },
          ...{ reason: result.waits, before: run.reason },
        });
        continue;
      }
      for (const { runId, watcherId, deviceId, isHeld } of result.runs) {
        pass.moved.push({ orgId, runId });
        if (isHeld) pass.isMore = true;
        else pass.rung.push({ orgId, deviceId });
        written.push(
          runId === run.runId
            ? {
                kind: "run.placed",
                actor: "pinion",
                runId,
                watcherId,
                deviceId,
                data: { devices: result.runs.length },
              }
            : {
                kind: "run.created",
                actor: "pinion",
                runId,
                watcherId,
                deviceId,
                data: { spread_of: run.runId },
              },
        );
      }
    }
    const changed = reasons.filter(({ reason, before }) => reason !== before);
    await placements.explain(tx, orgId, changed);
    for (const { runId, watcherId, reason, before } of changed) {
      pass.moved.push({ orgId, runId });
      // A missing match is reported once; busy devices change too often for the log.
      if (before === "" && /no device that matches/.test(reason)) {
        written.push({ kind: "run.waiting", actor: "pinion", runId, watcherId, data: { reason } });
      }
    }
    pass.rung.push(...placed.map(({ deviceId }) => ({ orgId, deviceId })));
    pass.moved.push(...placed.map(({ runId }) => ({ orgId, runId })));
    // Placed runs are checked again later: their devices may not take them.
    if (placed.length > 0) again(patienceMs + 100);
    await events.append(tx, orgId, written);
    return pass;
  });
}

async function noteStarts(
  tx: Db,
  orgId: string,
  places: readonly { run: placements.Held }[],
  placed: readonly placements.Placed[],
): Promise<void> {
  const begun = new Set(placed.map(({ runId }) => runId));
  const counts = new Map<string, number>();
  for (const { run } of places) {
    if (run.rateKey !== null && begun.has(run.runId))
      counts.set(run.rateKey, (counts.get(run.rateKey) ?? 0) + 1);
  }
  const starts = [...counts].map(([key, count]) => ({ key, count })).sort((a, b) => (a.key < b.key ? -1 : 1));
  await placements.noteStarts(tx, orgId, starts);
}

/** Turns a run into a run for each matching device, or returns the reason for waiting. */
async function spreadOut(
  tx: Db,
  options: { orgId: string; quotas: Pick<Quotas, "find" | "add">; run: placements.Held; plan: Plan },
): Promise<{ runs: spreads.Spread[] } | { waits: string }> {
  const { orgId, run, plan, quotas } = options;
  const eligible = plan.eligible(run);
  if (eligible.length === 0) return { waits: "no device that matches its selector can be used for it" };
  const busy = await spreads.listBusy(tx, { orgId, watcherId: run.watcherId });
  const deviceIds = eligible.flatMap(({ deviceId }) => (busy.has(deviceId) ? [] : [deviceId]));
  if (deviceIds.length === 0) {
    return { waits: "its watcher has a live run on every device that matches its selector" };
  }
  const { room, max } = (await quotas.find(tx, "runs", [orgId])).get(orgId)!;
  if (deviceIds.length - 1 > room) {
    return { waits: `it would become ${deviceIds.length} runs, and the org may have ${max} active ones` };
  }
  const runs = await spreads.spread(tx, { orgId, runId: run.runId, deviceIds });
  quotas.add("runs", orgId, Math.max(0, runs.length - 1));
  return { runs };
}

/**
 * Reads the facts that a plan needs for pages of held runs. The plan remembers assignments of
 * earlier pages; a page with an unknown group, key or actor needs a new plan, which counts the
 * assignments again.
 */
export async function knowing(
  tx: Db,
  { orgId, ttlMs, ...given }: { orgId: string; ttlMs: number; devices?: placements.Candidate[] },
) {
  const runs: placements.Held[] = [];
  const names = { groups: new Set<string>(), rates: new Set<string>(), actors: new Set<string>() };
  const known = new Map<string, ReturnType<Rights>>();
  let devices = given.devices;
  let hasAll = devices !== undefined;
  const rights: Rights = (actor) => known.get(actor) ?? { use: new Set(), read: new Set() };

  return {
    async planFor(page: readonly placements.Held[], before: Plan | undefined): Promise<Plan> {
      let isNew = before === undefined;
      const add = (set: Set<string>, name: string | null) => {
        if (name === null || set.has(name)) return;
        set.add(name);
        isNew = true;
      };
      for (const run of page) {
        add(names.groups, run.groupName);
        add(names.rates, run.rateKey);
        if (run.selector === null) continue;
        add(names.actors, run.sponsor);
        add(names.actors, run.askedBy);
      }
      // A spread run also goes to absent devices, and a run with a session waits for the session's
      // device.
      const needsAll = page.some((run) => run.spread === "all" || run.sessionDeviceId !== null);
      if (!devices || (needsAll && !hasAll)) {
        devices = await placements.listCandidates(tx, { orgId, ttlMs, onlineOnly: !needsAll });
        hasAll = needsAll;
        known.clear();
        isNew = true;
      }
      for (const actor of names.actors) {
        if (!known.has(actor)) known.set(actor, await rightsOf(tx, orgId, actor, devices));
      }
      let plan = before;
      if (!plan || isNew) {
        plan = createPlan({
          devices,
          groups: await placements.countGroups(tx, orgId, [...names.groups]),
          rates: await placements.readRates(tx, orgId, [...names.rates]),
          rights,
        });
        for (const run of runs) if (run.spread !== "all") plan.next(run);
      }
      runs.push(...page);
      return plan;
    },
    devices: () => devices ?? [],
  };
}

/** The devices that an actor may use, and read; runs created by Pinion itself may use and read all. */
async function rightsOf(
  tx: Db,
  orgId: string,
  actor: string,
  devices: readonly placements.Candidate[],
): Promise<ReturnType<Rights>> {
  const all = devices.map(({ deviceId }) => deviceId);
  const who = rights.whoOf(actor);
  if (!who) return { use: new Set(all), read: new Set(all) };
  const found = await rights.standings(tx, { orgId, who, deviceIds: all });
  const to = (deed: "use" | "read") =>
    new Set(found.flatMap((each) => (rights.rightTo(deed, each) ? [each.deviceId] : [])));
  return { use: to("use"), read: to("read") };
}
