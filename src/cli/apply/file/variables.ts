import type { Environment } from "../../cli.ts";
import { type KeyPath, placeKey } from "./places.ts";

/** A reference without a value: the variable is unset or empty, or has no name. */
export type MissingVariable = { path: KeyPath; name: string; message: string };

/** A reference within a longer text, left unchanged. */
export type LiteralReference = { path: KeyPath; reference: string };

export type Substituted = {
  value: unknown;
  missing: MissingVariable[];
  /** References left unchanged because of surrounding text. */
  literal: LiteralReference[];
  /** By place: the file's text at places with a variable's value, for display. */
  templates: Map<string, string>;
};

/** Rules for replacing references. */
export type SubstitutionRules = {
  /** True for values taken literally, including `$$`. */
  isLiteral?(path: KeyPath): boolean;
  /** True for texts with replacement of every reference. */
  isTemplate?(path: KeyPath): boolean;
};

/**
 * Stands in for a missing value, so the rest of the file can be checked. A file with a missing
 * value is never applied.
 */
const placeholder = "unset";

const variableName = "[A-Za-z_][A-Za-z0-9_]*";
const anyReference = new RegExp(`\\$(?:\\$|\\{(${variableName})?\\}|(${variableName}))`, "g");
const wholeReference = new RegExp(`^\\$(?:\\{(${variableName})?\\}|(${variableName}))$`);

/**
 * Replaces references in a tree. A string of exactly one reference, `${NAME}` or `$NAME`, gets the
 * variable's value; `$$` anywhere is a dollar sign. A reference with surrounding text stays
 * unchanged, except in templates, where every reference is replaced. Values are inserted literally:
 * a `$` in a value is no reference, so there are no cycles. Keys are not changed.
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

/** Escapes a text, so `substitute` returns the original text. */
export function escaped(text: string): string {
  return text.replace(/\$(?=[A-Za-z_{$])/g, "$$$$");
}

/** A table of TOML; not a list, not a date. */
export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}
