import type { Entry } from "./history.ts";
import { type FaultKind, faultKinds } from "./plan.ts";
import type { Rows } from "./rows.ts";

/** The summary of a rig run, in numbers. Times in milliseconds. */
export type Summary = {
  faultsMs: number;
  tookMs: number;
  messages: number;
  calls: number;
  runs: number;
  byStatus: { [status: string]: number };
  attempts: number;
  /** Results sent by devices, and results sent again. */
  results: number;
  resent: number;
  faults: {
    kind: FaultKind;
    count: number;
    /** Includes faults that came during the recovery. */
    worstRecoveryMs: number | undefined;
    /**
     * Only recoveries during which no other fault struck the same devices, and the database and the
     * replicas were available.
     */
    worstAloneMs: number | undefined;
  }[];
};

export function summarize(options: {
  history: readonly Entry[];
  rows: Rows;
  faultsMs: number;
  messages: number;
  calls: number;
}): Summary {
  const { history, rows } = options;
  const byStatus: { [status: string]: number } = {};
  for (const { status } of rows.runs) byStatus[status] = (byStatus[status] ?? 0) + 1;
  const sends = history.flatMap((entry) =>
    entry.kind === "sent" && entry.message.case === "complete" ? [entry.message.token] : [],
  );
  const recoveries = recoveriesOf(history);
  return {
    faultsMs: options.faultsMs,
    tookMs: 0,
    messages: options.messages,
    calls: options.calls,
    runs: rows.runs.length,
    byStatus,
    attempts: rows.runs.reduce((sum, run) => sum + run.past.length + (run.token === null ? 0 : 1), 0),
    results: new Set(sends).size,
    resent: sends.length - new Set(sends).size,
    faults: faultKinds.flatMap((kind) => {
      const times = recoveries.filter((one) => one.kind === kind);
      if (times.length === 0) return [];
      const worst = (some: readonly Recovery[]) => {
        const known = some.flatMap(({ ms }) => (ms === undefined ? [] : [ms]));
        return known.length > 0 ? Math.max(...known) : undefined;
      };
      return [
        {
          kind,
          count: times.length,
          worstRecoveryMs: worst(times),
          worstAloneMs: worst(times.filter((one) => one.isAlone)),
        },
      ];
    }),
  };
}

type Recovery = { kind: FaultKind; ms: number | undefined; isAlone: boolean };

/** Faults that take the database or a replica away from all devices. */
const strikesAll = /^(postgres|database|replica|backends)_/;

/**
 * The time from a fault's end until the affected devices worked again: the devices of a host or on
 * a broken network have each heard from a replica; for other faults, some device had a result
 * acknowledged and another device received work. Faults that came meanwhile are included.
 */
function recoveriesOf(history: readonly Entry[]): Recovery[] {
  const heard = new Map<string, number[]>();
  const worked: number[] = [];
  const hostDevices = new Map<string, string[]>();
  const faults = faultsOf(history);
  for (const entry of history) {
    if (entry.kind === "device") {
      hostDevices.set(entry.host, [...(hostDevices.get(entry.host) ?? []), entry.device]);
    }
    if (entry.kind !== "seen") continue;
    const list = heard.get(entry.device) ?? [];
    if (list.length === 0) heard.set(entry.device, list);
    list.push(entry.at);
    if (entry.message.case === "completionAck") worked.push(entry.at);
  }
  const devicesOf = (targets: readonly string[]) =>
    targets.flatMap((target) => hostDevices.get(target) ?? (heard.has(target) ? [target] : []));
  return history.flatMap((entry) => {
    if (entry.kind !== "fault" || entry.phase !== "end") return [];
    const devices = devicesOf(entry.targets);
    const moments =
      devices.length > 0
        ? devices.map((device) => firstAfter(heard.get(device) ?? [], entry.at))
        : [firstAfter(worked, entry.at)];
    const isWhole = moments.every((at) => at !== undefined);
    const until = isWhole ? Math.max(...(moments as number[])) : Number.POSITIVE_INFINITY;
    const isAlone = !faults.some(
      (other) =>
        other.fault !== entry.fault &&
        other.begin < until &&
        other.end > entry.at &&
        (strikesAll.test(other.name) || devicesOf(other.targets).some((device) => devices.includes(device))),
    );
    return [{ kind: entry.name, ms: isWhole ? until - entry.at : undefined, isAlone }];
  });
}

type Fault = { fault: number; name: FaultKind; targets: readonly string[]; begin: number; end: number };

function faultsOf(history: readonly Entry[]): Fault[] {
  const faults = new Map<number, Fault>();
  for (const entry of history) {
    if (entry.kind !== "fault") continue;
    const { fault, name, targets, at } = entry;
    const known = faults.get(fault);
    if (known) known.end = at;
    else faults.set(fault, { fault, name, targets, begin: at, end: Number.POSITIVE_INFINITY });
  }
  return [...faults.values()];
}

/** In a sorted list. */
function firstAfter(moments: readonly number[], at: number): number | undefined {
  let [low, high] = [0, moments.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (moments[middle]! > at) high = middle;
    else low = middle + 1;
  }
  return moments[low];
}
