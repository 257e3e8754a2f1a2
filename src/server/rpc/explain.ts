import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type RunFact, RunFactSchema } from "#gen/pinion/v1/run_pb.js";
import type { PlacementExplained } from "../../scheduler/placing/explain-placement.ts";
import type { Device } from "../../store/people/devices/devices.ts";
import type { Fleet } from "../../store/people/devices/workers.ts";
import type { RunRow } from "../../store/work/runs/runs.ts";
import { type LateKnown, lateText } from "./explain-late.ts";

/**
 * The facts that explain a run's state. The explanation is a pure function of them; rpc/runs.ts
 * reads them.
 */
export type Known = {
  run: RunRow;
  /** The run's pinned device, if it exists. */
  device: Device | undefined;
  /** Numbers of active attempts on the device, and of waiting runs, including the explained run. */
  onDevice: { active: number; pending: number };
  /** The org's fleet workers, for a run that waits for a worker. */
  fleet: Fleet | undefined;
  /** For a run that waits to be placed. */
  placement?: PlacementExplained | undefined;
  late?: readonly LateKnown[];
  /** Milliseconds of silence after which the device's attempts are reaped. */
  ttlMs: number;
  /** The database's clock. */
  now: Date;
};

export type Explanation = { summary: string; nextStep: string; facts: RunFact[] };

export function explain(known: Known): Explanation {
  const { run } = known;
  const { summary, nextStep } = explainStatus[run.status](known);
  return { summary, nextStep, facts: factsOf(known) };
}

const explainStatus: Record<RunRow["status"], (known: Known) => { summary: string; nextStep: string }> = {
  pending: explainPending,
  claimed: explainClaimed,
  running: explainRunning,
  completed: ({ run }) => ({
    summary: `Completed at ${clockText(run.finishedAt)} on attempt ${run.attempt}; its result is window ${run.windowId}.`,
    nextStep: "",
  }),
  failed: ({ run }) => ({
    summary: `Failed at ${clockText(run.finishedAt)} on attempt ${run.attempt} of ${run.maxAttempts}: ${run.reason || "no reason was given"}.`,
    nextStep: "",
  }),
  timeout: ({ run }) => ({
    summary: `Ended as timeout at ${clockText(run.finishedAt)} on attempt ${run.attempt} of ${run.maxAttempts}: ${run.reason || "its time ran out"}.`,
    nextStep: "",
  }),
  cancelled: ({ run }) => ({
    summary: `Cancelled at ${clockText(run.finishedAt)}: ${run.reason || "no reason was given"}.`,
    nextStep: "",
  }),
  skipped: ({ run }) => ({
    summary: `The slot of ${clockText(run.scheduledFor ?? run.dueAt)} was skipped (${run.skipReason}): ${run.reason}.`,
    nextStep: "",
  }),
};

function explainClaimed({ run, device, now }: Known): { summary: string; nextStep: string } {
  if (run.dueAt > now) {
    return {
      summary: `Recorded ahead: it is due at ${clockText(run.dueAt)}, and claimed for ${nameOf(device)} already.`,
      nextStep: `It is pushed when it is due, if ${nameOf(device)} has a free slot then. Pausing its watcher or cancelling it before then ends it.`,
    };
  }
  return {
    summary: `Claimed for ${nameOf(device)} ${agoText(run.claimedAt, now)}; the device has not accepted it yet.`,
    nextStep:
      "It is pushed as soon as a slot is free. The device accepts or rejects it; without an answer it is pushed once more and then withdrawn.",
  };
}

function explainPending(known: Known): { summary: string; nextStep: string } {
  const { run, device, onDevice, fleet, now } = known;
  if (run.dueAt > now) {
    return {
      summary: `Recorded ahead: it is due at ${clockText(run.dueAt)}.`,
      nextStep: `It is offered to ${run.deviceId ? nameOf(device) : "the fleet workers"} when it is due. Pausing its watcher or cancelling it before then ends it.`,
    };
  }
  const since = `Pending for ${durationText(now.getTime() - run.createdAt.getTime())}`;
  if (run.notBefore && run.notBefore > now) {
    return {
      summary: `${since}: it waits until ${clockText(run.notBefore)} before it is offered again (${run.reason}).`,
      nextStep: `It is offered to ${takerOf(known)} at ${clockText(run.notBefore)}.`,
    };
  }
  if (known.placement) return explainHeld(since, known, known.placement);
  if (!run.deviceId) return explainUnpinned(since, known, fleet!);
  if (!device) {
    return {
      summary: `${since}: its device does not exist any more.`,
      nextStep: "Cancel it, and pin its watcher to another device.",
    };
  }
  if (device.liveness === "never") {
    return {
      summary: `${since}: device ${device.label} has never connected; the run would have been offered at ${clockText(run.dueAt)}.`,
      nextStep: `Start the daemon on ${device.label}: pinion device run.`,
    };
  }
  if (device.liveness !== "online") {
    return {
      summary: `${since}: device ${device.label} offline since ${clockText(device.disconnected_at ?? device.last_beat_at)}; the run would have been offered at ${clockText(run.dueAt)}.`,
      nextStep: `It is pushed as soon as ${device.label} connects.${run.startDeadlineAt ? ` If that is after ${clockText(run.startDeadlineAt)}, it is skipped.` : ""}`,
    };
  }
  if (onDevice.active >= device.max_concurrency) {
    return {
      summary: `${since}: all ${device.max_concurrency} slots of device ${device.label} are used; ${onDevice.pending} ${onDevice.pending === 1 ? "run waits" : "runs wait"} for it.`,
      nextStep: "It is pushed when its turn comes and a slot is free.",
    };
  }
  return {
    summary: `${since}: device ${device.label} is online with a free slot; the run is about to be pushed.`,
    nextStep: "It is pushed within moments; the sweep does it if a notification was lost.",
  };
}

function takerOf({ run, device, placement }: Known): string {
  if (placement?.selector) return "a device that matches";
  return run.deviceId ? nameOf(device) : "the fleet workers";
}

/** A run without a pin: any worker of the org with a free slot and the run's kind takes it. */
function explainUnpinned(since: string, { run }: Known, fleet: Fleet): { summary: string; nextStep: string } {
  const ends = run.startDeadlineAt
    ? ` If that is after ${clockText(run.startDeadlineAt)}, it is skipped.`
    : "";
  if (fleet.online === 0) {
    const last = fleet.lastHeardAt
      ? ` The last one, ${fleet.lastLabel}, was heard of at ${clockText(fleet.lastHeardAt)}.`
      : "";
    return {
      summary: `${since}: it is pinned to no device, and no fleet worker of this org is connected.${last}`,
      nextStep: `Start one with \`pinion worker\`, or pin the watcher to a device. It is pushed as soon as one connects.${ends}`,
    };
  }
  const connected = `${fleet.online} fleet ${fleet.online === 1 ? "worker is" : "workers are"} connected`;
  if (fleet.matching === 0) {
    const offered =
      fleet.kinds.length > 0 ? `they offer ${fleet.kinds.join(", ")}` : "they offer no kind by name";
    return {
      summary: `${since}: it asks for agent kind "${run.agentKind}"; ${connected}, but none offers it (${offered}).`,
      nextStep: `Give a fleet worker an executor "${run.agentKind}", or change the watcher's agent_kind.${ends}`,
    };
  }
  if (fleet.active >= fleet.slots) {
    return {
      summary: `${since}: all ${fleet.slots} slots of the fleet workers that can run it are used; ${fleet.pending} ${fleet.pending === 1 ? "run waits" : "runs wait"} for the fleet.`,
      nextStep:
        "It is pushed when its turn comes and a slot is free; another fleet worker would take it at once.",
    };
  }
  return {
    summary: `${since}: ${connected} with a free slot; the run is about to be pushed.`,
    nextStep: "It is pushed within moments; the sweep does it if a notification was lost.",
  };
}

/** A run that waits for a device by selector, for its group or for a rate limit. */
function explainHeld(
  since: string,
  { run }: Known,
  { waits, candidates, selector, notShown }: PlacementExplained,
): { summary: string; nextStep: string } {
  const ends = run.startDeadlineAt
    ? ` If that is after ${clockText(run.startDeadlineAt)}, it is skipped.`
    : "";
  if (waits === "") {
    return {
      summary: `${since}: a device can take it; the run is about to be placed.`,
      nextStep: "It is placed within moments; the sweep does it if a notification was lost.",
    };
  }
  const matching = candidates.filter((candidate) => candidate.matches);
  const shown = matching.slice(0, 3).map(({ label, reason }) => `${label} (${reason ?? "takes it"})`);
  const more = matching.length + notShown > shown.length ? ", and others" : "";
  const devices =
    selector === null
      ? ""
      : matching.length === 0
        ? ` No device of the org matches \`${selector}\` and may be used for it.`
        : ` Matching: ${shown.join(", ")}${more}.`;
  return {
    summary: `${since}: ${waits}.${devices}`,
    nextStep:
      selector !== null && matching.length === 0
        ? `Label a device, have its owner grant its use, or change the watcher's selector; it is placed at once.${ends}`
        : `It is placed as soon as that is over.${ends}`,
  };
}

function explainRunning(known: Known): { summary: string; nextStep: string } {
  const { run, device, ttlMs, now } = known;
  const heard = run.lastBeatAt ?? device?.last_beat_at ?? run.startedAt;
  const since = `Running for ${durationText(now.getTime() - (run.startedAt ?? run.createdAt).getTime())} on ${nameOf(device)}`;
  if (run.cancelRequestedAt) {
    return {
      summary: `${since}; its end was asked for ${agoText(run.cancelRequestedAt, now)}.`,
      nextStep: `It ends when the device says that the agent is gone, or at ${clockText(new Date(run.cancelRequestedAt.getTime() + ttlMs))}.`,
    };
  }
  if (device && device.liveness !== "online") {
    const reapedAt = heard && new Date(heard.getTime() + ttlMs);
    return {
      summary: `${since}; the device's stream is broken since ${clockText(device.disconnected_at ?? device.last_beat_at)}, last heard of at ${clockText(heard)}.`,
      nextStep: `If it does not come back, the attempt is reaped at ${clockText(reapedAt ?? null)}.`,
    };
  }
  return {
    summary: `${since}; last heartbeat ${agoText(heard, now)}.`,
    nextStep: `It ends when the device reports; at the latest its timeout of ${durationText(run.timeoutMs)} ends it.`,
  };
}

type Fact = { at: Date | null; kind: string; text: string };

function factsOf(known: Known): RunFact[] {
  const waiting = known.run.finishedAt
    ? []
    : [...limitFacts(known), ...placementFacts(known), ...fleetFacts(known), ...deviceFacts(known)];
  return [...pastFacts(known), ...waiting].map(({ at, kind, text }) =>
    create(RunFactSchema, { kind, text, ...(at ? { at: timestampFromDate(at) } : {}) }),
  );
}

/** The moments of the run, in order. */
function pastFacts({ run, late, now }: Known): Fact[] {
  const recorded = run.createdAt < run.dueAt ? "recorded ahead" : "materialized";
  const past = run.pastAttempts.flatMap(({ attempt, claimed_at, ended_at, reason }): Moment[] => [
    // The claim of an attempt that a failover forgot is not known.
    [claimed_at === ended_at ? null : new Date(claimed_at), "past_attempt", `attempt ${attempt} was claimed`],
    [new Date(ended_at), "past_attempt", `attempt ${attempt} ended: ${reason}`],
  ]);
  const moments: Moment[] = [
    [run.scheduledFor, "slot", "the slot of the schedule"],
    [run.dueAt, "due", run.dueAt > now ? "falls due" : "became due"],
    [run.createdAt, "materialized", `${recorded} (${run.source}), watcher version ${run.watcherVersion}`],
    ...past,
    ...(late ?? []).map((one): Moment => [one.storedAt, "late_result", lateText(one)]),
    [run.claimedAt, "claimed", `attempt ${run.attempt} was claimed`],
    [run.pushedAt, "pushed", "the assignment was written to the device's stream"],
    [run.startedAt, "accepted", "the device accepted"],
    [run.lastBeatAt, "beat", "the last heartbeat of the attempt"],
    [run.cancelRequestedAt, "cancel", "its end was asked for"],
    [run.finishedAt, "ended", `${run.status}${run.reason ? `: ${run.reason}` : ""}`],
  ];
  return moments
    .flatMap(([at, kind, text]) => (at ? [{ at, kind, text }] : []))
    .sort((a, b) => a.at.getTime() - b.at.getTime());
}

type Moment = [at: Date | null, kind: string, text: string];

function limitFacts({ run, now }: Known): Fact[] {
  const { startDeadlineAt, notBefore } = run;
  return [
    ...(startDeadlineAt
      ? [{ at: startDeadlineAt, kind: "deadline", text: "skipped if it has not started by then" }]
      : []),
    ...(notBefore && notBefore > now
      ? [{ at: notBefore, kind: "not_before", text: "not offered before then" }]
      : []),
  ];
}

function placementFacts({ placement }: Known): Fact[] {
  if (!placement) return [];
  const { selector, groupName, rateKey, candidates } = placement;
  const matching = candidates.filter((it) => it.matches).length;
  const texts = [
    ["selector", selector && `selects ${selector}: ${matching} devices match`],
    ["group", groupName && `in group ${groupName}`],
    ["rate_limit", rateKey && `under the rate limit ${rateKey}`],
  ] as const;
  return texts.flatMap(([kind, text]) => (text ? [{ at: null, kind, text }] : []));
}

/** Held runs do not depend on the fleet's workers. */
function fleetFacts({ run, fleet, placement }: Known): Fact[] {
  if (!fleet || placement) return [];
  const { online, matching, active, slots, pending } = fleet;
  const facts: Fact[] = [
    { at: null, kind: "fleet", text: `${online} fleet workers connected, ${matching} of them can run it` },
    {
      at: null,
      kind: "slots",
      text: `${active} of ${slots} slots of those used, ${pending} unpinned runs pending`,
    },
  ];
  if (run.agentKind !== "") {
    const offered = fleet.kinds.join(", ") || "none by name";
    facts.push({ at: null, kind: "agent_kinds", text: `asks for ${run.agentKind}; offered: ${offered}` });
  }
  if (fleet.lastHeardAt) {
    const text = `fleet worker ${fleet.lastLabel} was heard of last`;
    facts.push({ at: fleet.lastHeardAt, kind: "last_worker", text });
  }
  return facts;
}

function deviceFacts({ device, onDevice }: Known): Fact[] {
  if (!device) return [];
  const session = `session ${device.session_epoch} on replica ${device.replica_id ?? "none"}`;
  return [
    {
      at: device.last_beat_at,
      kind: "device",
      text: `${nameOf(device)} is ${device.liveness}; ${session}`,
    },
    {
      at: null,
      kind: "slots",
      text: `${onDevice.active} of ${device.max_concurrency} slots used, ${onDevice.pending} pending`,
    },
  ];
}

function nameOf(device: Device | undefined): string {
  if (!device) return "its device";
  return `${device.is_worker ? "fleet worker" : "device"} ${device.label}`;
}

function clockText(at: Date | null): string {
  return at ? at.toISOString().replace(/\.\d+Z$/, "Z") : "an unknown time";
}

function agoText(at: Date | null | undefined, now: Date): string {
  return at ? `${durationText(now.getTime() - at.getTime())} ago` : "never";
}

function durationText(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} m`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}
