import { refuse } from "../../../errors.ts";

/**
 * A message field that the rules of the API require. Refuses with `invalid_argument` a request
 * without the field, in the words of the rule.
 */
export function given<Value>(value: Value | undefined, field: string): Value {
  return value ?? refuse("invalid_argument", `${field}: value is required`, { field });
}
