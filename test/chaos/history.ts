import type { FaultKind } from "./plan.ts";
import type { TrafficHappening } from "./traffic.ts";

/**
 * The history: every message of every device, every call and its answer, every fault, recorded by
 * the participants. One JSON line each. Moments are milliseconds since the epoch by the machine's
 * clock, which the database shares.
 */

export type AttemptName = { run: string; token: string };
export type Digest = { sha256: string; characters: number };

/** A message sent by a device. */
export type SentMessage =
  | { case: "hello"; held: (AttemptName & { state: "running" | "finished" })[] }
  | { case: "heartbeat"; attempts: number }
  | ({ case: "accept" } & AttemptName)
  | ({ case: "reject"; reason: number } & AttemptName)
  | ({ case: "output"; bytes: number } & AttemptName)
  | ({ case: "complete"; outcome: Outcome; output: Digest; isUnary: boolean } & AttemptName)
  | ({ case: "cancelled" } & AttemptName);

export type Outcome = "completed" | "failed" | "timeout" | "cancelled";
export type Verdict = "stored" | "stored_late" | "already_stored" | "superseded" | "unknown" | "invalid";
export type HeldVerdict = "continue" | "abort" | "send_result" | "already_stored";

/** A message received by a device. */
export type SeenMessage =
  | {
      case: "welcome";
      deviceId: string;
      epoch: number;
      verdicts: (AttemptName & { verdict: HeldVerdict })[];
    }
  | { case: "heartbeatAck" }
  | ({
      case: "assignment";
      attempt: number;
      watcher: string;
      deviceId: string;
      prompt: string;
      /** The slot of a scheduled run. */
      slot?: number | null;
    } & AttemptName)
  | ({ case: "cancel"; reason: string } & AttemptName)
  | ({ case: "completionAck"; verdict: Verdict; windowId: string; isUnary: boolean } & AttemptName)
  | { case: "drain"; reason: number };

/**
 * A schedule of the workload fires at every multiple of these seconds since the epoch; null: never.
 */
export type EverySeconds = number | null;

/**
 * Calls with a meaning for the checker; a call is an operation with its repeats until an answer
 * came.
 */
export type Call =
  | { method: "createWatcher"; device: string; every: EverySeconds; jitterMs: number; slug: string }
  | { method: "setSchedule"; watcher: string; every: EverySeconds }
  | { method: "setPrompt"; watcher: string }
  | { method: "trigger"; watcher: string }
  | { method: "backfill"; watcher: string; start: number; end: number }
  | { method: "cancel"; run: string }
  | { method: "retry"; run: string }
  | { method: "listRuns" }
  | { method: "listWindows"; watcher: string };

/** The ids named in an answer. */
export type Answer = { watcher?: string; run?: string; alreadyQueued?: boolean; runs?: string[] };

export type Happening =
  | TrafficHappening
  | { kind: "sent"; device: string; stream: string; message: SentMessage }
  | { kind: "seen"; device: string; stream: string; message: SeenMessage }
  /**
   * The device's handler or program has begun, was told to end and did, or has finished by itself.
   * `isProgram`: written by a child program, before the program's exit.
   */
  | ({
      kind: "work";
      device: string;
      phase: "begun" | "ended" | "finished";
      isProgram?: true;
    } & AttemptName)
  /** A device has ended its connection for good. */
  | { kind: "gaveUp"; device: string; error: string }
  /**
   * A device is part of a host and shares the host's life. `slots`: the number of attempts at once.
   */
  | { kind: "device"; device: string; host: string; org: string; slots: number }
  | { kind: "host"; host: string; phase: "started" | "killed" }
  | { kind: "replica"; replica: string; phase: "serving" | "stopping" | "ended" | "paused" | "continued" }
  | { kind: "call"; call: number; org: string; request: Call }
  | { kind: "answer"; call: number; answer: Answer }
  | { kind: "refusal"; call: number; error: string }
  | { kind: "fault"; fault: number; name: FaultKind; phase: "begin" | "end"; targets: string[] }
  /**
   * Attempts that were out at this moment although both device and attempt were silent for longer
   * than the TTL.
   */
  | { kind: "sample"; silent: (AttemptName & { deviceSilentMs: number; attemptSilentMs: number | null })[] }
  /** Schedules at one moment: the next slot of each, and the recorded or waiting slots. */
  | { kind: "schedules"; watchers: { watcher: string; nextSlotAt: number | null; slots: number[] }[] }
  /** At the end: results that a device still holds on its disk. */
  | { kind: "held"; device: string; attempts: AttemptName[] };

export type Entry = { at: number } & Happening;

/** Records an event, at the moment of the call. */
export type Record = (happening: Happening) => void;

/**
 * The entries of a history's text; an incomplete last line, cut short by the end of its process, is
 * skipped.
 */
export function parseHistory(text: string): Entry[] {
  const lines = text.split("\n");
  const entries: Entry[] = [];
  for (const [index, line] of lines.entries()) {
    if (line === "") continue;
    try {
      entries.push(JSON.parse(line) as Entry);
    } catch (error) {
      if (index < lines.length - 1) throw new Error(`line ${index + 1} of the history: ${String(error)}`);
    }
  }
  return entries;
}
