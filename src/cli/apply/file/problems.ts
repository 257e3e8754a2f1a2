import { exitCodes, Failure } from "../../failures.ts";
import { type KeyPath, placeKey } from "./places.ts";

/** A problem of the file. */
export type Problem = { path: KeyPath; message: string };

/** Maximum of listed problems; beyond the maximum the file is probably of another kind. */
const problemsShownMax = 50;

/**
 * The Failure for the problems of a file: a line for each, sorted by position. Nothing has been
 * changed before.
 */
export function fileFailure(
  file: string,
  problems: readonly Problem[],
  lineOf: (path: KeyPath) => number | undefined,
): Failure {
  const lines = problems
    .map((problem) => ({ ...problem, line: lineOf(problem.path) }))
    .sort((a, b) => (a.line ?? 0) - (b.line ?? 0))
    .map(({ path, line, message }) => {
      const place = line === undefined ? file : `${file}:${line}`;
      return path.length === 0 ? `${place}: ${message}` : `${place}: ${pathText(path)}: ${message}`;
    });
  const distinct = [...new Set(lines)];
  const hidden = distinct.length - problemsShownMax;
  const shown = [...distinct.slice(0, problemsShownMax), ...(hidden > 0 ? [`… and ${hidden} more`] : [])];
  return new Failure(
    exitCodes.usage,
    shown.length === 1 ? shown.join("") : `${distinct.length} problems in ${file}\n  ${shown.join("\n  ")}`,
    "nothing was changed",
  );
}

/** A path in readable form: agents.ada.platforms[0].config.token */
export function pathText(path: KeyPath): string {
  return path
    .map((part, index) => {
      if (typeof part === "number") return `[${part + 1}]`;
      const text = /^[A-Za-z0-9_-]+$/.test(part) ? part : JSON.stringify(part);
      return index === 0 ? text : `.${text}`;
    })
    .join("");
}

/** True if a path is at or below one of the places. */
export function isBelow(path: KeyPath, places: ReadonlySet<string>): boolean {
  return path.some((_, index) => places.has(placeKey(path.slice(0, index + 1))));
}
