import type { Cli } from "../../cli.ts";
import { plain } from "../../print/table.ts";
import { cut } from "../../print/width.ts";
import type { Failed } from "../run.ts";
import type { Action, FieldChange, Plan, Step } from "./steps.ts";

/** Maximum characters of a value on a line, if the terminal gives no width. */
const valueWidth = 60;
/** Maximum of listed steps on a terminal or in a log; the counts include all steps. */
const stepsShownMax = 500;

const marks: Record<Action, string> = { create: "+", update: "~", noop: "=", drift: "?", delete: "-" };

const verbs: Record<Action, [plan: string, done: string]> = {
  create: ["to create", "created"],
  update: ["to update", "updated"],
  delete: ["to delete", "deleted"],
  noop: ["unchanged", "unchanged"],
  drift: ["on the server only", "on the server only"],
};

/** Number of steps by action. */
export function counts(steps: readonly Step[]): Record<Action, number> {
  const all: Record<Action, number> = { create: 0, update: 0, delete: 0, noop: 0, drift: 0 };
  for (const { action } of steps) all[action] += 1;
  return all;
}

/** The plan as text for people. `showsAll` also lists unchanged objects. */
export function planLines(cli: Cli, plan: Plan, showsAll: boolean): string[] {
  const steps = plan.steps.filter(({ action }) => showsAll || action !== "noop");
  const hidden = steps.length - stepsShownMax;
  const { dim } = cli.colors;
  return [
    ...steps.slice(0, stepsShownMax).flatMap((step) => stepLines(cli, step)),
    ...(hidden > 0 ? [dim(`  … and ${hidden} more`)] : []),
    ...(steps.length > 0 ? [""] : []),
    `Plan: ${countsText(plan.steps, 0)}`,
    ...(plan.steps.some(isPrunable) ? [dim("--prune would delete what is on the server only")] : []),
  ];
}

/** The default agent has a note instead: deletion is not possible. */
function isPrunable(step: Step): boolean {
  return step.action === "drift" && step.note === "";
}

/** Counts as text, "1 to create, 2 unchanged"; in the past tense after the work. */
export function countsText(steps: readonly Step[], tense: 0 | 1): string {
  const all = counts(steps);
  const parts = (Object.keys(verbs) as Action[])
    .filter((action) => all[action] > 0)
    .map((action) => `${all[action]} ${verbs[action][tense]}`);
  return parts.length === 0 ? "nothing" : parts.join(", ");
}

/** A line such as "created watcher repo-digest". */
export function doneLine(cli: Cli, step: Step): string {
  return `${paint(cli, step.action, verbs[step.action][1])} ${step.kind} ${plain(step.id)}`;
}

/** A line such as "failed platform ada-telegram: why". */
export function failedLine(cli: Cli, { step, message }: Failed): string {
  return `${cli.colors.red("failed")} ${step.kind} ${plain(step.id)}: ${plain(message)}`;
}

function stepLines(cli: Cli, step: Step): string[] {
  const { dim, yellow } = cli.colors;
  const belongs = step.agent !== "" && step.kind !== "agent" ? dim(` of ${plain(step.agent)}`) : "";
  const remarks = [
    ...(step.willRestart ? [yellow("restarts, and is away meanwhile")] : []),
    ...(step.action === "drift" && step.note === "" ? [dim("is not in the file")] : []),
    ...(step.note === "" ? [] : [yellow(plain(step.note))]),
  ];
  const head = `  ${paint(cli, step.action, marks[step.action])} ${step.kind.padEnd(8)} ${plain(step.id)}${belongs}`;
  return [
    [head, ...remarks].join("  "),
    ...step.fields.map((change) => `      ${changeText(cli, change, step.action === "create")}`),
  ];
}

function changeText(cli: Cli, { field, before, after }: FieldChange, isNew: boolean): string {
  const { dim, red, green } = cli.colors;
  const name = dim(`${plain(field)}:`);
  const [old, next] = excerpts(valueText(before), valueText(after));
  return isNew ? `${name} ${green(next)}` : `${name} ${red(old)} → ${green(next)}`;
}

function valueText(value: unknown): string {
  return value === undefined || value === null || value === "" ? "(none)" : plain(JSON.stringify(value));
}

/**
 * Cuts both texts to a line's width; with a long common beginning, from shortly before the first
 * difference.
 */
function excerpts(before: string, after: string): [string, string] {
  let same = 0;
  while (same < before.length && before[same] === after[same]) same += 1;
  const from = same > valueWidth / 2 && before !== after ? same - 10 : 0;
  const excerpt = (text: string) => cut(from > 0 ? `…${text.slice(from)}` : text, valueWidth);
  return [excerpt(before), excerpt(after)];
}

function paint(cli: Cli, action: Action, text: string): string {
  const { green, yellow, red, dim } = cli.colors;
  const paints: Record<Action, (text: string) => string> = {
    create: green,
    update: yellow,
    delete: red,
    noop: dim,
    drift: dim,
  };
  return paints[action](text);
}

/** The plan, or the finished work, as JSON. */
export function planJson(
  plan: Plan,
  result: {
    file: string;
    isDryRun: boolean;
    isApplied: boolean;
    done: readonly Step[];
    failed: readonly Failed[];
  },
): string {
  const done = new Set(result.done.map(({ kind, id, action }) => `${kind} ${id} ${action}`));
  const document = {
    file: result.file,
    dry_run: result.isDryRun,
    applied: result.isApplied,
    summary: counts(plan.steps),
    done: counts(result.done),
    failed: result.failed.map(({ step, message }) => ({ kind: step.kind, id: step.id, message })),
    steps: plan.steps.map((step) => ({
      action: step.action,
      kind: step.kind,
      id: step.id,
      agent: step.agent,
      will_restart: step.willRestart,
      note: step.note,
      done: done.has(`${step.kind} ${step.id} ${step.action}`),
      fields: step.fields.map(({ field, before, after }) => ({
        field,
        before: before ?? null,
        after: after ?? null,
      })),
    })),
  };
  return JSON.stringify(document, null, 2);
}
