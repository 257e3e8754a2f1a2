import { durationMs } from "@bufbuild/protobuf/wkt";
import { messageOf } from "../device/errors.ts";
import type { AttemptResult } from "../device/results/completion.ts";
import { AttentionReason } from "../gen/pinion/v1/activity_pb.js";
import type { Assignment } from "../gen/pinion/v1/device_pb.js";
import { abortedOutcome } from "../runner/program-result.ts";
import { formatDuration } from "../runner/quantities.ts";
import { AgentAttempt, type AgentRun } from "./agent-attempt.ts";
import { AttemptRecord } from "./record.ts";
import { type AgentTask, taskOf } from "./task.ts";
import { TimeLimit } from "./time-limit.ts";

const QUESTION_WAIT_MS_MAX = 60 * 60_000;

type Ending = "timeout" | "idle" | "budget";

/** Runs one attempt of an agent to the end. Never rejects. */
export async function runAgent(run: AgentRun): Promise<AttemptResult> {
  const startedAt = performance.now();
  const { executor, context } = run;
  const stop = new AbortController();
  let ending: Ending | undefined;
  const endFor = (why: Ending) => {
    ending ??= why;
    stop.abort(new Error(why));
  };
  const task = taskOf(run.assignment);
  task.enforcesEgress = run.egressProblem === undefined;
  const record = new AttemptRecord({
    emit: (activity) => context.activity(activity),
    write: (text) => context.output("stdout", text),
    showsThinking: executor.showsThinking,
    outputLimitBytes: executor.outputLimitBytes,
    onUsage: () => {
      if (isOverBudget(task, record)) endFor("budget");
    },
  });
  const onAbort = () => stop.abort(context.signal.reason);
  context.signal.addEventListener("abort", onAbort, { once: true });
  if (context.signal.aborted) onAbort();
  const limit = new TimeLimit({
    limitMs: run.timeoutMs,
    pauseMaxMs: waitMaxOf(run.assignment),
    onExpired: () => endFor("timeout"),
  });
  const idle = new TimeLimit({
    limitMs: executor.idleTimeoutMs,
    pauseMaxMs: Number.POSITIVE_INFINITY,
    onExpired: () => endFor("idle"),
  });
  const timed = (result: AttemptResult) => ({ ...result, durationMs: performance.now() - startedAt });
  const onAnswer = (result: AttemptResult) => {
    const answer = endedBy(ending, run, timed(result));
    if (answer.outcome === "completed") context.answered(answer);
  };
  const attempt = new AgentAttempt(run, { record, task, stop, limit, idle, onAnswer });
  try {
    const { end, child } = await attempt.toItsEnd();
    return endedBy(ending, run, timed(attempt.resultOf(end, child)));
  } catch (error) {
    return { outcome: "failed", reason: messageOf(error), output: record.output.text };
  } finally {
    limit.stop();
    context.signal.removeEventListener("abort", onAbort);
    idle.stop();
    stop.abort(new Error("the attempt is over"));
  }
}

/**
 * The result of an attempt that the device or the server ended: an end by others allows no retry.
 */
function endedBy(ending: Ending | undefined, run: AgentRun, whole: AttemptResult): AttemptResult {
  const { executor, context, timeoutMs } = run;
  // An answer that was there before the abort is a result.
  if (whole.outcome === "completed" && ending !== "budget") return whole;
  const { retryAfterMs: _, ...rest } = whole;
  switch (ending) {
    case "timeout": {
      const reason = `${executor.kind} was ended after its timeout of ${formatDuration(timeoutMs ?? 0)}`;
      return { ...rest, outcome: "timeout", reason };
    }
    case "idle": {
      const idleMs = executor.idleTimeoutMs ?? 0;
      const reason = `${executor.kind} was ended: it had printed nothing for ${formatDuration(idleMs)}`;
      return { ...rest, outcome: "timeout", reason };
    }
    case "budget": {
      const reason = "the agent was stopped at its budget";
      const attention = [...(whole.attention ?? []), AttentionReason.BUDGET];
      return { ...rest, outcome: "failed", reason, attention };
    }
    case undefined:
      return context.signal.aborted ? { ...rest, ...abortedOutcome(context.signal) } : whole;
  }
}

function waitMaxOf({ questions }: Assignment): number {
  return questions?.waitMax === undefined ? QUESTION_WAIT_MS_MAX : durationMs(questions.waitMax);
}

function isOverBudget({ budget }: AgentTask, { usage }: AttemptRecord): boolean {
  if (usage === undefined) return false;
  const tokens = (usage.inputTokens ?? 0n) + (usage.outputTokens ?? 0n);
  if (budget.tokensMax > 0n && tokens > budget.tokensMax) return true;
  return budget.costMicrosMax > 0n && (usage.costMicros ?? 0n) > budget.costMicrosMax;
}
