import pg from "pg";

const timestamptz = 1184;
const parseAny = pg.types.getTypeParser(timestamptz) as (text: string) => Date;

/**
 * "2026-11-29 23:01:02" and "+00": the text of a moment of a four-digit year without a fraction.
 */
const secondsLength = 19;
const zoneLength = 3;

/**
 * Parses a timestamptz. Connections have the time zone UTC, so nearly every moment has one form,
 * which is read here at a tenth of the cost of pg's parser; pg's parser reads the others (infinity,
 * years before 1 or after 9999, other zones).
 */
export function parseMoment(text: string): Date {
  const end = text.length - zoneLength;
  if (end < secondsLength || text.charCodeAt(4) !== 45 || !text.endsWith("+00")) return parseAny(text);
  let ms = 0;
  // Digits beyond milliseconds are cut off.
  if (end > secondsLength) {
    ms = digit(text, 20) * 100;
    if (end > 21) ms += digit(text, 21) * 10;
    if (end > 22) ms += digit(text, 22);
  }
  const year = two(text, 0) * 100 + two(text, 2);
  // Date.UTC takes the years 0 to 99 for years of the 20th century.
  if (year < 100) return parseAny(text);
  return new Date(
    Date.UTC(year, two(text, 5) - 1, two(text, 8), two(text, 11), two(text, 14), two(text, 17), ms),
  );
}

function digit(text: string, at: number): number {
  return text.charCodeAt(at) - 48;
}

function two(text: string, at: number): number {
  return digit(text, at) * 10 + digit(text, at + 1);
}
