import { setTimeout as sleep } from "node:timers/promises";
import type { Clients } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";
import { execute } from "./execute/execute.ts";
import { resolve, verify } from "./execute/verify.ts";
import { verifyWatchers } from "./execute/verify-watchers.ts";
import type { Desired } from "./file/desired.ts";
import type { ParsedFile } from "./file/file.ts";
import { makePlan, work } from "./plan/plan.ts";
import type { Kind, Plan, Step } from "./plan/steps.ts";
import { readState } from "./state.ts";

/**
 * Maximum of reads of the org for one plan: another caller may write between the read and the dry
 * run, and on a busy server writes its watchers for as long as three readings take.
 */
const readingsMax = 8;

export type ApplyOptions = { only: ReadonlySet<Kind>; prune: boolean; signal: AbortSignal };

/**
 * Maximum of new plans after another caller's writes. Each round drops the steps already done, so
 * people with the same file at the same time need two or three rounds.
 */
const roundsMax = 8;
/**
 * Maximum delay before a new plan, in ms; a random part is used, so two callers do not stay in
 * step.
 */
const roundDelayMs = 250;

/** The plan for a file, fully checked by dry runs. Changes nothing. */
export async function planFile(
  clients: Clients,
  parsed: ParsedFile,
  desired: Desired,
  options: ApplyOptions,
): Promise<Plan> {
  for (let reading = 1; ; reading++) {
    const state = await readState(clients, options);
    const resolved = resolve(desired, state, options);
    if (resolved.problems.length > 0) throw parsed.fail(resolved.problems);
    const { verdicts, problems, mayBeStale } = await verify(clients, resolved.desired, state, options);
    const plan = makePlan(resolved.desired, state, verdicts, { ...options, templates: parsed.templates });
    const watchers = await verifyWatchers(clients, plan.steps, state, options.signal);
    problems.push(...watchers.problems);
    if (problems.length === 0) return plan;
    if (!(mayBeStale || watchers.mayBeStale) || reading === readingsMax) throw parsed.fail(problems);
    await sleep(Math.random() * roundDelayMs * (reading - 1), undefined, { signal: options.signal });
  }
}

export type Failed = { step: Step; message: string };

export type Progress = {
  onDone(step: Step): void;
  onFailed(failed: Failed): void;
  /** Another caller changed the org meanwhile. `left`: number of remaining steps. */
  onReplan(left: number): void;
};

/**
 * Executes a plan, with a new plan after each conflict, until no step is left. Deletes nothing
 * outside the first plan and does not repeat failed steps. Resolves to the done and the failed
 * steps.
 */
export async function applyPlan(
  clients: Clients,
  parsed: ParsedFile,
  desired: Desired,
  plan: Plan,
  options: ApplyOptions & { progress: Progress },
): Promise<{ done: Step[]; failed: Failed[] }> {
  const { signal, progress } = options;
  const done: Step[] = [];
  const failed: Failed[] = [];
  const deletable = new Set(plan.steps.filter(({ action }) => action === "delete").map(nameOf));
  let steps = work(plan);
  for (let round = 1; ; round++) {
    const { isStale } = await execute(clients, steps, {
      signal,
      onStep: (step, outcome) => {
        if (outcome.is === "done") {
          done.push(step);
          progress.onDone(step);
        } else if (outcome.is === "failed") {
          failed.push({ step, message: outcome.message });
          progress.onFailed({ step, message: outcome.message });
        }
      },
    });
    // The remaining steps may need the failed agent.
    if (!isStale || failed.some(({ step }) => step.kind === "agent")) return { done, failed };
    if (round === roundsMax) {
      throw new Failure(
        exitCodes.conflict,
        `somebody else keeps changing the same things; gave up after ${roundsMax} rounds`,
        "what was written stays; run it again when they are through",
      );
    }
    await sleep(Math.random() * roundDelayMs * round, undefined, { signal });
    const next = await planAgain();
    const tried = new Set(failed.map(({ step }) => nameOf(step)));
    steps = work(next).filter((step) =>
      step.action === "delete" ? tried.size === 0 && deletable.has(nameOf(step)) : !tried.has(nameOf(step)),
    );
    progress.onReplan(steps.length);
  }

  async function planAgain(): Promise<Plan> {
    try {
      return await planFile(clients, parsed, desired, options);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      throw new Failure(
        error.exitCode,
        error.message,
        "somebody changed this meanwhile; what was written stays",
      );
    }
  }
}

function nameOf(step: Step): string {
  return `${step.kind} ${step.id}`;
}
