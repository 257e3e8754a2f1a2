/**
 * The one stream of events of this tab. It resumes after the last event that it saw, so nothing that is written down is
 * missed; what is not (transient events carry no cursor) is made good by reading the lists again after every gap.
 *
 * | state          | means                                                     |
 * |----------------|-----------------------------------------------------------|
 * | `off`          | nobody is signed in                                       |
 * | `connecting`   | the first stream is being opened                          |
 * | `live`         | events come as they happen                                |
 * | `reconnecting` | the stream broke; tried again after a growing wait        |
 * | `resting`      | the tab was hidden for a while, and let its stream go     |
 */

import type { JsonObject } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { signal } from "@preact/signals";
import type { Event, TransientEvent } from "#gen/pinion/v1/event_pb.js";
import { endIfRefused, events, streaming } from "./api.ts";
import { backoffMs, pause, watchdog } from "./backoff.ts";

export type LiveState = "off" | "connecting" | "live" | "reconnecting" | "resting";

/** The server promises a word every 15 s. */
const silenceMsMax = 40_000;
/** Six connections are all that tabs have together over HTTP/1.1: one that nobody looks at leaves its own to others. */
const restAfterMs = 30_000;

export const liveState = signal<LiveState>("off");

/** An event of the log, or a transient one, which has no cursor and no actor. */
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

/** Calls `onEvent` for every event, and `onGap` after each time in which some may have been missed. */
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

/** Tries again at once. */
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

/** The cursors of one stream as it goes; what it carries is told to the listeners. */
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

/** A signal that aborts with `outer`, or once the tab has been hidden for `ms`. */
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
