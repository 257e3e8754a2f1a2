import { blockHours, dayMs, floorTo, hourMs, shortestMs } from "../service/device-blocks.ts";

/**
 * The ends of a time are counted one by one, or read from sums (service/past-days.ts and
 * open-day.ts): sums of hours and minutes for spans, blocks of hours and of days for devices.
 */

export const minuteMs = 60_000;

/** Ends counted one by one, from `from` and before `to`, in ms. */
export type Range = { from: number; to: number; ofSpans: boolean; ofDevices: boolean };

/** A block of the devices' sums; all its days are counted. */
export type Block = { start: number; hours: number };

export type CountParts = {
  rows: Range[];
  /** Days (UTC) with sums, by their beginning in ms. */
  days: number[];
  blocks: Block[];
  /** The times of the blocks; the blocks' changes are to be added. */
  blocked: { from: number; to: number }[];
};

/** The days with sums, by their beginning in ms, and the moment until which each is counted. */
export type CountedDays = ReadonlyMap<number, number>;

type Asked = { start: number; end: number; spanMs: number };

/** The parts of the spans of `spanMs` from `start` on, before `end`. */
export function countParts(asked: Asked, counted: CountedDays): CountParts {
  const { start, end } = asked;
  const parts: CountParts = { rows: [], days: [], blocks: [], blocked: [] };
  for (let day = floorTo(start, dayMs); day < end; day += dayMs) {
    const from = Math.max(start, day);
    const to = Math.min(end, day + dayMs);
    const until = Math.max(from, Math.min(to, counted.get(day) ?? day));
    if (until > from) {
      parts.days.push(day);
      parts.rows.push(...besideBlocks({ from, to: until }, counted.get(day)!, parts));
      parts.rows.push(...cutMinutes(asked, { from, to: until }));
    }
    if (until < to) addRows(parts, { from: until, to });
  }
  parts.blocks = parts.blocked.flatMap((time) => blocksOf(time, counted));
  return parts;
}

function addRows({ rows }: CountParts, { from, to }: { from: number; to: number }): void {
  const last = rows.at(-1);
  if (last?.ofSpans && last.ofDevices && last.to === from) last.to = to;
  else rows.push({ from, to, ofSpans: true, ofDevices: true });
}

/**
 * Notes the time of the blocks, and returns the times before and after the blocks: their devices
 * are counted one by one.
 */
function besideBlocks(
  { from, to }: { from: number; to: number },
  until: number,
  { blocked }: CountParts,
): Range[] {
  const begin = Math.ceil(from / shortestMs) * shortestMs;
  // The last block of the open day ends where its sums do.
  const end = to === until ? to : floorTo(to, shortestMs);
  if (begin >= end) return [{ from, to, ofSpans: false, ofDevices: true }];
  const last = blocked.at(-1);
  if (last?.to === begin) last.to = end;
  else blocked.push({ from: begin, to: end });
  return [
    { from, to: begin },
    { from: end, to },
  ]
    .filter((time) => time.from < time.to)
    .map((time) => ({ ...time, ofSpans: false, ofDevices: true }));
}

/** The longest blocks that make up the time. */
function blocksOf({ from, to }: { from: number; to: number }, counted: CountedDays): Block[] {
  const blocks: Block[] = [];
  for (let at = from; at < to; at += blocks.at(-1)!.hours * hourMs) {
    const hours = blockHours.findLast((length) => isWhole({ start: at, hours: length }, to, counted));
    blocks.push({ start: at, hours: hours ?? blockHours[0]! });
  }
  return blocks;
}

/** Whether the block exists: a block of days is made when all its days are closed. */
function isWhole({ start, hours }: Block, to: number, counted: CountedDays): boolean {
  const end = start + hours * hourMs;
  if (start % (hours * hourMs) !== 0 || end > to) return false;
  if (end - start < dayMs) return true;
  for (let day = start; day < end; day += dayMs) if ((counted.get(day) ?? 0) < day + dayMs) return false;
  return true;
}

/** The parts of minutes at the beginning and the end of a span. */
function cutMinutes({ start, end, spanMs }: Asked, within: { from: number; to: number }): Range[] {
  const cut = new Set<number>();
  const note = (at: number) => {
    if (at % minuteMs !== 0) cut.add(floorTo(at, minuteMs));
  };
  const first = Math.ceil((within.from - start) / spanMs);
  for (let at = start + first * spanMs; at < within.to; at += spanMs) note(at);
  if (end === within.to) note(end);
  return [...cut].map((minute) => ({
    from: Math.max(within.from, minute),
    to: Math.min(within.to, minute + minuteMs),
    ofSpans: true,
    ofDevices: false,
  }));
}
