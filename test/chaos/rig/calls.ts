import { setTimeout as delay } from "node:timers/promises";
import { type Clients, PinionError } from "@pinion/client";
import type { Answer, Call, Record } from "../history.ts";

/**
 * Calls of people and services: each is recorded, repeated while the service is away, and recorded
 * with its answer.
 */
export type Caller = {
  /** The answer; undefined if the call was refused, or if `stop` came first. */
  call<T>(
    org: string,
    request: Call,
    work: () => Promise<T>,
    answerOf: (response: T) => Answer,
  ): Promise<T | undefined>;
  readonly answered: number;
};

const againMs = 250;
/** Final errors: a repeat would give the same answer. */
const refusals = new Set([
  "invalid_argument",
  "not_found",
  "already_exists",
  "failed_precondition",
  "permission_denied",
  "unauthenticated",
]);

export function createCaller(record: Record, stop: AbortSignal): Caller {
  let calls = 0;
  let answered = 0;
  return {
    get answered() {
      return answered;
    },
    async call(org, request, work, answerOf) {
      calls += 1;
      const call = calls;
      record({ kind: "call", call, org, request });
      while (!stop.aborted) {
        try {
          const response = await work();
          record({ kind: "answer", call, answer: answerOf(response) });
          answered += 1;
          return response;
        } catch (error) {
          if (error instanceof PinionError && refusals.has(error.reason)) {
            record({ kind: "refusal", call, error: `${error.reason}: ${error.message}` });
            return undefined;
          }
          await delay(againMs);
        }
      }
      return undefined;
    },
  };
}

/** A schedule that fires at every multiple of `every` seconds: a divisor of 60, or 60. */
export function cronOf(every: number | null): string {
  if (every === null) return "";
  return every === 60 ? "* * * * *" : `*/${every} * * * * *`;
}

/**
 * Sets a schedule. An edit names its base version, so that an edit delayed by a stopped replica is
 * refused if it arrives after a later edit.
 */
export async function setSchedule(clients: Clients, watcherId: string, every: number | null): Promise<void> {
  const schedule = cronOf(every);
  const { watcher } = await clients.watchers.getWatcher({ watcherId });
  if (watcher!.spec!.schedule === schedule) return;
  await clients.watchers.updateWatcher({
    watcherId,
    spec: { ...watcher!.spec!, schedule },
    updateMask: { paths: ["schedule"] },
    expectedVersion: watcher!.version,
  });
}
