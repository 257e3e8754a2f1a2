import type { z } from "zod";
import { editDistance } from "../edit-distance.ts";

/** A single problem of the configuration. */
export interface ConfigProblem {
  /** Counted from 1; undefined if not found. */
  line: number | undefined;
  /** For example "executors.claude-code.timeout". */
  key: string;
  message: string;
}

/** An invalid configuration. `message` has a line for each problem. */
export class ConfigError extends Error {
  override name = "ConfigError";
  readonly problems: ConfigProblem[];

  constructor(file: string, problems: ConfigProblem[]) {
    const lines = problems.map(({ line, key, message }) => {
      const place = line === undefined ? file : `${file}:${line}`;
      return `${place}: ${key === "" ? "" : `${key}: `}${message}`;
    });
    super(lines.join("\n"));
    this.problems = problems;
  }
}

/**
 * The problems of a schema's issue, with lines of `text`. `knownKeys` gives the keys permitted at a
 * path, for a suggestion.
 */
export function problemsOf(
  issue: z.core.$ZodIssue,
  text: string,
  knownKeys: (path: string[]) => string[],
): ConfigProblem[] {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((name) => {
      const path = [...issue.path, name].map(String);
      const near = nearest(name, knownKeys(issue.path.map(String)));
      return {
        line: lineOf(text, path),
        key: path.join("."),
        message: `unknown key${near === undefined ? "" : `; did you mean "${near}"?`}`,
      };
    });
  }
  if (issue.code === "invalid_key") {
    const path = issue.path.map(String);
    const [first] = issue.issues;
    return [{ line: lineOf(text, path), key: path.join("."), message: first?.message ?? issue.message }];
  }
  // List indexes add nothing to the key.
  const path = issue.path.filter((part) => typeof part !== "number").map(String);
  return [{ line: lineOf(text, path), key: path.join("."), message: issue.message }];
}

/** Maximum edit distance of a suggestion: typing errors change, drop or add one or two letters. */
const TYPO_DISTANCE_MAX = 2;

function nearest(name: string, known: string[]): string | undefined {
  const normal = name.replaceAll("-", "_");
  return known
    .map((candidate) => ({ candidate, distance: editDistance(normal, candidate) }))
    .filter(({ distance }) => distance <= TYPO_DISTANCE_MAX)
    .sort((a, b) => a.distance - b.distance)[0]?.candidate;
}

/**
 * The line of a key, or of the nearest enclosing key, because the TOML parser keeps no positions.
 * Reads table headers and keys at the beginnings of lines, the usual layout; keys of inline tables
 * give the line of the table.
 */
export function lineOf(text: string, path: string[]): number | undefined {
  let table: string[] = [];
  let best: { line: number; depth: number } | undefined;
  for (const [index, line] of text.split("\n").entries()) {
    const header = /^\s*\[\s*([^[\]]+?)\s*\]\s*(#.*)?$/.exec(line);
    const key =
      /^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=/.exec(
        line,
      );
    let here: string[] | undefined;
    if (header?.[1] !== undefined) {
      table = splitKey(header[1]);
      here = table;
    } else if (key?.[1] !== undefined) {
      here = [...table, ...splitKey(key[1])];
    }
    if (here === undefined) continue;
    const depth = Math.min(here.length, path.length);
    if (!here.slice(0, depth).every((part, place) => part === path[place])) continue;
    if (best === undefined || depth > best.depth) best = { line: index + 1, depth };
  }
  return best?.line;
}

function splitKey(key: string): string[] {
  return [...key.matchAll(/"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+)/g)].map(([, a, b, c]) => a ?? b ?? c ?? "");
}
