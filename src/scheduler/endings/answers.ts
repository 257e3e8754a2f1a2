/**
 * Checks an agent's answer against its watcher's schema. People and agents wrote both: a pattern
 * may backtrack for years, and so may references that fork. So a check has a limit of time.
 */
import { type OutputUnit, type Schema, Validator } from "@cfworker/json-schema";
import { BoundedWork } from "../../time/bounded.ts";

/** Maximum problems named; a wrong answer may have thousands. */
const problemsShownMax = 5;
const problemCharactersMax = 300;
/** Milliseconds of a check; an ordinary check takes less than 1 ms. */
const checkMsMax = 50;
/** A check of a larger answer may take longer, in proportion to the size. */
const largeAnswerCharacters = 16_384;
/** Checks by schema. On a busy machine each try has twice the time of the previous try. */
const checks = new BoundedWork({
  triesMs: [checkMsMax, 2 * checkMsMax, 4 * checkMsMax, 8 * checkMsMax, 16 * checkMsMax],
  slowMax: 1_000,
});
const unchecked = {
  late: `the check against the schema takes more than ${checkMsMax} ms; simplify its patterns and references`,
  endless: "the check against the schema does not end; simplify its references",
};

/**
 * The first errors concern the outer schemas ("does not match properties"); the innermost errors
 * name the cause.
 */
function innermost(errors: readonly OutputUnit[]): OutputUnit[] {
  const outer = new Set<string>();
  for (const { instanceLocation } of errors) {
    let end = instanceLocation.lastIndexOf("/");
    while (end > 0) {
      const location = instanceLocation.slice(0, end);
      // The outer locations of the error are known, too.
      if (outer.has(location)) break;
      outer.add(location);
      end = location.lastIndexOf("/");
    }
  }
  return errors.filter(({ instanceLocation }) => !outer.has(instanceLocation));
}

/**
 * The innermost errors of an answer; empty for a matching answer; undefined for an unusable schema.
 * For a large answer only the first error is searched. The time for a large answer, and the time of
 * other processes on a busy machine, do not make a schema unusable.
 */
function validate(answer: unknown, schema: unknown) {
  const text = JSON.stringify(schema);
  if (checks.isSlow(text)) return "late";
  try {
    const isLarge = JSON.stringify(answer).length > largeAnswerCharacters;
    const found = checks.try(() => {
      const { errors } = new Validator(schema as Schema, "2020-12", isLarge).validate(answer);
      return innermost(errors);
    });
    if (typeof found === "object") return found.value;
    if (found === "late" && !isLarge) checks.noteSlow(text);
    return "late";
  } catch (error) {
    // The schema refers to itself, or the errors are more than a call may have arguments.
    return error instanceof RangeError ? "endless" : undefined;
  }
}

/**
 * The problems of an answer under a JSON Schema (draft 2020-12), in words: "/severity: must be a
 * number"; undefined for a matching answer. An unusable schema counts as no schema: a new unusable
 * schema is refused when a person sets the schema, but old ones may exist.
 */
export function problemsOf(answer: unknown, schema: unknown): string | undefined {
  const found = validate(answer, schema);
  if (found === undefined || typeof found === "string") return found && unchecked[found];
  if (found.length === 0) return undefined;
  const shown = found.slice(0, problemsShownMax).map(({ instanceLocation, error }) => {
    const place = instanceLocation.replace(/^#/, "") || "/";
    return `${place}: ${error}`.slice(0, problemCharactersMax);
  });
  const rest = found.length - shown.length;
  return [...shown, ...(rest > 0 ? [`${rest} more`] : [])].join("; ");
}
