import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { now } from "../data/clock.ts";
import { agoText, lengthText, momentText, msOf } from "../times.ts";

/** Distance of a time from now; updates with the clock, with the exact time as a tooltip. */
export function Ago({ at, none = "" }: { at: Timestamp | undefined; none?: string }) {
  const ms = msOf(at);
  if (ms === undefined) return <>{none}</>;
  return (
    <time dateTime={new Date(ms).toISOString()} title={momentText(ms)}>
      {agoText(ms, now.value)}
    </time>
  );
}

/** Time since a moment, updated live. */
export function Since({ at }: { at: Timestamp | undefined }) {
  const ms = msOf(at);
  if (ms === undefined) return null;
  return (
    <time dateTime={new Date(ms).toISOString()} title={`since ${momentText(ms)}`}>
      {lengthText(Math.max(0, Math.floor((now.value - ms) / 1_000) * 1_000)).replace("0 ms", "0 s")}
    </time>
  );
}
