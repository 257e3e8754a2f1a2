import { Cron } from "croner";
import { Mistake } from "./mistake.ts";

/**
 * Parses cron expressions written by people into croner's input: lists of numbers, and the marks of
 * days (L, W, #). Names, ranges past the end (`FRI-MON`, `22-2`), `0/15`, `?` and hashed fields
 * (`H`) are resolved here, and every mistake is explained in the terms of the written fields and
 * values.
 */

export type CronText = {
  /** Six fields for croner. */
  expression: string;
  /** The hour field is every hour: no hour is named. */
  isEveryHour: boolean;
  /** The minute field is a wildcard or a step: no minute is named. */
  isMinuteOpen: boolean;
  /** The first field is of seconds. */
  hasSeconds: boolean;
  /** A field is hashed, so the slots depend on the watcher. */
  isHashed: boolean;
};

type Field = {
  name: string;
  min: number;
  max: number;
  /** Maximum value of H; every month has a 28th. */
  hashMax?: number;
  names?: readonly string[];
  /** Value of the first name. */
  namesFrom?: number;
};

const fields: readonly Field[] = [
  { name: "second", min: 0, max: 59 },
  { name: "minute", min: 0, max: 59 },
  { name: "hour", min: 0, max: 23 },
  { name: "day", min: 1, max: 31, hashMax: 28 },
  {
    name: "month",
    min: 1,
    max: 12,
    names: ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    namesFrom: 1,
  },
  {
    name: "weekday",
    min: 0,
    max: 6,
    names: ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    namesFrom: 0,
  },
];
const [, , hourField, dayField, , weekdayField] = fields as [Field, Field, Field, Field, Field, Field];

const nicknames: Record<string, string> = {
  "@yearly": "0 0 1 1 *",
  "@annually": "0 0 1 1 *",
  "@monthly": "0 0 1 * *",
  "@weekly": "0 0 * * 0",
  "@daily": "0 0 * * *",
  "@midnight": "0 0 * * *",
  "@hourly": "0 * * * *",
};

/**
 * Parses an expression. `seed`: the input of H, the watcher's id. Throws a {@link Mistake} for an
 * invalid expression.
 */
export function parseCron(text: string, seed: string): CronText {
  const trimmed = text.trim();
  const expanded = trimmed.startsWith("@") ? ofNickname(trimmed) : trimmed;
  const parts = expanded === "" ? [] : expanded.split(/\s+/);
  if (parts.length < 5 || parts.length > 6) throw new Mistake(explainCount(parts));
  const hasSeconds = parts.length === 6;
  if (!hasSeconds) parts.unshift("0");
  const read = fields.map((field, index) => readField(field, parts[index] ?? "", seed));
  const [, minutes, hours] = read as [ReadField, ReadField, ReadField];
  return {
    expression: read.map(({ croner }) => croner).join(" "),
    isEveryHour: hours.values === "all",
    isMinuteOpen: minutes.values === "all" || /[*/]/.test(parts[1] ?? ""),
    hasSeconds,
    isHashed: parts.some((part) => part.split(",").some((item) => /^h(\(|\/|$)/i.test(item))),
  };
}

function ofNickname(text: string): string {
  const known = Object.hasOwn(nicknames, text.toLowerCase()) ? nicknames[text.toLowerCase()] : undefined;
  if (known) return known;
  const [name = ""] = text.split(/\s/);
  if (name.toLowerCase() === "@reboot") {
    throw new Mistake("@reboot is not a time; a watcher fires by the clock, on a trigger or from a hook");
  }
  throw new Mistake(
    `${quote(name)} is not known; there are @hourly, @daily, @weekly, @monthly, @yearly, and @every with a length, such as "@every 90m"`,
  );
}

function explainCount(parts: readonly string[]): string {
  const wanted = "five fields (minute hour day month weekday), or six with seconds first";
  const [first] = parts;
  if (first === undefined) return `it is empty; a cron expression has ${wanted}`;
  if (parts.length === 1) return `${quote(first)} is one field; a cron expression has ${wanted}`;
  const year = parts.length === 7 ? "; a field of years is not taken" : "";
  return `it has ${parts.length} fields; a cron expression has ${wanted}${year}`;
}

type ReadField = { croner: string; values: "all" | "some" };

function readField(field: Field, text: string, seed: string): ReadField {
  if (text === "*" || (text === "?" && (field === dayField || field === weekdayField))) {
    return { croner: "*", values: "all" };
  }
  if (text === "?") {
    throw new Mistake(`${the(field)} is "?", which only the day and the weekday may be; write "*"`);
  }
  // croner's sign for "the day and the weekday, both".
  const isBoth = field === weekdayField && text.startsWith("+");
  const numbers = new Set<number>();
  const marks: string[] = [];
  for (const item of (isBoth ? text.slice(1) : text).split(",")) {
    if (item === "") throw new Mistake(`${the(field)} ${quote(text)} has an empty item in its list`);
    const mark = markOf(field, item);
    if (mark !== undefined) marks.push(mark);
    else for (const value of valuesOf(field, item, seed)) numbers.add(value);
  }
  const all = numbers.size === field.max - field.min + 1;
  // A step of 1 restricts nothing; a range of all days restricts, as in every cron, because it is
  // written on purpose.
  if (all && !isBoth && (/\*/.test(text) || (field !== dayField && field !== weekdayField))) {
    return { croner: "*", values: "all" };
  }
  const items = [...[...numbers].sort((a, b) => a - b).map(String), ...marks];
  return { croner: `${isBoth ? "+" : ""}${items.join(",")}`, values: all ? "all" : "some" };
}

/** L, LW, 15W; 5L, MON#2. Undefined for any other text. */
function markOf(field: Field, item: string): string | undefined {
  const upper = item.toUpperCase();
  if (field === dayField) {
    if (upper === "L") return upper;
    if (upper === "LW" || upper === "WL") return "LW";
    const [, nearest] = /^(\d+)W$/.exec(upper) ?? [];
    if (nearest) return `${numberOf(field, nearest)}W`;
    if (/^L-\d+$/.test(upper)) {
      throw new Mistake(
        `the day ${quote(item)} counts back from the end of the month, which is not supported`,
      );
    }
  }
  if (field === weekdayField) {
    if (upper === "L")
      throw new Mistake('the weekday "L" is ambiguous; write SAT, or 5L for the last Friday');
    const [, last] = /^([A-Z]+|\d+)L$/.exec(upper) ?? [];
    if (last) return `${numberOf(field, last)}L`;
    const [, day, nth = ""] = /^([^#]+)#(.*)$/.exec(upper) ?? [];
    if (day) {
      if (nth === "L") return `${numberOf(field, day)}L`;
      if (!/^[1-5]$/.test(nth)) {
        throw new Mistake(
          `the weekday ${quote(item)} asks for number ${nth || "nothing"} in its month; there are #1 to #5`,
        );
      }
      return `${numberOf(field, day)}#${nth}`;
    }
  }
  return undefined;
}

/** The numbers of `*`, `5`, `1-5`, any of them with a step, and of H. */
function valuesOf(field: Field, item: string, seed: string): number[] {
  const [base = "", stepText, ...rest] = item.split("/");
  if (rest.length > 0) throw new Mistake(`${the(field)} ${quote(item)} has more than one step`);
  const step = stepText === undefined ? undefined : stepOf(field, item, stepText);
  if (/^h(\(|$)/i.test(base)) return hashed(field, item, base, step, seed);
  if (base === "" && step !== undefined) return range(field, field.min, field.max, step);
  if (base === "*") return range(field, field.min, field.max, step ?? 1);
  const ends = base.split("-");
  if (ends.length > 2) throw new Mistake(`${the(field)} ${quote(item)} is no range`);
  const [from = "", to] = ends;
  const first = numberOf(field, from);
  if (to === undefined) return step === undefined ? [first] : range(field, first, field.max, step);
  // Sunday is 0 and 7: "0-7" is the whole week, "5-7" ends with Sunday.
  const isWholeWeek = field === weekdayField && from === "0" && to === "7";
  return range(field, first, isWholeWeek ? field.max : numberOf(field, to), step ?? 1);
}

/** From the first to the last, past the end of the field if the last is smaller. */
function range(field: Field, first: number, last: number, step: number): number[] {
  const count = field.max - field.min + 1;
  const end = last < first ? last + count : last;
  const values: number[] = [];
  for (let value = first; value <= end; value += step) values.push(((value - field.min) % count) + field.min);
  return values;
}

function stepOf(field: Field, item: string, text: string): number {
  if (!/^\d+$/.test(text))
    throw new Mistake(`${the(field)} ${quote(item)}: the step ${quote(text)} is no number`);
  const step = Number(text);
  if (step === 0) throw new Mistake(`${the(field)} ${quote(item)}: a step must be at least 1`);
  const count = field.max - field.min + 1;
  if (step > count) {
    const hint = field.name === "minute" || field.name === "hour" || field.name === "second";
    const length = `${step}${field.name[0]}`;
    throw new Mistake(
      `${the(field)} ${quote(item)}: a step of ${step} is longer than the ${count} ${field.name}s that there are${
        hint
          ? `; for one slot every ${step} ${field.name}s write every = "${length}" ("@every ${length}")`
          : ""
      }`,
    );
  }
  return step;
}

function numberOf(field: Field, text: string): number {
  const upper = text.toUpperCase();
  const named = field.names?.indexOf(upper) ?? -1;
  if (named >= 0) return named + (field.namesFrom ?? 0);
  if (!/^\d+$/.test(text)) throw new Mistake(explainWord(field, text));
  const value = Number(text);
  if (field === weekdayField && value === 7) return 0;
  if (value < field.min || value > field.max) {
    const bounds =
      field === weekdayField
        ? "weekdays go from 0 to 7 (0 and 7 are Sunday)"
        : `${field.name}s go from ${field.min} to ${field.max}`;
    const hint = field === hourField && value === 24 ? "; midnight is hour 0" : "";
    throw new Mistake(`there is no ${field.name} ${text}: ${bounds}${hint}`);
  }
  return value;
}

function explainWord(field: Field, text: string): string {
  const near = field.names?.find((name) => text.length > 3 && text.toUpperCase().startsWith(name));
  if (near) return `${the(field)} ${quote(text)} is written ${near}`;
  if (text === "") return `${the(field)} has a value missing beside "-"`;
  const names = field.names ? ` and none of ${field.names.join(", ")}` : "";
  return `${the(field)} ${quote(text)} is no number${names}`;
}

/**
 * H: a value by the hash; H/15: the values of a step with a hashed start; H(0-29): within the
 * bounds.
 */
function hashed(field: Field, item: string, base: string, step: number | undefined, seed: string): number[] {
  const bounds = /^h(?:\((\d+)-(\d+)\))?$/i.exec(base);
  if (!bounds)
    throw new Mistake(`${the(field)} ${quote(item)}: H stands alone, or with bounds as in H(0-29)`);
  const first = bounds[1] === undefined ? field.min : numberOf(field, bounds[1]);
  const last = bounds[2] === undefined ? (field.hashMax ?? field.max) : numberOf(field, bounds[2]);
  if (last < first)
    throw new Mistake(`${the(field)} ${quote(item)}: the bounds of H are the wrong way round`);
  const count = last - first + 1;
  const hash = hashOf(`${seed} ${field.name}`);
  if (step === undefined) return [first + (hash % count)];
  return range(field, first + (hash % Math.min(step, count)), last, step);
}

/** FNV-1a, 32 bits: the same on every replica and in every year. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) {
    hash ^= text.charCodeAt(i);
    hash = Math.imul(hash, 0x01000193);
  }
  return hash >>> 0;
}

function the(field: Field): string {
  return `the ${field.name}`;
}

function quote(text: string): string {
  return `"${text}"`;
}

/** croner refuses some lists of marks that each are good (`L,LW`). */
export function cronOf(expression: string): Cron {
  try {
    return new Cron(expression, { utcOffset: 0, paused: true, mode: "6-part" });
  } catch (error) {
    throw new Mistake((error as Error).message.replace(/^CronPattern: (Syntax error, )?/, ""));
  }
}
