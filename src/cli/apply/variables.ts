import type { Environment } from "../cli.ts";
import { type KeyPath, placeKey } from "./places.ts";

/** A reference that has no value: the variable is not set, or set to nothing, or has no name. */
export type MissingVariable = { path: KeyPath; name: string; message: string };

export type Substituted = {
  value: unknown;
  missing: MissingVariable[];
  /** By place: what the file says where a variable's value went, to be shown in place of the value. */
  templates: Map<string, string>;
};

/** Stands where a variable has no value, so that the rest of the file can be looked at. Nothing is applied with it. */
const placeholder = "unset";

const reference = /\$(?:\$|\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))/g;

/**
 * The tree with `$NAME` and `${NAME}` in its strings replaced from the environment, and `$$` by a dollar sign. A dollar
 * sign before anything else stands for itself. Values are taken as they are: a `$` in one is no reference again, so
 * nothing can go in a circle. Keys are not touched, nor is what stands at a literal place.
 */
export function substitute(
  tree: unknown,
  env: Environment,
  options: { isLiteral?(path: KeyPath): boolean } = {},
): Substituted {
  const missing: MissingVariable[] = [];
  const templates = new Map<string, string>();
  const visit = (value: unknown, path: KeyPath): unknown => {
    if (options.isLiteral?.(path)) return value;
    if (typeof value === "string") return text(value, path);
    if (Array.isArray(value)) return value.map((item, index) => visit(item, [...path, index]));
    if (!isTable(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, visit(item, [...path, key])]));
  };
  const text = (value: string, path: KeyPath): string =>
    value.replace(reference, (whole: string, braced: string | undefined, bare: string | undefined) => {
      if (whole === "$$") return "$";
      const name = braced ?? bare ?? "";
      if (braced !== undefined && braced !== "" && !/^[A-Za-z_][A-Za-z0-9_]*$/.test(braced)) return whole;
      templates.set(placeKey(path), value);
      const found = Object.hasOwn(env, name) ? env[name] : undefined;
      if (name === "")
        missing.push({ path, name, message: "a reference without a name; $$ is a dollar sign" });
      else if (found === undefined) missing.push({ path, name, message: `$${name} is not set` });
      else if (found === "") missing.push({ path, name, message: `$${name} is set to nothing` });
      return found || placeholder;
    });
  return { value: visit(tree, []), missing, templates };
}

/** The text in which nothing is a reference: what `substitute` makes of it is the text itself. */
export function escaped(text: string): string {
  return text.replace(/\$(?=[A-Za-z_{$])/g, "$$$$");
}

/** A table of TOML; not a list, not a date. */
export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}
