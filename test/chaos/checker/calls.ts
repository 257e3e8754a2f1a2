import { mayBeUndone } from "./losses.ts";
import { linesOf, type Violation, type World } from "./world.ts";

const ended = new Set(["completed", "failed", "timeout", "cancelled", "skipped"]);

/** Effects reported to a person by a call have happened. */
export function checkCalls(world: World): Violation | undefined {
  const rule = "an answer is true";
  for (const { org, request, answer, sentAt, answeredAt } of world.operations) {
    if (!answer || mayBeUndone(world, sentAt, answeredAt)) continue;
    const run = answer.run === undefined ? undefined : world.runs.get(answer.run);
    const lines = () => linesOf(world, answer.run === undefined ? {} : { run: answer.run });
    if (answer.run !== undefined && run?.org !== org) {
      return {
        rule,
        what: `${request.method} answered run ${answer.run}, which is not in ${org}`,
        lines: lines(),
      };
    }
    if (request.method === "trigger" && run?.watcher !== request.watcher) {
      return {
        rule,
        what: `trigger of watcher ${request.watcher} answered run ${answer.run}`,
        lines: lines(),
      };
    }
    if (request.method === "retry" && run && run.retryOf !== request.run && answer.alreadyQueued !== true) {
      return {
        rule,
        what: `retry of run ${request.run} answered run ${answer.run}, which is no retry of it`,
        lines: lines(),
      };
    }
    if (request.method === "cancel") {
      const status = world.runs.get(request.run)?.status ?? "";
      if (ended.has(status)) continue;
      const what = `run ${request.run} was cancelled and is ${status}`;
      return { rule, what, lines: linesOf(world, { run: request.run }) };
    }
  }
  return undefined;
}
