import type { DaemonEvent } from "@pinion/client";
import type { Cli } from "../cli.ts";
import { formatLength } from "../print/lengths.ts";
import { plain } from "../print/table.ts";

/** Never printed: the attempt's token, and the program's output (with any content). */
const withheld = new Set([
  ...["attemptToken", "data", "output", "stderrTail"],
  ...["resultText", "structured", "transcript", "denials", "activity", "nextSnapshot"],
]);

/**
 * An event as an object for a line of JSON: snake_case names, integers for bigints, a size for
 * output.
 */
export function eventRecord(event: DaemonEvent): Record<string, unknown> {
  return { at: new Date(event.atMs).toISOString(), ...(record(event) as Record<string, unknown>) };
}

function record(value: unknown): unknown {
  // Integers beyond JSON's safe range are written as strings.
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  if (Array.isArray(value)) return value.map(record);
  if (typeof value !== "object" || value === null) return value;
  const pairs = Object.entries(value).flatMap(([key, inner]): [string, unknown][] => {
    if (inner instanceof Uint8Array) return [[`${snake(key)}_bytes`, inner.byteLength]];
    return withheld.has(key) || inner === undefined ? [] : [[snake(key), record(inner)]];
  });
  return Object.fromEntries(pairs);
}

function snake(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** An event as a line for people; undefined for events not shown. */
export function eventLine(cli: Cli, event: DaemonEvent): string | undefined {
  const said = sentence(cli, event);
  if (said === undefined) return undefined;
  const [word, ...rest] = said;
  const time = new Date(event.atMs).toLocaleTimeString("en-GB", { hourCycle: "h23" });
  return `${cli.colors.dim(time)}  ${word}  ${rest.filter(Boolean).join(" · ")}`.trimEnd();
}

type Sentence = [word: string, ...rest: string[]];

const pad = (word: string) => word.padEnd(12);

function sentence(cli: Cli, event: DaemonEvent): Sentence | undefined {
  return ofConnection(cli, event) ?? ofAttempt(cli, event) ?? ofDaemon(cli, event);
}

/** Connecting and its failures. */
function ofConnection(cli: Cli, event: DaemonEvent): Sentence | undefined {
  const { green, yellow, red } = cli.colors;
  switch (event.type) {
    case "connected":
      return [green(pad("connected")), `session ${event.sessionEpoch}`, `replica ${event.replicaId}`];
    case "disconnected":
      return [yellow(pad("disconnected")), plain(event.reason), `after ${formatLength(event.heldMs)}`];
    case "drained":
      return [
        yellow(pad("drained")),
        plain(event.message || event.reason),
        `back in ${formatLength(event.reconnectAfterMs)}`,
      ];
    case "retrying":
      return [yellow(pad("retrying")), `in ${formatLength(event.inMs)}`, plain(event.reason)];
    case "woke":
      return [yellow(pad("woke up")), `slept for ${formatLength(event.sleptMs)}`];
    case "fatal":
      return [red(pad("stopped")), plain(event.message)];
    default:
      return undefined;
  }
}

/** The life of an attempt. */
function ofAttempt(cli: Cli, event: DaemonEvent): Sentence | undefined {
  const { green, yellow, red, cyan, dim } = cli.colors;
  switch (event.type) {
    case "assignment":
      return [
        cyan(pad("assignment")),
        event.watcher || "turn",
        `run ${event.workId}`,
        event.firedAtMs === undefined
          ? ""
          : dim(`${formatLength(event.atMs - event.firedAtMs)} after it was due`),
      ];
    case "accepted":
      return [pad("accepted"), event.watcher, `run ${event.workId}`];
    case "rejected":
      return [red(pad("rejected")), `run ${event.workId}`, plain(event.message || event.reason)];
    case "cancel":
      return [yellow(pad("cancel")), `run ${event.workId}`, plain(event.reason)];
    case "cancelled":
      return [yellow(pad("cancelled")), `run ${event.workId}`];
    case "aborted":
      return [yellow(pad("aborted")), `run ${event.workId}`, "it is no longer ours"];
    case "finished":
      return [
        pad("finished"),
        event.watcher,
        `run ${event.workId}`,
        `took ${formatLength(event.durationMs)}`,
      ];
    case "acknowledged":
      return [
        event.verdict === "stored" || event.verdict === "already_stored"
          ? green(pad(event.verdict))
          : yellow(pad(event.verdict)),
        event.watcher,
        `run ${event.workId}`,
        dim(`${formatLength(event.storeMs)} after its end`),
        plain(event.message),
      ];
    case "started":
      return [pad("started"), event.executor, `run ${event.workId}`, `process ${event.pid}`];
    default:
      return undefined;
  }
}

/** The daemon itself: its configuration, its start and its stop. */
function ofDaemon(cli: Cli, event: DaemonEvent): Sentence | undefined {
  const { green, yellow, red } = cli.colors;
  switch (event.type) {
    case "configured":
      return event.problem === ""
        ? [green(pad("configured")), `${plain(event.file)} is in force`]
        : [red(pad("configured")), "the configuration before it stays in force", plain(event.problem)];
    case "swept":
      return [
        yellow(pad("swept")),
        `${event.workIds.length} programs that an earlier daemon left running were ended`,
      ];
    case "stopping":
      return [
        yellow(pad("stopping")),
        `${event.running} running`,
        `${event.unacknowledged} results unacknowledged`,
      ];
    case "set_aside":
      return [red(pad("set aside")), event.path, plain(event.problem)];
    default:
      return undefined;
  }
}
