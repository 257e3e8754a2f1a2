import type { PastAttempt, Run, Window } from "#gen/pinion/v1/run_pb.js";
import type { Cli } from "../cli.ts";
import type { Clients } from "../context.ts";
import { deviceLabels } from "../lookup.ts";
import { details, plain, plainLines } from "./table.ts";
import { formatDuration, formatMoment, formatMomentAgo } from "./times.ts";
import * as words from "./words.ts";

/** Everything about a run, and its output below. */
export async function printRun(cli: Cli, clients: Clients, run: Run): Promise<void> {
  const labels = await deviceLabels(clients);
  const lines = details(
    [
      ["run", run.id],
      ["watcher", `${run.watcherSlug || run.watcherId} (version ${run.watcherVersion})`],
      ["status", words.paintState(cli, words.runStatus.word(run.status))],
      ["skipped for", words.skipReason.word(run.skipReason)],
      ["reason", plain(run.reason)],
      ["source", words.runSource.word(run.source)],
      [
        "device",
        run.deviceId ? `${plain(labels.get(run.deviceId) ?? "")} ${run.deviceId}`.trim() : "any fleet worker",
      ],
      ["agent", run.agentId ? `${run.agentId} (version ${run.agentVersion})` : ""],
      ["executor", run.agentKind],
      ["slot", formatMomentAgo(run.scheduledFor)],
      ["window", run.windowStart ? `${formatMoment(run.windowStart)} to ${formatMoment(run.windowEnd)}` : ""],
      ["due", formatMomentAgo(run.dueAt)],
      ["not before", formatMoment(run.notBefore)],
      ["expires", formatMomentAgo(run.expiresAt)],
      ["claimed", formatMoment(run.claimedAt)],
      ["pushed", formatMoment(run.pushedAt)],
      ["started", formatMoment(run.startedAt)],
      ["last beat", formatMomentAgo(run.lastBeatAt)],
      ["cancel asked", formatMoment(run.cancelRequestedAt)],
      ["ended", formatMomentAgo(run.finishedAt)],
      ["took", formatDuration(run.duration)],
      ["timeout", formatDuration(run.timeout)],
      ["attempt", `${run.attempt} of ${run.maxAttempts}`],
      ["past attempts", run.pastAttempts.map(attemptLine).join("\n")],
      ["exit code", run.exitCode === undefined ? "" : String(run.exitCode)],
      ["signal", run.signal],
      ["retry of", run.retryOf],
      ["result", run.windowId],
    ],
    cli.colors.dim,
  );
  for (const line of lines) cli.out(line);
  const output = await runOutput(clients, run);
  if (output) {
    cli.out("");
    cli.out(plainLines(output));
  }
}

function attemptLine(past: PastAttempt): string {
  const end = past.isReported ? "reported" : "taken back";
  return `${past.attempt}: claimed ${formatMoment(past.claimedAt)}, ${end} ${formatMoment(past.endedAt)}: ${plain(past.reason)}`;
}

/** The stored output of a run: its window's, or the tail that is kept of a run without one. */
export async function runOutput(clients: Clients, run: Run): Promise<string> {
  if (!run.windowId) return run.outputTail;
  const { windows } = await clients.runs.listWindows({ runId: run.id });
  return windows[0] ? windowOutput(windows[0]) : run.outputTail;
}

/** The text of a window: a device program's output, or the data as JSON for anything else. */
export function windowOutput(window: Window): string {
  const data = window.extractedData;
  if (!data) return "";
  return typeof data.output === "string" ? data.output : JSON.stringify(data, null, 2);
}
