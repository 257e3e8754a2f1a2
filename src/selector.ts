/** Selectors of watchers: conditions in CEL over what a device is. */
import { compile } from "./cel.ts";
import type { Facts } from "./labels.ts";

const variables = ["os", "arch", "labels"] as const;

/** One device with labels and one without, on which a selector has to have a truth value. */
const examples: readonly Facts[] = [
  { os: "macos", arch: "arm64", labels: [] },
  { os: "linux", arch: "x64", labels: ["gpu", "has:codex", "workspace:web"] },
];

/** Why a text is no selector, as the end of a sentence about it; undefined: it is one. */
export function selectorProblem(text: string): string | undefined {
  const compiled = compile(text, { variables, examples });
  return "problem" in compiled ? compiled.problem : undefined;
}

/** Whether a device matches. A selector that fails on a device's facts does not match it. */
export function matches(selector: string, facts: Facts): boolean {
  const compiled = compile(selector, { variables, examples });
  if ("problem" in compiled) return false;
  const verdict = compiled.test(facts);
  return "isTrue" in verdict && verdict.isTrue;
}
