import { parse, TomlError } from "smol-toml";
import type { z } from "zod";
import type { Environment } from "../../cli.ts";
import { exitCodes, Failure } from "../../failures.ts";
import { nearest } from "./near.ts";
import { findPlaces, type KeyPath, placeKey } from "./places.ts";
import { fileFailure, isBelow, type Problem } from "./problems.ts";
import { readInput } from "./read-input.ts";
import { type FileTree, fileShape, knownKeys } from "./shape.ts";
import { isTable, type LiteralReference, substitute } from "./variables.ts";

/** A parsed file of the right shape, with the variables' values inserted. */
export type ParsedFile = {
  file: string;
  tree: FileTree;
  /** By place: the file's text at places with a variable's value. */
  templates: ReadonlyMap<string, string>;
  /**
   * Variables without a value: the file cannot be applied. Other problems are still searched and
   * reported together.
   */
  missing: readonly Problem[];
  /** References within longer texts, left unchanged. */
  literal: readonly LiteralReference[];
  /** Values of the wrong shape; left out of the tree, so the rest can be checked too. */
  flaws: readonly Problem[];
  /** The Failure for further problems. */
  fail(problems: readonly Problem[]): Failure;
};

/** Maximum nesting of tables: the file's shape has five levels, platform settings may have more. */
const depthMax = 100;

/** Reads a file; "-" is standard input. Throws a Failure with the line of every problem. */
export function readFile(file: string, env: Environment): ParsedFile {
  return parseFile(readText(file), { file: file === "-" ? "standard input" : file, env });
}

function readText(file: string): string {
  let bytes: Buffer;
  try {
    bytes = readInput(file);
  } catch (error) {
    throw new Failure(
      exitCodes.usage,
      (error as Error).message,
      "name it with -f; `pinion pull` writes one from the org, pinion.example.toml shows what there is",
    );
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Failure(exitCodes.usage, `${file} is not UTF-8`);
  }
}

export function parseFile(text: string, options: { file: string; env: Environment }): ParsedFile {
  const { file } = options;
  const raw = parseToml(text, file);
  let places: ReturnType<typeof findPlaces> | undefined;
  const fail = (problems: readonly Problem[]) => {
    places ??= findPlaces(text);
    return fileFailure(file, problems, places);
  };
  const odd = oddValues(raw, []);
  if (odd.length > 0) throw fail(odd);
  const { value, missing, literal, templates } = substitute(raw, options.env, {
    isLiteral: (path) => isLiteral(path, raw),
    isTemplate: (path) => isPrompt(path),
  });
  const parsed = fileShape.safeParse(value);
  // A value missing because of a variable is not reported a second time.
  const gaps = new Set(missing.map(({ path }) => placeKey(path)));
  const issues = parsed.error?.issues ?? [];
  const flaws = issues
    .flatMap((issue) => problemsOf(issue, value).map((problem) => ({ ...problem, code: issue.code })))
    .filter(({ path, code }) => code === "unrecognized_keys" || !isBelow(path, gaps))
    .map(({ path, message }) => ({ path, message }));
  const tree = parsed.success ? parsed.data : restOf(value, flaws);
  return { file, tree, templates, missing, literal, flaws, fail };
}

/** The usable rest of a tree with flaws, so other problems are reported together with the flaws. */
function restOf(value: unknown, flaws: readonly Problem[]): FileTree {
  const rest = structuredClone(value);
  let paths: KeyPath[] = flaws.map(({ path }) => path);
  for (let round = 0; paths.length > 0 && round < restRoundsMax; round++) {
    for (const path of paths) mend(rest, path);
    const parsed = fileShape.safeParse(rest);
    if (parsed.success) return parsed.data;
    paths = parsed.error.issues.flatMap((issue) => problemsOf(issue, rest).map(({ path }) => path));
  }
  return {};
}

/**
 * Maximum of repair rounds. A flaw leads to at most two more: a required key must be filled, and a
 * value in place of a table is removed whole.
 */
const restRoundsMax = 4;

/** Stands in for a missing value, so the rest of its table can be checked. */
const filled = "missing";

/** Removes a wrong value from the tree, or fills a missing value. */
function mend(tree: unknown, path: KeyPath): void {
  const key = path.at(-1);
  const around = valueAt(tree, path.slice(0, -1));
  if (key === undefined) return;
  if (!isTable(around)) {
    // Removing a single item would shift the other items, so the whole list is removed.
    mend(tree, path.slice(0, -1));
  } else if (around[String(key)] === filled) {
    // A required key that takes few values: the table is removed whole.
    mend(tree, path.slice(0, -1));
  } else if (Object.hasOwn(around, String(key))) delete around[String(key)];
  else around[String(key)] = filled;
}

function parseToml(text: string, file: string): unknown {
  try {
    return parse(text, { unsafeKeyBehaviour: "throw", maxDepth: depthMax });
  } catch (error) {
    if (!(error instanceof TomlError)) {
      throw new Failure(exitCodes.usage, `${file}: ${(error as Error).message}`, "nothing was changed");
    }
    const [first = "it is not TOML"] = error.message.split("\n");
    throw new Failure(
      exitCodes.usage,
      `${file}:${error.line}: ${first}\n${error.codeblock.trimEnd()}`,
      "nothing was changed",
    );
  }
}

/**
 * JSON schemas have many "$ref" keys, and a prompt may mention $GITHUB_TOKEN without its value,
 * which would be stored and shown. So a prompt has references only if its watcher sets
 * `substitute`.
 */
function isLiteral(path: KeyPath, raw: unknown): boolean {
  if (path.length === 5 && path[2] === "watchers" && path[4] === "extraction_schema") return true;
  return isPrompt(path) && valueAt(raw, [...path.slice(0, 4), "substitute"]) !== true;
}

function isPrompt(path: KeyPath): boolean {
  return path.length === 5 && path[2] === "watchers" && path[4] === "prompt";
}

function valueAt(value: unknown, path: KeyPath): unknown {
  return path.reduce<unknown>(
    (at, key) => (typeof at === "object" && at !== null ? (at as Record<string, unknown>)[key] : undefined),
    value,
  );
}

/** Type of a TOML value in words, "a number". */
function kindOf(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a table";
  return typeof value === "boolean" ? "true or false" : `a ${typeof value}`;
}

const expectedKinds: Record<string, string> = {
  string: "a string",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "a table",
  record: "a table",
};

/** Names a wrong type; for a number in place of a duration an example follows. */
function wrongType(expected: string, value: unknown, path: KeyPath): string {
  const example =
    lengthKeys.has(String(path.at(-1))) && typeof value === "number" ? `, such as "${value}s"` : "";
  return `must be ${expectedKinds[expected] ?? expected}${example}, and is ${kindOf(value)}`;
}

const lengthKeys = new Set([
  ...["timeout", "jitter", "catchup_window", "min_cooldown", "start_deadline", "wait_max", "every"],
]);

/** Values of TOML without a counterpart in the API. */
function oddValues(value: unknown, path: KeyPath): Problem[] {
  if (Array.isArray(value)) return value.flatMap((item, index) => oddValues(item, [...path, index]));
  if (isTable(value)) return Object.entries(value).flatMap(([key, item]) => oddValues(item, [...path, key]));
  if (value instanceof Date) return [{ path, message: "a date is written as a string here" }];
  if (typeof value === "number" && !Number.isFinite(value)) return [{ path, message: "is no finite number" }];
  if (typeof value === "string" && value.includes("\0")) return [{ path, message: "holds a NUL character" }];
  return [];
}

function problemsOf(issue: z.core.$ZodIssue, tree: unknown): Problem[] {
  const path = issue.path.map((part) => (typeof part === "symbol" ? String(part) : part));
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ path: [...path, key], message: unknownKey(key, path) }));
  }
  if (issue.code === "invalid_key") return [{ path, message: issue.issues[0]?.message ?? issue.message }];
  if (issue.code === "invalid_union") {
    // Of a union's alternatives, the closest match is reported.
    const closest = issue.errors.find((issues) =>
      issues.some((inner) => inner.path.length > 0 || inner.code === "unrecognized_keys"),
    );
    if (closest)
      return closest.flatMap((inner) => problemsOf({ ...inner, path: [...issue.path, ...inner.path] }, tree));
  }
  if (issue.code === "invalid_type") {
    const value = valueAt(tree, path);
    return [{ path, message: value === undefined ? "is missing" : wrongType(issue.expected, value, path) }];
  }
  return [{ path, message: issue.message.replace(/^Invalid input: /, "") }];
}

function unknownKey(key: string, path: KeyPath): string {
  if (key === "connections" && (path.length === 0 || path.length === 2)) {
    const agent = typeof path[1] === "string" ? path[1] : "<id>";
    return `is the old name of "platforms"; write [[agents.${agent}.platforms]]`;
  }
  const near = nearest(key, knownKeys(path));
  return near === undefined ? "unknown key" : `unknown key; did you mean "${near}"?`;
}
