/**
 * The event stream of this tab. The stream resumes after the last received event, so no logged
 * event is missed. Transient events have no cursor; after every gap the lists are read again
 * instead.
 *
 * | state          | meaning                                                   |
 * |----------------|-----------------------------------------------------------|
 * | `off`          | signed out                                                |
 * | `connecting`   | the first stream is being opened                          |
 * | `live`         | events arrive as they happen                              |
 * | `reconnecting` | the stream broke; retried after an increasing delay       |
 * | `resting`      | the tab was hidden for a while, and closed its stream     |
 */

import type { JsonObject } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { signal } from "@preact/signals";
import type { Event, TransientEvent } from "#gen/pinion/v1/event_pb.js";
import { endIfRefused, events, streaming } from "./api.ts";
import { backoffMs, pause, watchdog } from "./backoff.ts";

export type LiveState = "off" | "connecting" | "live" | "reconnecting" | "resting";

/** Maximum silence in ms; the server sends a message every 15 s. */
const silenceMsMax = 40_000;
/**
 * Time in ms until a hidden tab closes its stream: over HTTP/1.1 all tabs share six connections.
 */
const restAfterMs = 30_000;

export const liveState = signal<LiveState>("off");

/** An event of the log, or a transient event, without cursor and actor. */
export type Happening = {
  cursor: string;
  at?: Timestamp | undefined;
  kind: string;
  actor: string;
  runId: string;
  watcherId: string;
  deviceId: string;
  data: JsonObject;
};

export function happeningOf(event: Event): Happening {
  return { ...event, data: event.data ?? {} };
}

function passing({ at, kind, runId, watcherId, deviceId, attempt, sessionEpoch }: TransientEvent): Happening {
  const data: JsonObject = attempt > 0 ? { attempt } : { session: String(sessionEpoch) };
  return { cursor: "", ...(at ? { at } : {}), kind, actor: "", runId, watcherId, deviceId, data };
}

type Listener = { onEvent(event: Happening): void; onGap(): void };
const listeners = new Set<Listener>();

/**
 * Calls `onEvent` for every event, and `onGap` after every interruption, when events may be
 * missing.
 */
export function listen(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tellEvent(event: Happening): void {
  for (const listener of listeners) listener.onEvent(event);
}

function tellGap(): void {
  for (const listener of listeners) listener.onGap();
}

let retryNow: (() => void) | undefined;

/** Reconnects at once. */
export function reconnect(): void {
  retryNow?.();
}

/** Keeps the stream open until the signal aborts. */
export async function stayLive(signal: AbortSignal): Promise<void> {
  let cursor = "";
  let failures = 0;
  liveState.value = "connecting";
  while (!signal.aborted) {
    await untilShown(signal);
    if (signal.aborted) break;
    const hidden = hiddenFor(restAfterMs, signal);
    try {
      for await (const seen of follow(cursor, hidden.signal)) {
        cursor = seen;
        if (liveState.value !== "live") {
          if (liveState.value !== "connecting") tellGap();
          liveState.value = "live";
        }
        failures = 0;
      }
    } catch (error) {
      endIfRefused(error);
    } finally {
      hidden.stop();
    }
    if (signal.aborted) break;
    if (document.hidden) {
      liveState.value = "resting";
      continue;
    }
    liveState.value = "reconnecting";
    const waited = new AbortController();
    retryNow = () => waited.abort();
    await pause(backoffMs(failures++), AbortSignal.any([signal, waited.signal]));
  }
  liveState.value = "off";
}

/** Yields the cursors of a stream; the listeners get its events. */
async function* follow(after: string, signal: AbortSignal): AsyncGenerator<string> {
  const alive = watchdog(signal, silenceMsMax);
  let cursor = after;
  try {
    const request = { afterCursor: after, includeTransient: true };
    for await (const { update } of events.watchEvents(request, streaming(alive.signal))) {
      alive.heard();
      if (update.case === "cursor") cursor = update.value;
      else if (update.case === "event") {
        cursor = update.value.cursor;
        tellEvent(happeningOf(update.value));
      } else if (update.case === "transient") tellEvent(passing(update.value));
      else if (update.case === "resync") tellGap();
      yield cursor;
    }
  } finally {
    alive.stop();
  }
}

function untilShown(signal: AbortSignal): Promise<void> {
  if (!document.hidden || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      signal.removeEventListener("abort", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
  });
}

/** A signal aborted with `outer`, or after the tab was hidden for `ms`. */
export function hiddenFor(ms: number, outer: AbortSignal): { signal: AbortSignal; stop: () => void } {
  const resting = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(() => resting.abort(), ms);
  };
  document.addEventListener("visibilitychange", look);
  look();
  return {
    signal: AbortSignal.any([outer, resting.signal]),
    stop() {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", look);
    },
  };
}

/** Whether an event is the end of a run. */
export const endsRuns = ({ kind }: Happening) =>
  /^run\.(completed|failed|timeout|cancelled|skipped)/.test(kind);
