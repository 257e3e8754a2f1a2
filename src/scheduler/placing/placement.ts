/**
 * Chooses devices for held runs: a pure function of devices, groups and rate limits. {@link
 * createPlan} assigns the free places, run by run in order, and names the reason for each run
 * without a place.
 */

import { matches } from "../../cel/selector.ts";
import type { Candidate, GroupCount, Held, RateState } from "../../store/work/runs/placements.ts";
import { factsOf } from "../../values/labels.ts";

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
  return new Places(known);
}

/** The reason why a device does not suit a run at all; null if it does. */
function whyRefused(
  { selector, sponsor, askedBy, agentKind, workspace, isTold }: Held,
  device: Candidate,
  rights: Rights,
): string | null {
  if (device.isWorker) return "it is a fleet worker, which takes nothing that selects";
  if (selector !== null && !matches(selector, factsOf(device))) return "the selector does not match it";
  for (const actor of [sponsor, askedBy]) {
    if (actor && !rights(actor).use.has(device.deviceId))
      return `${actor} may not use it: a grant to use it is missing`;
  }
  if (isTold && sponsor && !rights(sponsor).read.has(device.deviceId)) {
    return `${sponsor} may not read it, and the watcher sends its results to destinations: a grant to read it is missing`;
  }
  if (agentKind !== "" && !device.agent_kinds.includes(agentKind)) return `it has no executor "${agentKind}"`;
  if (workspace !== null && !factsOf(device).labels.includes(`workspace:${workspace}`)) {
    return `it has no workspace "${workspace}"`;
  }
  return null;
}

/** The free places of devices, groups and rate limits; each assignment takes one. */
class Places implements Plan {
  readonly #known: Known;
  readonly #byId: ReadonlyMap<string, Candidate>;
  /** Used slots by device. */
  readonly #used: Map<string, number>;
  readonly #groups: Map<string, Group>;
  readonly #rates: Map<string, { agesMs: number[]; pausedMs: number }>;
  /** Runs with equal requirements share a result. */
  readonly #judged = new Map<string, Candidate[]>();

  constructor(known: Known) {
    this.#known = known;
    this.#byId = new Map(known.devices.map((device) => [device.deviceId, device]));
    this.#used = new Map(known.devices.map((device) => [device.deviceId, device.used]));
    this.#groups = groupsOf(known.groups);
    this.#rates = new Map(
      known.rates.map(({ key, agesMs, pausedMs }) => [key, { agesMs: [...agesMs], pausedMs }] as const),
    );
  }

  next(run: Held): Verdict {
    const held = this.#whyHeld(run);
    if (held) return held;
    const verdict = this.#anywhere(run);
    if ("deviceId" in verdict) this.#count(run, verdict.deviceId);
    return verdict;
  }

  whyNot(run: Held, device: Candidate): string | null {
    const refused = run.selector === null ? null : whyRefused(run, device, this.#known.rights);
    return refused ?? this.#whyBusy(run, device);
  }

  eligible(run: Held): Candidate[] {
    const { selector, sponsor, askedBy, agentKind, workspace, isTold } = run;
    const key = JSON.stringify([selector, sponsor, askedBy, agentKind, workspace, isTold]);
    const { devices, rights } = this.#known;
    const found =
      this.#judged.get(key) ?? devices.filter((device) => whyRefused(run, device, rights) === null);
    this.#judged.set(key, found);
    return found;
  }

  #usedOf(deviceId: string): number {
    return this.#used.get(deviceId) ?? 0;
  }

  #groupOf({ groupName }: Held): Group | undefined {
    return groupName === null ? undefined : this.#groups.get(groupName);
  }

  #whyBusy(run: Held, device: Candidate): string | null {
    const { deviceId, slots } = device;
    if (!device.isOnline) return "it is offline";
    if (this.#usedOf(deviceId) >= slots) {
      return slots === 1 ? "its slot is used" : `all of its ${slots} slots are used`;
    }
    const group = this.#groupOf(run);
    if (group && (group.onDevice.get(deviceId) ?? 0) >= group.maxOnDevice) {
      return `group "${run.groupName}" is full on it`;
    }
    return null;
  }

  /** The reason that holds the run back on any device. */
  #whyHeld(run: Held): { waits: string; againMs?: number } | undefined {
    const group = this.#groupOf(run);
    if (group && group.active >= group.maxInOrg) {
      return {
        waits: `group "${run.groupName}" is full: ${group.maxInOrg} of its runs may be active at once`,
      };
    }
    if (run.rateKey === null) return undefined;
    const rate = this.#rates.get(run.rateKey);
    if (rate && rate.pausedMs > 0) {
      return {
        waits: `an agent was told to come later: nothing begins under the rate limit "${run.rateKey}" before then`,
        againMs: rate.pausedMs,
      };
    }
    const perMinute = run.ratePerMinute ?? 0;
    const freed = perMinute > 0 ? rate?.agesMs.at(-perMinute) : undefined;
    if (freed === undefined) return undefined;
    return {
      waits: `rate limit "${run.rateKey}": ${perMinute} runs a minute have begun`,
      againMs: minuteMs - freed,
    };
  }

  #count(run: Held, deviceId: string | null): void {
    if (deviceId) this.#used.set(deviceId, this.#usedOf(deviceId) + 1);
    const group = this.#groupOf(run);
    if (group) {
      group.active += 1;
      if (deviceId) group.onDevice.set(deviceId, (group.onDevice.get(deviceId) ?? 0) + 1);
    }
    if (run.rateKey !== null) {
      const rate = this.#rates.get(run.rateKey) ?? { agesMs: [], pausedMs: 0 };
      this.#rates.set(run.rateKey, rate);
      rate.agesMs.push(0);
    }
  }

  /**
   * The least busy of the accepting devices; a device without an earlier attempt of the run comes
   * first.
   */
  #choose(run: Held, devices: readonly Candidate[]): Candidate | undefined {
    const load = (device: Candidate) => (this.#usedOf(device.deviceId) + device.waiting) / device.slots;
    const had = (device: Candidate) => Number(run.pastDeviceIds.includes(device.deviceId));
    return [...devices].sort((a, b) => had(a) - had(b) || load(a) - load(b))[0];
  }

  #selected(run: Held): Verdict {
    const all = this.eligible(run);
    const withSession = all.filter(({ deviceId }) => deviceId === run.sessionDeviceId);
    const eligible = withSession.length > 0 ? withSession : all;
    const free = eligible.filter((device) => this.#whyBusy(run, device) === null);
    const chosen = this.#choose(run, free);
    if (chosen) return { deviceId: chosen.deviceId };
    const [only] = eligible;
    if (run.sessionDeviceId !== null && only && eligible.length === 1) {
      return { waits: `it goes on in a session on ${only.label}: ${this.#whyBusy(run, only)}` };
    }
    return eligible.some((device) => device.isOnline)
      ? { waits: "all online devices that match its selector are busy" }
      : { waits: "no device that matches its selector is online" };
  }

  #anywhere(run: Held): Verdict {
    if (run.deviceId !== null) return this.#onDevice(run, run.deviceId);
    if (run.selector !== null) return this.#selected(run);
    // For the fleet: the claim chooses the worker.
    const worker = this.#known.devices.find(
      (device) =>
        device.isWorker &&
        device.isOnline &&
        (run.agentKind === "" || device.agent_kinds.includes(run.agentKind)) &&
        this.#usedOf(device.deviceId) < device.slots,
    );
    if (!worker) return { waits: "no fleet worker that can run it has a free slot" };
    // Some worker will take the run.
    this.#used.set(worker.deviceId, this.#usedOf(worker.deviceId) + 1);
    return { deviceId: null };
  }

  #onDevice(run: Held, deviceId: string): Verdict {
    const device = this.#byId.get(deviceId);
    const busy = device ? this.#whyBusy(run, device) : "it is offline";
    return busy === null ? { deviceId } : { waits: `${device?.label ?? "its device"}: ${busy}` };
  }
}

function groupsOf(counts: readonly GroupCount[]): Map<string, Group> {
  const groups = new Map<string, Group>();
  for (const { name, per, deviceId, active, max } of counts) {
    const group = groups.get(name) ?? newGroup();
    groups.set(name, group);
    group.active += active;
    if (deviceId) group.onDevice.set(deviceId, (group.onDevice.get(deviceId) ?? 0) + active);
    if (per === "org") group.maxInOrg = Math.min(group.maxInOrg, max);
    else group.maxOnDevice = Math.min(group.maxOnDevice, max);
  }
  return groups;
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
