/**
 * Regular expressions in CEL (`matches`). RE2 takes time in proportion to the length of the text,
 * but also to the size of the pattern's program, and the program of a short pattern may be large:
 * `(?:\pL|1\pN){1000}`. The sizes are bounded before a pattern is compiled, and an evaluation has a
 * budget for all of its patterns.
 */
import { RE2JS } from "@bufbuild/re2";
import { ExpressionError } from "./parsed.ts";

/** Maximum parts of a pattern, with each repetition written out; a part takes about 5 µs. */
const partsMax = 4_000;
/** Work for compiling a part, in units of about 30 ns: a part that meets a character. */
const unitsPerPart = 150;

type Meter = { left: number; max: number; compiled: Map<string, RE2JS> };

let meter: Meter | undefined;

/** Runs an evaluation whose patterns may take `unitsMax` units of work together. */
export function withPatterns<T>(unitsMax: number, evaluate: () => T): T {
  meter = { left: unitsMax, max: unitsMax, compiled: new Map() };
  try {
    return evaluate();
  } finally {
    meter = undefined;
  }
}

/** The engine of `matches`, for the environment of CEL. */
export const patternEngine = {
  compile(pattern: string) {
    const parts = requireSmall(pattern);
    let compiled = meter?.compiled.get(pattern);
    if (!compiled) {
      spend(parts * unitsPerPart);
      compiled = RE2JS.compile(pattern);
      meter?.compiled.set(pattern, compiled);
    }
    const { test } = compiled;
    return {
      test(text: string): boolean {
        spend(parts * text.length);
        return test.call(compiled, text);
      },
    };
  },
};

/** Throws an ExpressionError for a pattern that RE2 cannot read, or that is too large. */
export function checkPattern(pattern: string): void {
  requireSmall(pattern);
  try {
    RE2JS.compile(pattern);
  } catch (error) {
    throw new ExpressionError(
      `the pattern "${pattern.slice(0, 100)}" is none of RE2: ${(error as Error).message}`,
    );
  }
}

function requireSmall(pattern: string): number {
  const parts = pattern.length > partsMax ? pattern.length : partsOfPattern(pattern);
  if (parts <= partsMax) return parts;
  throw new ExpressionError(
    `a pattern of "matches" has ${parts} parts, each repetition {n} written out, and may have ${partsMax}`,
  );
}

function spend(units: number): void {
  if (!meter) return;
  meter.left -= units;
  if (meter.left < 0) {
    throw new ExpressionError(
      'its patterns ("matches") would take too long over these values; use shorter ones, fewer repetitions {n}, or startsWith, endsWith and contains',
    );
  }
}

type Group = { size: number; last: number };

/**
 * The parts of a pattern with its counted repetitions written out: at least the size of its program
 * in proportion, and never found by writing them out.
 */
export function partsOfPattern(pattern: string): number {
  const open: Group[] = [{ size: 0, last: 0 }];
  const tokens =
    /\\Q([\s\S]*?)(?:\\E|$)|\\[pPx]\{[^}]*\}|\\[\s\S]|\[\^?\]?(?:\[:[^\]]*:\]|\\[\s\S]|[^\]\\])*\]|\{(\d+)(,?)(\d*)\}|[\s\S]/g;
  for (const [token, quoted, least, comma, most] of pattern.matchAll(tokens)) {
    const group = open.at(-1) as Group;
    if (token === "(") open.push({ size: 1, last: 0 });
    else if (token === ")" && open.length > 1) {
      open.pop();
      add(open.at(-1) as Group, group.size);
    } else if (least !== undefined) {
      const times = Math.max(1, Number(most || least) + (comma && !most ? 1 : 0), Number(least));
      group.size += group.last * (times - 1);
      group.last *= times;
    } else if (quoted === undefined) add(group, 1);
    else {
      group.size += quoted.length;
      group.last = 1;
    }
  }
  return open.reduce((sum, { size }) => sum + size, 0);
}

function add(group: Group, size: number): void {
  group.size += size;
  group.last = size;
}
