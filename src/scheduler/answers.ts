/** Whether the answer of an agent is what its watcher asked for. Pure. */
import { type Schema, Validator } from "@cfworker/json-schema";

/** Problems that are named; a wrong answer has thousands of them. */
const problemsShownMax = 5;
const problemCharactersMax = 300;

/**
 * What is wrong with an answer under a JSON Schema (draft 2020-12), in words: "/severity: must be a number"; undefined: the
 * answer matches. A schema that cannot be used counts as no schema: it was refused when it was set, or is older than that rule.
 */
export function problemsOf(answer: unknown, schema: unknown): string | undefined {
  let errors: { instanceLocation: string; error: string }[];
  try {
    const found = new Validator(schema as Schema, "2020-12", false).validate(answer);
    if (found.valid) return undefined;
    errors = found.errors;
  } catch {
    return undefined;
  }
  // The first errors are of the outer schemas ("does not match properties"): the innermost say what is wrong.
  const inner = errors.filter(
    ({ instanceLocation }) =>
      !errors.some(
        (other) =>
          other.instanceLocation !== instanceLocation &&
          other.instanceLocation.startsWith(`${instanceLocation}/`),
      ),
  );
  const shown = inner.slice(0, problemsShownMax).map(({ instanceLocation, error }) => {
    const place = instanceLocation.replace(/^#/, "") || "/";
    return `${place}: ${error}`.slice(0, problemCharactersMax);
  });
  const rest = inner.length - shown.length;
  return [...shown, ...(rest > 0 ? [`${rest} more`] : [])].join("; ");
}
