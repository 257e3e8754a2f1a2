import { Cron } from "croner";
import type { CronText } from "./cron-text.ts";
import { type Span, spanAt } from "./offsets.ts";
import type { Slots } from "./slots.ts";

/**
 * The slots of a cron expression in a zone. croner computes clock readings alone; the effect of a
 * clock change is decided here, by one rule.
 *
 * - An hour field of every hour follows elapsed time: its slots are all times at which the clock
 *   shows a time of the expression. A gap adds and moves nothing, a repeated hour has its slots
 *   again.
 * - Other hour fields name their hours, by a list, a range or a step. Times within a gap fire
 *   together, once, at the end of the gap.
 * - If the clock shows a named hour twice, a time of the hour fires once, the first time; but a
 *   minute field with a wildcard or a step follows elapsed time through the repeated hour.
 *
 * test/property/schedule-slots.test.ts compares with another implementation of the rule, which
 * checks every second.
 */
export function cronSlots(cron: CronText, zone: string): Slots {
  const readings = readingsOf(cron.expression);
  const movesGaps = !cron.isEveryHour;
  const repeats = cron.isEveryHour || cron.isMinuteOpen;

  /** The first reading of the span that is not a repeated reading. */
  const firstReading = (span: Span) => {
    const start = span.start + span.offset;
    const { lastChange } = span;
    return repeats || !lastChange ? start : Math.max(start, lastChange.at + lastChange.before);
  };
  /** A time of the expression falls into the gap at the start of the span. */
  const firesAtStart = ({ change, start, offset }: Span) => {
    if (!movesGaps || !change || change.before >= change.after) return false;
    const inGap = readings.after(start + change.before - second);
    return inGap !== undefined && inGap < start + offset;
  };

  return {
    next(after) {
      const since = Math.floor(after / second) * second;
      let span = spanAt(zone, since);
      for (;;) {
        if (span.start > since && firesAtStart(span)) return span.start;
        const from = Math.max(since + span.offset, firstReading(span) - second);
        const reading = readings.after(from);
        if (reading === undefined) return undefined;
        if (reading < span.end + span.offset) return reading - span.offset;
        span = spanAt(zone, span.end);
      }
    },
    previous(before) {
      const until = Math.ceil(before / second) * second;
      let span = spanAt(zone, until - second);
      for (;;) {
        const reading = readings.before(Math.min(until, span.end) + span.offset);
        if (reading === undefined) return undefined;
        if (reading >= firstReading(span)) return reading - span.offset;
        if (firesAtStart(span)) return span.start;
        span = spanAt(zone, span.start - second);
      }
    },
  };
}

const second = 1_000;

/**
 * Clock readings of an expression, as if they were UTC. The last question's answer is kept:
 * neighbouring spans ask alike.
 */
function readingsOf(expression: string) {
  const cron = new Cron(expression, { utcOffset: 0, paused: true, mode: "6-part" });
  let asked = Number.POSITIVE_INFINITY;
  let found: number | undefined;
  return {
    after(moment: number): number | undefined {
      if (asked <= moment && (found === undefined || found > moment)) return found;
      found = cron.nextRun(new Date(moment))?.getTime();
      asked = moment;
      return found;
    },
    before(moment: number): number | undefined {
      return cron.previousRuns(1, new Date(moment))[0]?.getTime();
    },
  };
}
