import { isDeepStrictEqual } from "node:util";
import { toJson } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { omittedBytesOf } from "@pinion/client";
import type { Denial, KeptWorkspace } from "#gen/pinion/v1/activity_pb.js";
import {
  type LateResult,
  LateResultSchema,
  type PastAttempt,
  type Run,
  type Window,
} from "#gen/pinion/v1/run_pb.js";
import type { Cli } from "../cli.ts";
import type { Clients } from "../context.ts";
import { deviceLabels } from "../lookup.ts";
import { formatUsage } from "./budget.ts";
import { asJson } from "./json.ts";
import { details, plain, plainLines } from "./table.ts";
import { formatDuration, formatMoment, formatMomentAgo } from "./times.ts";
import * as words from "./words.ts";

/**
 * Prints results stored after the attempt had been taken away; a late result is the run's own
 * result only if settled.
 */
export function printLateResults(cli: Cli, results: readonly LateResult[]): void {
  for (const late of results) {
    const outcome = words.runStatus.word(late.outcome);
    const what = late.hasSettled
      ? "came late, and ended it after all"
      : `came late, is not its own result${late.isOutputTruncated ? ", and was cut" : ""}`;
    const said = `attempt ${late.attempt}, ${outcome}, ${what} (${formatMoment(late.storedAt)})`;
    cli.out(`\n${cli.colors.dim([said, plain(late.reason)].filter(Boolean).join(": "))}`);
    for (const text of [late.result, late.output]) if (text) cli.out(plainLines(text));
  }
}

function originLine({ origin }: Run): string {
  if (!origin) return "";
  if (origin.hookId) return plain(`hook ${origin.hookSlug}, delivery ${origin.hookDeliveryId}`);
  return plain(`the end of run ${origin.afterRunId} of ${origin.afterWatcherSlug}`);
}

/** Of an input on one line; `--json` has all of it. */
const inputCharactersMax = 300;

function inputLine(input: Value): string {
  const text = JSON.stringify(toJson(ValueSchema, input));
  return text.length <= inputCharactersMax ? text : `${text.slice(0, inputCharactersMax)} …`;
}

/** Late results as a member of the run's or turn's JSON. */
export const lateResultsJson = (results: readonly LateResult[]) => ({
  late_results: results.map((late) => asJson(LateResultSchema, late)),
});

/** Prints all data of a run, followed by its output. */
export async function printRun(cli: Cli, clients: Clients, run: Run): Promise<void> {
  const labels = await deviceLabels(clients);
  const rows = [...identityRows(cli, run, labels), ...timeRows(run), ...endRows(cli, run)];
  for (const line of details(rows, cli.colors.dim)) cli.out(line);
  await printResult(cli, clients, run);
}

type Rows = [name: string, value: string][];

function identityRows(cli: Cli, run: Run, labels: Map<string, string>): Rows {
  return [
    ["run", run.id],
    ["watcher", `${run.watcherSlug || run.watcherId} (version ${run.watcherVersion})`],
    ["status", words.paintState(cli, words.runStatus.word(run.status))],
    ["skipped for", words.skipReason.word(run.skipReason)],
    ["reason", plain(run.reason)],
    ["source", words.runSource.word(run.source)],
    ["device", run.deviceId ? `${plain(labels.get(run.deviceId) ?? "")} ${run.deviceId}`.trim() : "none yet"],
    ["agent", run.agentId ? `${run.agentId} (version ${run.agentVersion})` : ""],
    ["executor", run.agentKind],
  ];
}

function timeRows(run: Run): Rows {
  return [
    ["slot", formatMomentAgo(run.scheduledFor)],
    ["window", run.windowStart ? `${formatMoment(run.windowStart)} to ${formatMoment(run.windowEnd)}` : ""],
    ["due", formatMomentAgo(run.dueAt)],
    ["not before", formatMoment(run.notBefore)],
    ["expires", formatMomentAgo(run.startDeadlineAt)],
    ["claimed", formatMoment(run.claimedAt)],
    ["pushed", formatMoment(run.pushedAt)],
    ["started", formatMoment(run.startedAt)],
    ["last beat", formatMomentAgo(run.lastBeatAt)],
    ["cancel asked", formatMoment(run.cancelRequestedAt)],
    ["ended", formatMomentAgo(run.finishedAt)],
    ["took", formatDuration(run.duration)],
    ["timeout", formatDuration(run.timeout)],
  ];
}

/** The attempts, and what the last one told. */
function endRows(cli: Cli, run: Run): Rows {
  return [
    ["attempt", `${run.attempt} of ${run.maxAttempts}`],
    ["past attempts", run.pastAttempts.map(attemptLine).join("\n")],
    ["exit code", run.exitCode === undefined ? "" : String(run.exitCode)],
    ["signal", plain(run.signal)],
    ["retry of", run.retryOf],
    ["result", run.windowId],
    ["attention", run.attention.map((reason) => cli.colors.yellow(words.attention.word(reason))).join(", ")],
    ["denied", run.denials.map((denial) => denialLine(denial)).join("\n")],
    ["questions", run.openQuestions > 0 ? `${run.openQuestions} open; pinion runs answer ${run.id}` : ""],
    ["notes", run.notes.map(plain).join("\n")],
    ["workspace", plain(run.workspace)],
    ["kept", run.keptWorkspace ? keptLine(run.keptWorkspace) : ""],
    ["program", run.executor ? plain(programText(run.executor)) : ""],
    ["model", plain(run.modelUsed)],
    ["stopped by", plain(run.stopReason)],
    ["used", formatUsage(run.usage)],
    ["session", plain(run.sessionId)],
    ["started by", originLine(run)],
    ["input", run.input ? plain(inputLine(run.input)) : ""],
  ];
}

async function printResult(cli: Cli, clients: Clients, run: Run): Promise<void> {
  if (run.outputHidden) {
    return cli.note(
      `what it said is for the device's owner to show: pinion devices grant ${run.deviceId} --to <you> --read`,
    );
  }
  const { answer, structured, output, isCut } = await runResult(clients, run);
  const isDataAlone = structured !== undefined && isSameData(answer, structured);
  const texts = isDataAlone ? [] : [plainLines(answer || output)];
  if (structured !== undefined) texts.push(plainLines(JSON.stringify(structured, null, 2)));
  for (const text of texts) if (text) cli.out(`\n${text}`);
  const omitted = isCut ? omittedBytesOf(output) : 0;
  if (answer === "" && omitted > 0) {
    cli.note(
      `${omitted.toLocaleString("en-US")} bytes of the output are missing in its middle: its limit was reached`,
    );
  }
  if (run.stderrTail) {
    cli.out(`\n${cli.colors.dim("standard error, its end:")}`);
    cli.out(plainLines(run.stderrTail));
  }
  if (answer !== "" && run.hasTranscript) cli.note(`what it did: pinion runs transcript ${run.id}`);
}

/** An executor's name and version; the version text often begins with the name. */
export function programText({ type, version }: { type: string; version: string }): string {
  const words = (text: string) => text.toLowerCase().replaceAll("-", " ");
  return words(version).includes(words(type)) ? version : [type, version].filter(Boolean).join(" ");
}

/** True if a text is the JSON of a value, in any order of keys. */
function isSameData(text: string, value: unknown): boolean {
  try {
    return isDeepStrictEqual(JSON.parse(text), value);
  } catch {
    return false;
  }
}

function denialLine({ tool, input, reason }: Denial): string {
  return plain([tool, input && `(${input})`, reason && `: ${reason}`].filter(Boolean).join(" "));
}

function keptLine({ name, path, branch, commits, changedFiles }: KeptWorkspace): string {
  const made = [
    commits > 0 ? `${commits} commits on ${branch}` : "",
    changedFiles > 0 ? `${changedFiles} changed files` : "",
  ].filter(Boolean);
  return plain(`${name} at ${path}: ${made.join(", ")}`);
}

/** The result of a run: the agent's answer with its data, and the program's whole output. */
async function runResult(
  clients: Clients,
  run: Run,
): Promise<{ answer: string; structured: unknown; output: string; isCut: boolean }> {
  const tail = { answer: run.result, structured: undefined, output: run.outputTail, isCut: false };
  if (!run.windowId) return tail;
  const { windows } = await clients.runs.listWindows({ runId: run.id });
  const window = windows[0];
  if (!window) return tail;
  return {
    answer: window.result,
    structured: window.extractedData?.structured,
    output: windowOutput(window),
    isCut: window.extractedData?.is_truncated === true,
  };
}

function attemptLine(past: PastAttempt): string {
  const end = past.isReported ? "reported" : "taken back";
  const line = `${past.attempt}: claimed ${formatMoment(past.claimedAt)}, ${end} ${formatMoment(past.endedAt)}: ${plain(past.reason)}`;
  return past.outputTail === "" ? line : `${line}\n${plainLines(past.outputTail.trimEnd())}`;
}

/** The main text of a run: the agent's answer, or the program's output. */
export async function runOutput(clients: Clients, run: Run): Promise<string> {
  const { answer, output } = await runResult(clients, run);
  return answer || output;
}

/** The text of a window: a device program's output, otherwise the data as JSON. */
export function windowOutput(window: Window): string {
  const data = window.extractedData;
  if (!data) return "";
  return typeof data.output === "string" ? data.output : JSON.stringify(data, null, 2);
}
