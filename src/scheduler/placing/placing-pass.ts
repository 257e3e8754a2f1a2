import * as rights from "../../store/people/devices/rights.ts";
import type { Quotas } from "../../store/people/orgs/quotas.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import * as placements from "../../store/work/runs/placements.ts";
import * as restoredStarts from "../../store/work/runs/restored-starts.ts";
import * as spreads from "../../store/work/runs/spreads.ts";
import * as events from "../../store/work/service/events.ts";
import { createPlan, type Plan, type Rights } from "./placement.ts";

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

type PassOptions = { orgId: string; ttlMs: number; quotas: Pick<Quotas, "findRoom" | "add"> };
type Reason = { runId: string; watcherId: string; reason: string; before: string };
type NewEvent = Omit<events.NewEvent, "orgId">;

/** What a pass has decided, before the writes. */
type Decided = {
  places: { run: placements.Held; deviceId: string | null }[];
  reasons: Reason[];
  /** Runs for every matching device. */
  spread: placements.Held[];
  plan: Plan | undefined;
};

/** A pass over an org's held runs. */
export function placeOnce(db: Db, options: PassOptions): Promise<Pass> {
  const { orgId, ttlMs } = options;
  return transaction(db, async (tx) => {
    const pass: Pass = { rung: [], moved: [], live: 0, isMore: false, againMs: undefined };
    await placements.lockOrg(tx, orgId);
    pass.live = await placements.tidy(tx, orgId);
    if (pass.live === 0) return pass;
    await placements.takeBack(tx, { orgId, ttlMs, patienceMs });
    pass.againMs = await placements.findNextMs(tx, orgId);
    const page = await placements.listHeld(tx, { orgId, limit: heldPerPage });
    if (page.length === 0) return pass;
    const decided = await decide(tx, options, page, pass);
    const written = await writePlaces(tx, orgId, decided, pass);
    written.push(...(await writeSpreads(tx, options, decided, pass)));
    written.push(...(await writeReasons(tx, orgId, decided, pass)));
    await events.append(tx, orgId, written);
    return pass;
  });
}

function passAgain(pass: Pass, ms: number): void {
  pass.againMs = Math.min(pass.againMs ?? Number.POSITIVE_INFINITY, ms);
}

const reasonOf = ({ runId, watcherId, reason: before }: placements.Held, reason: string): Reason => ({
  ...{ runId, watcherId, reason, before },
});

/** Decides about the held runs, page by page, within the bounds of a pass. */
async function decide(
  tx: Db,
  { orgId, ttlMs }: PassOptions,
  first: placements.Held[],
  pass: Pass,
): Promise<Decided> {
  const know = await knowing(tx, { orgId, ttlMs });
  const decided: Decided = { places: [], reasons: [], spread: [], plan: undefined };
  let page = first;
  for (let pages = 0; pages < pagesPerPass && decided.places.length < placedPerPassMax; pages++) {
    const last = page.at(-1);
    if (!last) break;
    decided.plan = await know.planFor(page, decided.plan);
    for (const run of page) {
      if (decided.places.length >= placedPerPassMax) break;
      decideOne(decided.plan, run, decided, pass);
    }
    if (decided.places.length >= placedPerPassMax) pass.isMore = true;
    page =
      page.length < heldPerPage
        ? []
        : await placements.listHeld(tx, { orgId, after: last, limit: heldPerPage });
  }
  return decided;
}

function decideOne(plan: Plan, run: placements.Held, decided: Decided, pass: Pass): void {
  if (run.spread === "all") {
    if (decided.spread.length < spreadsPerPassMax) decided.spread.push(run);
    else pass.isMore = true;
    return;
  }
  const verdict = plan.next(run);
  if ("deviceId" in verdict) {
    decided.places.push({ run, deviceId: verdict.deviceId });
    return;
  }
  if (verdict.againMs !== undefined) passAgain(pass, verdict.againMs);
  decided.reasons.push(reasonOf(run, verdict.waits));
}

async function writePlaces(tx: Db, orgId: string, { places }: Decided, pass: Pass): Promise<NewEvent[]> {
  const placed = await placements.place(
    tx,
    orgId,
    places.map(({ run, deviceId }) => ({ runId: run.runId, deviceId })),
  );
  await noteStarts(tx, orgId, places, placed);
  pass.rung.push(...placed.map(({ deviceId }) => ({ orgId, deviceId })));
  pass.moved.push(...placed.map(({ runId }) => ({ orgId, runId })));
  // Placed runs are checked again later: their devices may not take them.
  if (placed.length > 0) passAgain(pass, patienceMs + 100);
  return placed.map(({ runId, watcherId, deviceId }) => ({
    kind: "run.placed",
    actor: "pinion",
    ...{ runId, watcherId, deviceId },
  }));
}

/** Turns runs for every matching device into a run for each; a run that cannot is held on. */
async function writeSpreads(
  tx: Db,
  options: PassOptions,
  { spread, plan, reasons }: Decided,
  pass: Pass,
): Promise<NewEvent[]> {
  const { orgId } = options;
  const written: NewEvent[] = [];
  if (!plan) return written;
  for (const run of spread) {
    const result = await spreadOut(tx, { ...options, run, plan });
    if ("waits" in result) {
      reasons.push(reasonOf(run, result.waits));
      continue;
    }
    if (result.skipped) {
      const data = { skip_reason: "overlap", reason: spreads.gaveWay };
      written.push({ kind: "run.skipped", actor: "pinion", runId: run.runId, ...result.skipped, data });
      pass.moved.push({ orgId, runId: run.runId });
    }
    for (const { runId, watcherId, deviceId, isHeld } of result.runs) {
      pass.moved.push({ orgId, runId });
      if (isHeld) pass.isMore = true;
      else pass.rung.push({ orgId, deviceId });
      const of = { actor: "pinion", runId, watcherId, deviceId };
      written.push(
        runId === run.runId
          ? { kind: "run.placed", ...of, data: { devices: result.runs.length } }
          : { kind: "run.created", ...of, data: { spread_of: run.runId } },
      );
    }
  }
  return written;
}

async function writeReasons(tx: Db, orgId: string, { reasons }: Decided, pass: Pass): Promise<NewEvent[]> {
  const changed = reasons.filter(({ reason, before }) => reason !== before);
  await placements.explain(tx, orgId, changed);
  return changed.flatMap(({ runId, watcherId, reason, before }) => {
    pass.moved.push({ orgId, runId });
    // A missing match is reported once; busy devices change too often for the log.
    return before === "" && /no device that matches/.test(reason)
      ? [{ kind: "run.waiting", actor: "pinion", runId, watcherId, data: { reason } }]
      : [];
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
  options: { orgId: string; quotas: Pick<Quotas, "findRoom" | "add">; run: placements.Held; plan: Plan },
): Promise<{ runs: spreads.Spread[]; skipped?: { watcherId: string } | undefined } | { waits: string }> {
  const { orgId, run, plan, quotas } = options;
  const eligible = plan.eligible(run);
  if (eligible.length === 0) return { waits: "no device that matches its selector can be used for it" };
  const busy = await spreads.listBusy(tx, { orgId, watcherId: run.watcherId });
  const matching = eligible.map(({ deviceId }) => deviceId);
  const done = await restoredStarts.listDone(tx, { orgId, runId: run.runId, deviceIds: matching });
  const deviceIds = matching.filter((deviceId) => !busy.has(deviceId) && !done.has(deviceId));
  const [first] = done;
  if (first !== undefined && done.size === matching.length) {
    const skipped = await spreads.giveWay(tx, { orgId, runId: run.runId, deviceId: first });
    return { runs: [], skipped };
  }
  if (deviceIds.length === 0) {
    return { waits: "its watcher has a live run on every device that matches its selector" };
  }
  const { room, max } = await quotas.findRoom(tx, "runs", orgId);
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

/**
 * The devices that an actor may use, and read; runs created by Pinion itself may use and read all.
 */
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
