import { stripVTControlCharacters } from "node:util";
import type { DestinationStream } from "pino";

/** Lines for people, from lines of JSON: time, level, message, and the fields in a row. */

const levels: Record<number, string> = {
  10: "trace",
  20: "debug",
  30: "info",
  40: "warn",
  50: "error",
  60: "fatal",
};
/** In every line of a process, so that they tell nothing on its own terminal. */
const unshown = new Set(["level", "time", "pid", "hostname", "name", "msg", "err", "replicaId"]);
/** What a value may take of a line. */
const charactersMax = 200;

export function prettyLines(destination: DestinationStream): DestinationStream {
  return { write: (line) => destination.write(prettyLine(line)) };
}

/**
 * One line for people, with a stack below it where there is one; what is no JSON stays as it is.
 */
export function prettyLine(line: string): string {
  let entry: Record<string, unknown>;
  try {
    entry = JSON.parse(line);
  } catch {
    return line;
  }
  const time = new Date(Number(entry.time)).toISOString().slice(11, 23);
  const level = (levels[Number(entry.level)] ?? String(entry.level)).padEnd(5);
  const fields = Object.entries(entry)
    .filter(([key]) => !unshown.has(key))
    .map(([key, value]) => `${key}=${shown(value)}`);
  const { err } = entry as { err?: { stack?: string; message?: string } };
  const stack = err ? `\n${plain(err.stack ?? err.message ?? "")}` : "";
  return `${[time, level, plain(String(entry.msg ?? "")), ...fields].join(" ")}${stack}\n`;
}

function shown(value: unknown): string {
  const text = typeof value === "string" && /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
  return plain(text.length > charactersMax ? `${text.slice(0, charactersMax)}…` : text);
}

/** Nothing that somebody else wrote moves the cursor or colours the terminal. */
function plain(text: string): string {
  return stripVTControlCharacters(text);
}
