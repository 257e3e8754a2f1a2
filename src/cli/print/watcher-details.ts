import { create } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { ContinueMode, type QuestionPolicy } from "#gen/pinion/v1/activity_pb.js";
import {
  type ConcurrencyGroup,
  type RateLimit,
  SpreadMode,
  type Watcher,
  type WatcherSpec,
  WatcherSpecSchema,
  WatcherStatus,
} from "#gen/pinion/v1/watcher_pb.js";
import type { Cli } from "../cli.ts";
import { formatBudget } from "./budget.ts";
import { type Column, details, plain, plainLines } from "./table.ts";
import { formatAgo, formatDuration, formatMomentAgo } from "./times.ts";
import * as words from "./words.ts";

export function watcherColumns(cli: Cli, labels: Map<string, string>, isWide: boolean): Column<Watcher>[] {
  const columns: Column<Watcher>[] = [
    { header: "WATCHER", cell: (watcher) => watcher.slug },
    { header: "STATUS", cell: (watcher) => words.paintState(cli, statusWord(watcher)) },
    { header: "SCHEDULE", cell: (watcher) => scheduleOf(watcher) },
    { header: "NEXT", cell: (watcher) => formatAgo(watcher.nextDueAt) },
    { header: "LAST END", cell: (watcher) => formatAgo(watcher.lastFiredAt) },
    {
      header: "FAILURES",
      cell: (watcher) =>
        watcher.consecutiveFailures > 0 ? cli.colors.red(String(watcher.consecutiveFailures)) : "",
      align: "right",
    },
    { header: "DEVICE", cell: (watcher) => executorOf(watcher, labels) },
    { header: "ACTIVE RUN", cell: (watcher) => watcher.activeRunId },
  ];
  if (isWide) {
    columns.push(
      { header: "ID", cell: (watcher) => watcher.id },
      { header: "VERSION", cell: (watcher) => String(watcher.version), align: "right" },
      { header: "AGENT", cell: (watcher) => watcher.spec?.agentId ?? "" },
      { header: "KIND", cell: (watcher) => watcher.spec?.agentKind ?? "" },
    );
  }
  columns.push({ header: "NAME", cell: (watcher) => plain(watcher.spec?.name ?? ""), isFlexible: true });
  return columns;
}

function scheduleOf(watcher: Watcher): string {
  if (!watcher.spec?.schedule) return "manual";
  return `${watcher.spec.schedule} ${watcher.spec.timeZone || "UTC"}`;
}

function executorOf(watcher: Watcher, labels: Map<string, string>): string {
  const id = watcher.spec?.deviceId ?? "";
  if (id !== "") return plain(labels.get(id) ?? id);
  const { selector = "", spread } = watcher.spec ?? {};
  if (selector !== "")
    return `${spread === SpreadMode.ALL ? "all that match" : "one that matches"}: ${plain(selector)}`;
  return words.watcherStatus.word(watcher.status) === "no_executor" ? "" : "any fleet worker";
}

/** Prints all data of a watcher, followed by its prompt. */
/**
 * A watcher whose agent is missing continues by itself when the agent returns; until then no
 * executor runs the watcher.
 */
function statusWord(watcher: Watcher): string {
  const isWithout = watcher.noExecutorReason !== "" && watcher.status === WatcherStatus.ACTIVE;
  return words.watcherStatus.word(isWithout ? WatcherStatus.NO_EXECUTOR : watcher.status);
}

function questionsLine({ timeout, defaultAnswer, responders }: QuestionPolicy): string {
  const who = words.questionResponders.word(responders) || "users";
  const otherwise = words.questionDefault.word(defaultAnswer) || "deny";
  return `answered by ${who} within ${formatDuration(timeout) || "10 m"}, else ${otherwise}`;
}

function groupLine({ name, max, scope }: ConcurrencyGroup): string {
  return `${plain(name)}: ${max} at once per ${words.groupScope.word(scope) || "org"}`;
}

function rateLine({ key, perMinute }: RateLimit): string {
  return `${plain(key)}: ${perMinute > 0 ? `${perMinute} runs a minute` : "as agents are told"}`;
}

export function printWatcher(cli: Cli, watcher: Watcher, labels: Map<string, string>): void {
  const { spec = create(WatcherSpecSchema) } = watcher;
  const rows = [
    ...stateRows(cli, watcher, spec),
    ["device", [executorOf(watcher, labels), spec.deviceId].filter(Boolean).join(" ")] as Row,
    ...specRows(spec),
    ...versionRows(watcher),
  ];
  for (const line of details(rows, cli.colors.dim)) cli.out(line);
  if (spec.extractionSchema)
    cli.out(`\n${cli.colors.dim("schema")}\n${JSON.stringify(spec.extractionSchema, null, 2)}`);
  cli.out(`\n${cli.colors.dim("prompt")}\n${plainLines(spec.prompt)}`);
}

type Row = [name: string, value: string];

function stateRows(cli: Cli, watcher: Watcher, spec: WatcherSpec): Row[] {
  const status = statusWord(watcher);
  const why = watcher.pausedReason || watcher.noExecutorReason;
  return [
    ["watcher", watcher.slug],
    ["id", watcher.id],
    ["name", plain(spec.name)],
    ["status", [words.paintState(cli, status), plain(why)].filter(Boolean).join(": ")],
    ["not run", watcher.unrunnableSlots > 0 ? `${watcher.unrunnableSlots} due slots since its last run` : ""],
    ["schedule", scheduleOf(watcher)],
    ["next", formatMomentAgo(watcher.nextDueAt)],
    ["queued slot", formatMomentAgo(watcher.queuedSlotAt)],
    ["last end", formatMomentAgo(watcher.lastFiredAt)],
    ["active run", watcher.activeRunId],
    ["failures", watcher.consecutiveFailures > 0 ? `${watcher.consecutiveFailures} in a row` : ""],
    ["backed off", watcher.backoffUntil ? `until ${formatMomentAgo(watcher.backoffUntil)}` : ""],
  ];
}

function specRows(spec: WatcherSpec): Row[] {
  return [
    ["group", spec.group ? groupLine(spec.group) : ""],
    ["rate limit", spec.rateLimit ? rateLine(spec.rateLimit) : ""],
    ["priority", spec.priority === 0 ? "" : String(spec.priority)],
    ["agent", spec.agentId],
    ["executor", spec.agentKind || "the device's default"],
    ["timeout", formatDuration(spec.timeout)],
    ["attempts", String(spec.maxAttempts || 1)],
    ["overlap", words.overlapPolicy.word(spec.overlap) || "skip"],
    [
      "catch-up",
      `${words.catchupPolicy.word(spec.catchup) || "collapse"} ${formatDuration(spec.catchupWindow)}`.trim(),
    ],
    ["jitter", spec.jitter && durationMs(spec.jitter) > 0 ? `up to ${formatDuration(spec.jitter)}` : ""],
    [
      "cooldown",
      spec.minCooldown && durationMs(spec.minCooldown) > 0 ? formatDuration(spec.minCooldown) : "",
    ],
    ["start deadline", formatDuration(spec.startDeadline)],
    ["notification", words.notification.word(spec.notification)],
    ["tells", spec.notify.map(({ to, when }) => `${to} (${words.notifyWhen.word(when)})`).join(", ")],
    ["workspace", plain(spec.workspace)],
    ["run budget", formatBudget(spec.runBudget)],
    ["day budget", formatBudget(spec.dayBudget)],
    ["begins with", spec.continueMode === ContinueMode.SESSION ? "the session of its last run" : ""],
    ["questions", spec.questions ? questionsLine(spec.questions) : ""],
    [
      "after",
      spec.after.length > 0 ? plain(`${spec.after.join(", ")}: ${spec.afterCondition || "completed"}`) : "",
    ],
    ["redacted", plain(spec.redact.join(", "))],
  ];
}

function versionRows(watcher: Watcher): Row[] {
  return [
    ["version", String(watcher.version)],
    ["created", formatMomentAgo(watcher.createdAt)],
    ["edited", formatMomentAgo(watcher.updatedAt)],
  ];
}
