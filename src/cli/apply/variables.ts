import type { Environment } from "../cli.ts";
import { type KeyPath, placeKey } from "./places.ts";

/** A reference that has no value: the variable is not set, or set to nothing, or has no name. */
export type MissingVariable = { path: KeyPath; name: string; message: string };

/** A reference within a longer text, which is kept as it stands. */
export type LiteralReference = { path: KeyPath; reference: string };

export type Substituted = {
  value: unknown;
  missing: MissingVariable[];
  /** References that were not replaced, since text stands around them. */
  literal: LiteralReference[];
  /** By place: what the file says where a variable's value went, to be shown in place of the value. */
  templates: Map<string, string>;
};

/** Where the values of variables go. */
export type SubstitutionRules = {
  /** Places that are taken as they are, `$$` included. */
  isLiteral?(path: KeyPath): boolean;
  /** Texts in which references are replaced wherever they stand. */
  isTemplate?(path: KeyPath): boolean;
};

/** Stands where a variable has no value, so that the rest of the file can be looked at. Nothing is applied with it. */
const placeholder = "unset";

const variableName = "[A-Za-z_][A-Za-z0-9_]*";
const anyReference = new RegExp(`\\$(?:\\$|\\{(${variableName})?\\}|(${variableName}))`, "g");
const wholeReference = new RegExp(`^\\$(?:\\{(${variableName})?\\}|(${variableName}))$`);

/**
 * The tree in which every string that is one reference, `${NAME}` or `$NAME`, has the variable's value, and `$$` anywhere
 * is a dollar sign. A reference with text around it stays as it stands, but for templates, in which each one is
 * replaced. Values are taken as they are: a `$` in a value is no reference again, so nothing goes in a circle. Keys are
 * not touched.
 */
export function substitute(tree: unknown, env: Environment, rules: SubstitutionRules = {}): Substituted {
  const missing: MissingVariable[] = [];
  const literal: LiteralReference[] = [];
  const templates = new Map<string, string>();

  function visit(value: unknown, path: KeyPath): unknown {
    if (rules.isLiteral?.(path)) return value;
    if (typeof value === "string") return text(value, path);
    if (Array.isArray(value)) return value.map((item, index) => visit(item, [...path, index]));
    if (!isTable(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, visit(item, [...path, key])]));
  }

  function text(value: string, path: KeyPath): string {
    const isReplaced = wholeReference.test(value) || rules.isTemplate?.(path) === true;
    return value.replace(
      anyReference,
      (whole: string, braced: string | undefined, bare: string | undefined) => {
        if (whole === "$$") return "$";
        if (isReplaced) {
          templates.set(placeKey(path), value);
          return lookUp(braced ?? bare ?? "", path);
        }
        literal.push({ path, reference: whole });
        return whole;
      },
    );
  }

  function lookUp(name: string, path: KeyPath): string {
    const found = Object.hasOwn(env, name) ? env[name] : undefined;
    if (name === "") missing.push({ path, name, message: "a reference without a name; $$ is a dollar sign" });
    else if (found === undefined) missing.push({ path, name, message: `$${name} is not set` });
    else if (found === "") missing.push({ path, name, message: `$${name} is set to nothing` });
    return found || placeholder;
  }

  return { value: visit(tree, []), missing, literal, templates };
}

/** The text in which nothing is a reference: what `substitute` makes of it is the text itself. */
export function escaped(text: string): string {
  return text.replace(/\$(?=[A-Za-z_{$])/g, "$$$$");
}

/** A table of TOML; not a list, not a date. */
export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}
