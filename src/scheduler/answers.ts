/** Checks an agent's answer against its watcher's schema. Pure. */
import { type Schema, Validator } from "@cfworker/json-schema";

/** Maximum problems named; a wrong answer may have thousands. */
const problemsShownMax = 5;
const problemCharactersMax = 300;

/**
 * The problems of an answer under a JSON Schema (draft 2020-12), in words: "/severity: must be a
 * number"; undefined for a matching answer. An unusable schema counts as no schema: new ones are
 * refused when set, older ones may exist.
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
  // The first errors concern the outer schemas ("does not match properties"); the innermost errors
  // name the cause.
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
