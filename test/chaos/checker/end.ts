import { linesOf, type Violation, type World } from "./world.ts";

/** Once the faults are over and there is nothing more to do, nothing is left to be done. */
export function checkEnd(world: World): Violation | undefined {
  const rule = "everything ends";
  for (const entry of world.history) {
    if (entry.kind !== "gaveUp") continue;
    const what = `device ${entry.device} gave up: ${entry.error}`;
    const lines = linesOf(world, { device: entry.device, from: entry.at - 15_000, to: entry.at });
    return { rule: "no device gives up", what, lines };
  }
  for (const run of world.rows.runs) {
    if (run.status !== "pending" && run.status !== "claimed" && run.status !== "running") continue;
    return {
      rule,
      what: `run ${run.id} is ${run.status} still: ${run.reason}`,
      lines: linesOf(world, { run: run.id }),
    };
  }
  const [waiting] = world.rows.backlog;
  if (waiting) {
    const what = `a slot of watcher ${waiting.watcher} waits still`;
    return { rule, what, lines: linesOf(world, { watcher: waiting.watcher }) };
  }
  for (const entry of world.history) {
    if (entry.kind !== "held" || entry.attempts.length === 0) continue;
    const [{ run, token }] = entry.attempts as [{ run: string; token: string }];
    const what = `device ${entry.device} holds the result of attempt ${token} of run ${run} still`;
    return { rule, what, lines: linesOf(world, { run }) };
  }
  return undefined;
}
