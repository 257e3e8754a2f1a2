/** The latest events received or read by this tab, newest first. */
import { signal } from "@preact/signals";
import { events as api, explainError } from "./api.ts";
import { type Happening, happeningOf } from "./live.ts";

/** `key` is the cursor, or a local number for a transient event. */
export type LoggedEvent = { key: string; event: Happening };

const pageSize = 100;
/** Maximum of kept events; older events can be read again. */
const keptMax = 5_000;
/** Events within this time in ms are rendered together. */
const gatherMs = 80;

export const logged = signal<readonly LoggedEvent[]>([]);
export const hasOlderEvents = signal(false);
export const logError = signal("");
export const logState = signal<"empty" | "loading" | "ready">("empty");

let arrived: LoggedEvent[] = [];
let timer: ReturnType<typeof setTimeout> | undefined;
let transients = 0;
let olderToken = "";

export function addEvent(event: Happening): void {
  arrived.push({ key: event.cursor || `live-${transients++}`, event });
  timer ??= setTimeout(take, gatherMs);
}

function take(): void {
  timer = undefined;
  const known = new Set(logged.value.slice(0, 500).map(({ key }) => key));
  const fresh = arrived.filter(({ key }) => !known.has(key)).reverse();
  arrived = [];
  const next = [...fresh, ...logged.value];
  if (next.length > keptMax) {
    next.length = keptMax;
    // The following events were read before and dropped: from here on the list ends here.
    hasOlderEvents.value = false;
  }
  logged.value = next;
}

/** Reads the page of events before the oldest known event. */
export async function readOlderEvents(): Promise<void> {
  if (logState.value === "loading") return;
  logState.value = "loading";
  try {
    const page = await api.listEvents({ pageSize, pageToken: olderToken });
    olderToken = page.nextPageToken;
    hasOlderEvents.value = olderToken !== "" && logged.value.length < keptMax;
    const known = new Set(logged.value.map(({ key }) => key));
    const older = page.events
      .filter((event) => !known.has(event.cursor))
      .map((event) => ({ key: event.cursor, event: happeningOf(event) }));
    logged.value = [...logged.value, ...older];
    logError.value = "";
  } catch (error) {
    logError.value = explainError(error);
  } finally {
    logState.value = "ready";
  }
}

export function clearLog(): void {
  clearTimeout(timer);
  timer = undefined;
  arrived = [];
  olderToken = "";
  logged.value = [];
  hasOlderEvents.value = false;
  logError.value = "";
  logState.value = "empty";
}
