import { AttemptAborted } from "../device/attempts/attempt.ts";
import type { AttemptResult } from "../device/results/completion.ts";
import type { AttemptFiles } from "./attempt-files.ts";
import type { ChildEnd } from "./child.ts";
import type { ExecutorConfig } from "./config.ts";
import { formatDuration } from "./quantities.ts";
import { EXIT_TEMPFAIL, retryAfterOf } from "./retry-after.ts";

/** Note of a result whose program printed the device's token. */
export const TOKEN_PRINTED =
  "the program printed this device's token, which was taken out; enrol the device again if others saw it";
/** Number of stderr lines quoted in a reason. */
const REASON_LINES = 5;

export interface ProgramEnd {
  executor: ExecutorConfig;
  end: ChildEnd;
  /** The timeout of the attempt in ms; undefined: none. */
  timeoutMs: number | undefined;
  /** The attempt's signal, with the reason of an abort. */
  signal: AbortSignal;
  files: AttemptFiles;
}

/** The result of a program at its end. */
export async function resultOf(program: ProgramEnd): Promise<AttemptResult> {
  const { end, files } = program;
  const result: AttemptResult = {
    ...outcomeOf(program),
    output: end.stdout,
    isOutputTruncated: end.isOutputTruncated,
    durationMs: end.durationMs,
    ...(end.exitCode === undefined ? {} : { exitCode: end.exitCode }),
    ...(end.signal === undefined ? {} : { signal: end.signal }),
    ...(end.stderrTail === "" ? {} : { stderrTail: end.stderrTail }),
    ...(end.hiddenSecrets === 0 ? {} : { notes: [TOKEN_PRINTED] }),
  };
  return end.kind === "exited" ? laterOf(result, end, files) : result;
}

type OutcomeAndReason = Pick<AttemptResult, "outcome" | "reason">;

function outcomeOf(program: ProgramEnd): OutcomeAndReason {
  const { executor, end, timeoutMs } = program;
  const [name] = executor.command;
  const failed = (outcome: "failed" | "timeout", reason: string): OutcomeAndReason => ({
    outcome,
    reason: withTail(reason, end),
  });
  switch (end.kind) {
    case "unstartable":
      return { outcome: "failed", reason: `[executors.${executor.kind}] ${end.problem}` };
    case "timeout":
      return failed("timeout", `${name} was ended after its timeout of ${formatDuration(timeoutMs ?? 0)}`);
    case "idle": {
      const limit = formatDuration(executor.idleTimeoutMs ?? 0);
      return failed("timeout", `${name} was ended because it said nothing for ${limit} (idle_timeout)`);
    }
    case "aborted":
      return abortedOutcome(program.signal);
    case "exited": {
      const isEmpty = executor.expect === "output" && end.stdout.trim() === "";
      if (end.exitCode === 0 && !isEmpty) return { outcome: "completed" };
      if (end.exitCode === 0)
        return failed("failed", `${name} ended well and printed nothing, and output is expected (expect)`);
      return failed(
        "failed",
        end.signal === undefined
          ? `${name} exited with code ${end.exitCode ?? "?"}`
          : `${name} was ended by ${end.signal}`,
      );
    }
  }
}

/** The outcome of an attempt that the daemon's own stop or the server ended. */
export function abortedOutcome(signal: AbortSignal): OutcomeAndReason {
  const why = signal.reason instanceof AttemptAborted ? signal.reason.why : "cancelled";
  return why === "stopping"
    ? { outcome: "failed", reason: "daemon stopped" }
    : { outcome: "cancelled", reason: why };
}

/** A program with a request for a later try has not failed. */
async function laterOf(result: AttemptResult, end: ChildEnd, files: AttemptFiles): Promise<AttemptResult> {
  if (end.exitCode === 0 || end.signal !== undefined) return result;
  const left = await files.collectRetryAfter();
  const text = "text" in left ? left.text : undefined;
  if (end.exitCode !== EXIT_TEMPFAIL && text === undefined) return result;
  const { ms, problem } = retryAfterOf(text, Date.now());
  const notes = [problem, "problem" in left ? left.problem : undefined].filter((note) => note !== undefined);
  return {
    ...result,
    retryAfterMs: ms,
    reason: `it asks to be tried again in ${formatDuration(ms)}: ${result.reason ?? ""}`,
    ...(notes.length === 0 ? {} : { notes: [...(result.notes ?? []), ...notes] }),
  };
}

/** The last lines of stderr usually explain the end. */
function withTail(reason: string, end: ChildEnd): string {
  const lines = end.stderrTail.split("\n").filter((line) => line.trim() !== "");
  return lines.length === 0 ? reason : `${reason}: ${lines.slice(-REASON_LINES).join("\n")}`;
}
