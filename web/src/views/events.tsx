import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { labelOf } from "../data/devices.ts";
import { liveState } from "../data/live.ts";
import {
  hasOlderEvents,
  type LoggedEvent,
  logError,
  logged,
  logState,
  readOlderEvents,
} from "../data/log.ts";
import { slugOf } from "../data/watchers.ts";
import { Empty } from "../parts/empty.tsx";
import { FilterBox } from "../parts/filter.tsx";
import { type Column, Rows } from "../parts/rows.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo, route, setQuery } from "../route.ts";
import { clockText, msOf } from "../times.ts";

export function EventsView() {
  useEffect(() => {
    if (logState.peek() === "empty") void readOlderEvents();
  }, []);
  const text = route.value.query.get("q") ?? "";
  /** The list at the time of the pause; undefined while not paused. */
  const held = useSignal<readonly LoggedEvent[] | undefined>(undefined);
  const all = held.value ?? logged.value;
  const shown = useMemo(() => filtered(all, text), [all, text]);
  const waiting = held.value ? logged.value.length - held.value.length : 0;

  return (
    <>
      <div class="tools">
        <h1 class="unseen">Events</h1>
        <FilterBox value={text} hint="Filter events" onInput={(value) => setQuery({ q: value })} />
        <button
          type="button"
          aria-pressed={held.value !== undefined}
          onClick={() => {
            held.value = held.value ? undefined : logged.value;
          }}
        >
          {held.value ? `Go on${waiting > 0 ? ` (${waiting} new)` : ""}` : "Hold"}
        </button>
        <button type="button" disabled={shown.length === 0} onClick={() => download(shown)}>
          Export
        </button>
        <span class="muted">
          {liveState.value === "live"
            ? "newest first, as they happen"
            : "what happens now is added when the stream is back"}
        </span>
      </div>
      {logError.value && (
        <p class="error" role="alert">
          {logError.value}
        </p>
      )}
      {shown.length > 0 ? (
        <Rows
          label="Events"
          class="events"
          items={shown}
          keyOf={({ key }) => key}
          columns={columns}
          hasMore={hasOlderEvents.value}
          onEnd={() => {
            if (hasOlderEvents.peek() && !held.peek()) void readOlderEvents();
          }}
        />
      ) : (
        <NoEvents lookedThrough={all.length} />
      )}
    </>
  );
}

/** The events with all words of a text. */
function filtered(all: readonly LoggedEvent[], text: string): readonly LoggedEvent[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return all;
  return all.filter((entry) => words.every((word) => textOf(entry).includes(word)));
}

function NoEvents({ lookedThrough }: { lookedThrough: number }) {
  if (logState.value !== "ready") return <p class="empty loading">Reading…</p>;
  return (
    <Empty title={lookedThrough > 0 ? "No event matches" : "Nothing has happened yet"}>
      <p>
        {lookedThrough > 0
          ? `${lookedThrough} events were looked through.`
          : "Add a device or create a watcher."}
      </p>
    </Empty>
  );
}

const texts = new WeakMap<LoggedEvent, string>();

/** Saves the shown events as a file, a line of JSON for each. */
function download(shown: readonly LoggedEvent[]): void {
  const lines = shown.map(({ event: { at, ...rest } }) =>
    JSON.stringify({ at: at ? new Date(msOf(at)).toISOString() : undefined, ...rest }),
  );
  const url = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "application/x-ndjson" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `events-${new Date().toISOString().slice(0, 10)}.jsonl`;
  link.click();
  URL.revokeObjectURL(url);
}

function textOf(entry: LoggedEvent): string {
  let text = texts.get(entry);
  if (text === undefined) {
    const { kind, actor, runId, watcherId, deviceId, data } = entry.event;
    const names = [deviceId && labelOf(deviceId), watcherId && slugOf(watcherId)];
    text = [kind, actor, runId, watcherId, deviceId, ...names, dataText(data)].join(" ").toLowerCase();
    texts.set(entry, text);
  }
  return text;
}

/** Formats `{ a: 1 }` as "a=1". */
function dataText(data: object): string {
  return Object.entries(data)
    .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" ");
}

const badWords = /\.(failed|timeout|deleted|revoked|removed|disconnected)$/;
const goodWords = /\.(completed|enrolled|connected|resumed)$/;
const busyWords = /\.(claimed|started|created|starting)$/;

function toneOfKind(kind: string): string {
  if (badWords.test(kind)) return "bad";
  if (goodWords.test(kind)) return "good";
  return busyWords.test(kind) ? "busy" : "quiet";
}

const columns: Column<LoggedEvent>[] = [
  {
    name: "at",
    title: "Time",
    cell: ({ event }) => (
      <>
        <span class="clock">{event.at && clockText(msOf(event.at))}</span>{" "}
        <small>
          <Ago at={event.at} />
        </small>
      </>
    ),
  },
  {
    name: "kind",
    title: "Kind",
    cell: ({ event }) => (
      <span class={`status ${toneOfKind(event.kind)}`}>
        <i aria-hidden="true" />
        <code>{event.kind}</code>
      </span>
    ),
  },
  {
    name: "about",
    title: "About",
    cell: ({ event }, isActive) => {
      const tabIndex = isActive ? 0 : -1;
      return (
        <>
          {event.runId && (
            <a href={linkTo("runs", event.runId)} tabIndex={tabIndex}>
              run {event.runId.slice(-8)}
            </a>
          )}{" "}
          {event.watcherId && (
            <a href={linkTo("watchers", "", { q: event.watcherId })} tabIndex={tabIndex}>
              {slugOf(event.watcherId)}
            </a>
          )}{" "}
          {event.deviceId && (
            <a href={linkTo("fleet", "", { q: event.deviceId })} tabIndex={tabIndex}>
              {labelOf(event.deviceId)}
            </a>
          )}
        </>
      );
    },
  },
  {
    name: "actor",
    title: "By",
    cell: ({ event }) => {
      if (!event.actor) return <span class="muted">live only</span>;
      const [kind, id = ""] = event.actor.split(":");
      return (
        <span title={event.actor}>
          {kind === "device" && id ? labelOf(id) : kind}{" "}
          {kind !== "device" && id && <code>{id.slice(-8)}</code>}
        </span>
      );
    },
  },
  {
    name: "data",
    title: "Data",
    cell: ({ event }) => {
      const text = dataText(event.data);
      return (
        <code class="data" title={text}>
          {text}
        </code>
      );
    },
  },
];
