/**
 * Chooses devices for held runs: a pure function of devices, groups and rate limits. {@link
 * createPlan} assigns the free places, run by run in order, and names the reason for each run
 * without a place.
 */
import { factsOf } from "../labels.ts";
import { matches } from "../selector.ts";
import type { Candidate, GroupCount, Held, RateState } from "../store/work/placements.ts";

/** The ids of the devices that an actor may use. */
export type Rights = (actor: string) => Readonly<Record<"use" | "read", ReadonlySet<string>>>;

export type Known = {
  devices: readonly Candidate[];
  groups: readonly GroupCount[];
  rates: readonly RateState[];
  rights: Rights;
};

/**
 * A place for a run, or the reason for waiting; `againMs`: milliseconds after which time alone may
 * change the verdict.
 */
export type Verdict = { deviceId: string | null } | { waits: string; againMs?: number };

export type Plan = {
  /** Assigns a place to the run, and counts the place as used. */
  next(run: Held): Verdict;
  /** The reason why a device does not accept the run now; null if it does. */
  whyNot(run: Held, device: Candidate): string | null;
  /**
   * The devices that match the run's selector and may be used for the run, whether free or busy.
   */
  eligible(run: Held): readonly Candidate[];
};

const minuteMs = 60_000;

export function createPlan(known: Known): Plan {
  const used = new Map(known.devices.map((device) => [device.deviceId, device.used]));
  const byId = new Map(known.devices.map((device) => [device.deviceId, device]));
  const groups = new Map<string, Group>();
  for (const { name, per, deviceId, active, max } of known.groups) {
    const group = groups.get(name) ?? newGroup();
    groups.set(name, group);
    group.active += active;
    if (deviceId) group.onDevice.set(deviceId, (group.onDevice.get(deviceId) ?? 0) + active);
    if (per === "org") group.maxInOrg = Math.min(group.maxInOrg, max);
    else group.maxOnDevice = Math.min(group.maxOnDevice, max);
  }
  const rates = new Map<string, { agesMs: number[]; pausedMs: number }>(
    known.rates.map(({ key, agesMs, pausedMs }) => [key, { agesMs: [...agesMs], pausedMs }] as const),
  );

  function whyRefused(
    { selector, sponsor, askedBy, agentKind, workspace, isTold }: Held,
    device: Candidate,
  ): string | null {
    if (device.isWorker) return "it is a fleet worker, which takes nothing that selects";
    if (!matches(selector!, factsOf(device))) return "the selector does not match it";
    for (const actor of [sponsor, askedBy]) {
      if (actor && !known.rights(actor).use.has(device.deviceId))
        return `${actor} may not use it: a grant to use it is missing`;
    }
    if (isTold && sponsor && !known.rights(sponsor).read.has(device.deviceId)) {
      return `${sponsor} may not read it, and the watcher sends its results to destinations: a grant to read it is missing`;
    }
    if (agentKind !== "" && !device.agent_kinds.includes(agentKind))
      return `it has no executor "${agentKind}"`;
    if (workspace !== null && !factsOf(device).labels.includes(`workspace:${workspace}`)) {
      return `it has no workspace "${workspace}"`;
    }
    return null;
  }

  /** Runs with equal requirements share a result. */
  const judged = new Map<string, Candidate[]>();
  function eligibleFor(run: Held): Candidate[] {
    const { selector, sponsor, askedBy, agentKind, workspace, isTold } = run;
    const key = JSON.stringify([selector, sponsor, askedBy, agentKind, workspace, isTold]);
    const found = judged.get(key) ?? known.devices.filter((device) => whyRefused(run, device) === null);
    judged.set(key, found);
    return found;
  }

  function whyBusy(run: Held, device: Candidate): string | null {
    if (!device.isOnline) return "it is offline";
    if (used.get(device.deviceId)! >= device.slots) {
      return device.slots === 1 ? "its slot is used" : `all of its ${device.slots} slots are used`;
    }
    const group = run.groupName === null ? undefined : groups.get(run.groupName);
    if (group && (group.onDevice.get(device.deviceId) ?? 0) >= group.maxOnDevice) {
      return `group "${run.groupName}" is full on it`;
    }
    return null;
  }

  /** The reason that holds the run back on any device. */
  function whyHeld(run: Held): { waits: string; againMs?: number } | undefined {
    const group = run.groupName === null ? undefined : groups.get(run.groupName);
    if (group && group.active >= group.maxInOrg) {
      return {
        waits: `group "${run.groupName}" is full: ${group.maxInOrg} of its runs may be active at once`,
      };
    }
    if (run.rateKey === null) return undefined;
    const rate = rates.get(run.rateKey);
    if (rate && rate.pausedMs > 0) {
      return {
        waits: `an agent was told to come later: nothing begins under the rate limit "${run.rateKey}" before then`,
        againMs: rate.pausedMs,
      };
    }
    const perMinute = run.ratePerMinute ?? 0;
    if (rate && perMinute > 0 && rate.agesMs.length >= perMinute) {
      const freed = rate.agesMs[rate.agesMs.length - perMinute]!;
      return {
        waits: `rate limit "${run.rateKey}": ${perMinute} runs a minute have begun`,
        againMs: minuteMs - freed,
      };
    }
    return undefined;
  }

  function count(run: Held, deviceId: string | null): void {
    if (deviceId) used.set(deviceId, (used.get(deviceId) ?? 0) + 1);
    if (run.groupName !== null) {
      const group = groups.get(run.groupName)!;
      group.active += 1;
      if (deviceId) group.onDevice.set(deviceId, (group.onDevice.get(deviceId) ?? 0) + 1);
    }
    if (run.rateKey !== null) {
      const rate = rates.get(run.rateKey) ?? { agesMs: [], pausedMs: 0 };
      rates.set(run.rateKey, rate);
      rate.agesMs.push(0);
    }
  }

  /**
   * The least busy of the accepting devices; a device without an earlier attempt of the run comes
   * first.
   */
  function choose(run: Held, devices: readonly Candidate[]): Candidate | undefined {
    const load = (device: Candidate) => (used.get(device.deviceId)! + device.waiting) / device.slots;
    const had = (device: Candidate) => Number(run.pastDeviceIds.includes(device.deviceId));
    return [...devices].sort((a, b) => had(a) - had(b) || load(a) - load(b))[0];
  }

  function selected(run: Held): Verdict {
    const all = eligibleFor(run);
    const eligible =
      run.sessionDeviceId !== null && all.some(({ deviceId }) => deviceId === run.sessionDeviceId)
        ? all.filter(({ deviceId }) => deviceId === run.sessionDeviceId)
        : all;
    const chosen = choose(
      run,
      eligible.filter((device) => whyBusy(run, device) === null),
    );
    if (chosen) return { deviceId: chosen.deviceId };
    if (run.sessionDeviceId !== null && eligible.length === 1) {
      return { waits: `it goes on in a session on ${eligible[0]!.label}: ${whyBusy(run, eligible[0]!)}` };
    }
    return eligible.some((device) => device.isOnline)
      ? { waits: "all online devices that match its selector are busy" }
      : { waits: "no device that matches its selector is online" };
  }

  function anywhere(run: Held): Verdict {
    const { deviceId } = run;
    if (deviceId !== null) {
      const device = byId.get(deviceId);
      const busy = device ? whyBusy(run, device) : "it is offline";
      return busy === null ? { deviceId } : { waits: `${device?.label ?? "its device"}: ${busy}` };
    }
    if (run.selector !== null) return selected(run);
    // For the fleet: the claim chooses the worker.
    const worker = known.devices.find(
      (device) =>
        device.isWorker &&
        device.isOnline &&
        (run.agentKind === "" || device.agent_kinds.includes(run.agentKind)) &&
        used.get(device.deviceId)! < device.slots,
    );
    if (!worker) return { waits: "no fleet worker that can run it has a free slot" };
    // Some worker will take the run.
    used.set(worker.deviceId, used.get(worker.deviceId)! + 1);
    return { deviceId: null };
  }

  return {
    next(run) {
      const held = whyHeld(run);
      if (held) return held;
      const verdict = anywhere(run);
      if ("deviceId" in verdict) count(run, verdict.deviceId);
      return verdict;
    },
    whyNot: (run, device) => (run.selector === null ? null : whyRefused(run, device)) ?? whyBusy(run, device),
    eligible: eligibleFor,
  };
}

type Group = { active: number; onDevice: Map<string, number>; maxInOrg: number; maxOnDevice: number };

function newGroup(): Group {
  return {
    active: 0,
    onDevice: new Map(),
    maxInOrg: Number.POSITIVE_INFINITY,
    maxOnDevice: Number.POSITIVE_INFINITY,
  };
}
