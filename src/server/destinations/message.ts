/** The content of a delivery, independent of the kind of destination. Pure. */
import type { Claimed } from "../../store/work/messages/delivery-claims.ts";
import type { Facts } from "../../store/work/messages/delivery-facts.ts";
import { ending, excerpt } from "../../values/excerpt.ts";

export type Message = {
  id: string;
  kind: string;
  /** A line of plain text. */
  title: string;
  /** Markdown. */
  body: string;
  /** The subject's URL on the page; undefined if the server has no public URL. */
  url: string | undefined;
  /** The payload for programs. */
  payload: Record<string, unknown>;
};

/** Maximum characters shown of a text. */
const textMax = 32_000;
/** Maximum bytes of data as JSON; larger data is left out, and the message says so. */
const dataBytesMax = 131_072;
const titleMax = 200;

export function messageOf(delivery: Claimed, facts: Facts, publicUrl: string | undefined): Message {
  const { title, body } = textsOf(delivery, facts);
  const url = urlOf(delivery, publicUrl);
  return {
    id: delivery.id,
    kind: delivery.kind,
    title: excerpt(title.replace(/\s+/g, " ").trim(), titleMax),
    body: excerpt(body.trim(), textMax),
    url,
    payload: payloadOf(delivery, facts, url),
  };
}

function urlOf({ kind, runId, watcherId }: Claimed, publicUrl: string | undefined): string | undefined {
  if (publicUrl === undefined) return undefined;
  const base = `${publicUrl.replace(/\/+$/, "")}/`;
  if (runId) return `${base}#/runs/${runId}`;
  if (watcherId) return `${base}#/watchers/${watcherId}`;
  return kind === "device.away" ? `${base}#/fleet` : base;
}

function textsOf(delivery: Claimed, facts: Facts): { title: string; body: string } {
  const { subject } = delivery;
  const name = facts.watcher?.name ?? "a watcher that was deleted";
  switch (delivery.kind) {
    case "question.asked": {
      const {
        title = "",
        text = "",
        options = [],
      } = (facts.question ?? {}) as {
        title?: string;
        text?: string;
        options?: { id: string; label?: string }[];
      };
      const choices = options.map(({ id, label }) => `- ${label || id}`).join("\n");
      return { title: `${name} asks: ${title}`, body: [text, choices].filter(Boolean).join("\n\n") };
    }
    case "watcher.paused":
      return {
        title: `${name} was paused after ${subject.consecutiveFailures} failures in a row`,
        body: `The last: ${quoted(String(subject.reason ?? ""))}`,
      };
    case "budget.reached":
      return {
        title: `${name}: the budget of ${subject.day} is used up`,
        body: String(subject.reason ?? ""),
      };
    case "device.away":
      return {
        title: `Device ${subject.label} has been away for a day`,
        body: `It was last heard of at ${subject.since}. Runs that are pinned to it wait.`,
      };
    case "destination.test":
      return {
        title: "A test from Pinion",
        body: `If you read this, results of **${facts.orgName}** arrive here.`,
      };
    default:
      return runTexts(delivery, facts, name);
  }
}

function runTexts(delivery: Claimed, facts: Facts, name: string): { title: string; body: string } {
  const { run } = facts;
  const status = delivery.kind.replace(/^run\./, "");
  const attention = attentionOf(delivery, facts);
  const note = attention.length > 0 ? `Needs attention: ${attention.join(", ")}` : "";
  if (!run) return { title: `${name}: ${status}`, body: note };
  const { text, data, output } = resultOf(facts);
  const shown = text || (data !== undefined ? fenced(JSON.stringify(data, null, 2), "json") : fenced(output));
  if (status === "completed") {
    const title = delivery.reason === "recovery" ? `${name} has recovered` : `${name}: completed`;
    return { title, body: [note, shown].filter(Boolean).join("\n\n") };
  }
  const what = status === "timeout" ? "timed out" : status;
  const reason = run.reason ? quoted(run.reason) : "";
  return { title: `${name}: ${what}`, body: [reason, note, shown].filter(Boolean).join("\n\n") };
}

function attentionOf({ subject }: Claimed, { report }: Facts): string[] {
  return ((subject.attention as string[] | undefined) ?? report?.attention ?? []).map((reason) =>
    reason.replaceAll("_", " "),
  );
}

type Result = { text: string; data: unknown; output: string; isTruncated: boolean };

/** A run's answer, its data, and the end of its output. */
function resultOf({ data, report, run }: Facts): Result {
  const text = String(data?.result ?? report?.result ?? "");
  const structured = data?.structured ?? report?.structured ?? undefined;
  return {
    text,
    data: structured,
    output: String(data?.output ?? run?.outputTail ?? ""),
    isTruncated: data?.is_truncated === true,
  };
}

/**
 * Plain text in a code fence. The fence is longer than any run of its character within the text.
 */
function fenced(text: string, language = ""): string {
  const end = text.trimEnd();
  if (end.trim() === "") return "";
  // The end of an output is where an agent answers.
  const shown = end.length > textMax / 2 ? `…${ending(end, textMax / 2)}` : end;
  const longest = Math.max(2, ...[...shown.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${shown}\n${fence}`;
}

const quoted = (text: string) =>
  text
    .split("\n")
    .map((line) => `> ${line}`)
    .join("\n");

function payloadOf(delivery: Claimed, facts: Facts, url: string | undefined): Record<string, unknown> {
  const { kind, reason, subject } = delivery;
  const { watcher, run } = facts;
  const isRun = kind.startsWith("run.");
  const data: Record<string, unknown> = { org_id: delivery.orgId };
  if (url) data.url = url;
  if (reason) data.when = reason;
  if (watcher) data.watcher = watcher;
  if (run) {
    data.run = {
      id: run.id,
      // A run reported again after a late result has its current status.
      status: isRun ? kind.slice(4) : run.status,
      reason: run.reason,
      source: run.source,
      attempt: run.attempt,
      scheduled_for: run.scheduledFor,
      started_at: run.startedAt,
      finished_at: run.finishedAt,
      duration_ms: run.durationMs,
      exit_code: run.exitCode,
      device: run.device,
      attention: (subject.attention as string[] | undefined) ?? facts.report?.attention ?? [],
    };
  }
  if (isRun && run) data.result = resultPayload(resultOf(facts));
  if (facts.question) data.question = { id: subject.questionId, ...facts.question };
  if (kind === "watcher.paused") {
    data.reason = subject.reason;
    data.consecutive_failures = subject.consecutiveFailures;
  }
  if (kind === "budget.reached") Object.assign(data, { reason: subject.reason, day: subject.day });
  if (kind === "device.away") {
    data.device = { id: subject.deviceId, label: subject.label };
    data.away_since = subject.since;
  }
  return { type: kind, timestamp: delivery.createdAt.toISOString(), data };
}

function resultPayload({ text, data, output, isTruncated }: Result): Record<string, unknown> {
  const json = data === undefined ? undefined : JSON.stringify(data);
  const isTooLarge = json !== undefined && Buffer.byteLength(json) > dataBytesMax;
  const shown = excerpt(text, textMax);
  return {
    text: shown,
    ...(json === undefined ? {} : { structured: isTooLarge ? null : data }),
    ...(isTooLarge ? { structured_omitted: true } : {}),
    ...(text === "" ? { output: ending(output, textMax) } : {}),
    is_truncated: isTruncated || shown !== text || output.length > textMax,
  };
}
