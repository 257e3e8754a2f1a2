import { type DestinationStream, type Logger, pino } from "pino";
import { excerpt } from "../values/excerpt.ts";
import { LogDestination, standardErrorLog } from "./log-destination.ts";
import { prettyLines } from "./log-lines.ts";

export type { Logger };

/** Keys whose values never reach a log, at any depth up to two. */
const secretKeys = [
  ...["token", "secret", "authorization", "joinCode", "attemptToken", "password", "databaseUrl", "cookie"],
  ...["metricsToken", "secretKeys", "DATABASE_URL", "DATABASE_DIRECT_URL", "PINION_TOKEN"],
  ...["PINION_SECRET_KEYS", "PINION_METRICS_TOKEN", "PINION_BOOTSTRAP_TOKEN"],
];

/**
 * Tokens and passwords within a text, for example in the error of a library with the URL of a
 * database or a header.
 */
const secretsInText: [pattern: RegExp, instead: string][] = [
  [/\bpin_(pat|dev|svc)_(?:[a-z][a-z0-9]{0,15}_)?[0-9A-Za-z]{8,}(_[0-9a-f]{8})?/g, "pin_$1_[redacted]"],
  // A join code, which is valid once.
  [/\b[A-HJ-NP-Z2-9]{4}(?:-[A-HJ-NP-Z2-9]{4}){3}\b/g, "[redacted]"],
  // With bounds: without them the time grows by the square of a long text of a stranger.
  [/([a-z][a-z0-9+.-]{0,30}:\/\/[^\s:/@"]{0,256}):[^\s@"]{1,1024}@/gi, "$1:[redacted]@"],
];

export type LogFormat = "auto" | "json" | "pretty";

/**
 * The process's logger: structured lines on standard error, or to `destination`. Lines are JSON, or
 * text for people (`auto`: text if standard error is a terminal). Secrets are redacted by their
 * keys and by their form.
 */
export function createLogger(options: {
  level: string;
  name: string;
  format?: LogFormat | undefined;
  destination?: DestinationStream;
}): Logger {
  const destination = options.destination ?? standardErrorLog();
  const format = options.format ?? "auto";
  const isForPeople =
    format === "pretty" || (format === "auto" && !options.destination && process.stderr.isTTY === true);
  const log = pino(
    {
      name: options.name,
      level: options.level,
      serializers: { err: fieldsOfError },
      redact: { paths: secretKeys.flatMap((key) => [key, `*.${key}`]), censor: "[redacted]" },
      // Applied to the finished line, so that the redaction covers every field and the stack of an
      // error.
      hooks: { streamWrite: withoutSecrets },
    },
    isForPeople ? prettyLines(destination) : destination,
  );
  if (destination instanceof LogDestination) {
    destination.onGap = (lines) => log.warn({ lines }, "lines of this log could not be written");
  }
  return log;
}

/** Maximum characters of a text of an error: a stranger may have written the text. */
const errorTextMax = 8_000;
/** Deeper values of an error are left out. */
const errorDepthMax = 4;

/**
 * The fields of an error in a line. Bytes are counted and not shown, because a secret in bytes has
 * no form to be redacted by: Node attaches the whole packet to the error of a malformed request.
 */
function fieldsOfError(error: unknown): unknown {
  return shownOf(pino.stdSerializers.err(error as Error), 0);
}

function shownOf(value: unknown, depth: number): unknown {
  if (typeof value === "string") {
    return value.length > errorTextMax ? excerpt(value, errorTextMax) : value;
  }
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object" || value === null) return value;
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `[${value.byteLength} bytes]`;
  if (depth === errorDepthMax) return undefined;
  if ("toJSON" in value && typeof value.toJSON === "function") return value;
  if (Array.isArray(value)) return value.map((each) => shownOf(each, depth + 1));
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, shownOf(each, depth + 1)]));
}

/** The line without the texts that have the form of a secret. */
function withoutSecrets(line: string): string {
  let text = line;
  for (const [pattern, instead] of secretsInText) text = text.replace(pattern, instead);
  return text;
}
