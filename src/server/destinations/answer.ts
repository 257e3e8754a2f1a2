/** The meaning of a receiver's answer, or of an error on the way, for a delivery. */
import { codeOf } from "../../errors.ts";
import { AddressRefused } from "../../network/addresses.ts";
import type { Answer } from "../../network/outgoing.ts";
import { proxyErrorOf } from "../../network/outgoing.ts";
import type { Sent } from "../../scheduler/deliverer.ts";
import { excerpt } from "../../values/excerpt.ts";

const errorMax = 480;

/** Statuses with a lasting cause in the message or the receiver; every other answer may pass. */
const finalStatuses: Record<number, string> = {
  400: "it does not understand the message",
  410: "it is gone for good",
  413: "the message is too large for it",
  415: "it takes no JSON",
  422: "it does not take the message",
};

export function sentOf({ status, headers, text }: Answer): Sent {
  if (status >= 200 && status < 300) return { outcome: "delivered", status };
  const line = text.replace(/[\s\p{Cc}]+/gu, " ").trim();
  const said = line === "" ? "" : `: ${line}`;
  const why = finalStatuses[status];
  if (why)
    return { outcome: "refused", status, error: excerpt(`answered ${status} (${why})${said}`, errorMax) };
  const where = status >= 300 && status < 400 ? ", a redirect that is not followed" : "";
  return {
    outcome: "failed",
    status,
    error: excerpt(`answered ${status}${where}${said}`, errorMax),
    retryAfterMs: retryAfterMs(headers["retry-after"]),
  };
}

/** Seconds, or a date. */
export function retryAfterMs(header: string | undefined, now = Date.now()): number | undefined {
  if (header === undefined) return undefined;
  const ms = /^\d+$/.test(header) ? Number(header) * 1_000 : Date.parse(header) - now;
  return Number.isFinite(ms) && ms > 0 ? ms : undefined;
}

/**
 * The error in words, without anything sent. A forbidden address may be allowed later, or its name
 * may lead elsewhere.
 */
export function troubleOf(error: unknown): Sent {
  return { outcome: "failed", status: 0, error: excerpt(wordsOf(error), errorMax) };
}

/** A network's error in words. */
export function wordsOf(error: unknown): string {
  const proxy = proxyErrorOf(error);
  if (proxy) return `${proxy.message}; ${proxy.advice}`;
  if (error instanceof AddressRefused) return error.message;
  if (!(error instanceof Error)) return "could not be reached";
  if (error.name === "AbortError" || error.name === "TimeoutError") return "did not answer in time";
  if (error instanceof AggregateError && error.errors.length > 0) return wordsOf(error.errors[0]);
  const code = codeOf(error) ?? "";
  const ofTls = /:error:[0-9A-F]+:[^:]*:[^:]*:([^:\n]+)/.exec(error.message)?.[1];
  if (ofTls) return `speaks no TLS that we know (${ofTls})`;
  if (code.startsWith("HPE_")) return `its answer is no HTTP/1.1 (${error.message})`;
  return error.message || code || "could not be reached";
}
