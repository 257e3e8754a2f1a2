/** A run's steps from due to stored, with the duration of each. */
import { durationMs } from "@bufbuild/protobuf/wkt";
import { type Run, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { now } from "../data/clock.ts";
import { clockText, lengthText, momentText, msOf } from "../times.ts";
import { runWord, toneOf } from "../words.ts";

export type Step = {
  name: string;
  /** Time of the step in ms; undefined: not reached. */
  at: number | undefined;
  /** Duration since the step before, in ms. */
  tookMs: number | undefined;
  state: "done" | "now" | "open" | "missing";
  note?: string;
};

/**
 * The steps of the current attempt. `output` is the end of the program, measured by the device; the
 * time from `output` to `stored` is transmission and commit.
 */
function stepsOf(run: Run): Step[] {
  const started = msOf(run.startedAt);
  const finished = msOf(run.finishedAt);
  const ran = run.duration ? durationMs(run.duration) : undefined;
  const isStored = run.status === RunStatus.COMPLETED;
  // The duration is the device's; the times are the database's, with the accept noted some
  // milliseconds late. An end of the program after the storing of its result is therefore unknown.
  const end = started !== undefined && ran !== undefined ? started + ran : undefined;
  const isKnown = end !== undefined && (finished === undefined || end < finished);
  const output = isKnown ? end : end && finished;
  const [due, created] = [msOf(run.dueAt), msOf(run.createdAt)];
  // A slot is recorded before its due time, so the recording is no step.
  const isAhead = due !== undefined && created !== undefined && created <= due;
  const moments: [name: string, at: number | undefined][] = [
    ["due", due],
    ...(isAhead ? [] : [["materialized", created] as [string, number | undefined]]),
    ["pushed", msOf(run.pushedAt)],
    ["accepted", started],
    // A device that reports no duration leaves the end of its program unknown.
    ...(isStored && output === undefined
      ? []
      : [["output", finished === undefined ? undefined : output] as [string, number | undefined]]),
    [isStored || finished === undefined ? "stored" : runWord(run.status), finished],
  ];
  let before: number | undefined;
  const isOver = finished !== undefined;
  let isReached = true;
  return moments.map(([name, at]) => {
    const isGuessed = at !== undefined && at === finished && at === before && !isKnown;
    const tookMs =
      at === undefined || before === undefined || isGuessed
        ? undefined
        : name === "output" && ran !== undefined
          ? ran
          : Math.max(0, at - before);
    const note =
      name === "due" && isAhead && due - created >= 1
        ? `recorded ${lengthText(due - created)} ahead`
        : undefined;
    const state = at !== undefined ? "done" : isOver ? "missing" : isReached ? "now" : "open";
    if (at === undefined) isReached = false;
    else before = at;
    return { name, at, tookMs, state, ...(note ? { note } : {}) };
  });
}

export function Timeline({ run, bytes }: { run: Run; bytes: number }) {
  const steps = stepsOf(run);
  const tone = toneOf(runWord(run.status));
  const reached = steps.findLast(({ at }) => at !== undefined);
  return (
    <section class={`timeline ${tone}`} aria-label="Timeline">
      <div class={`bar ${tone}`} aria-hidden="true">
        <Parts steps={steps} />
        {run.finishedAt === undefined && <Going steps={steps} />}
      </div>
      <ol>
        {steps.map(({ name, at, tookMs, state, note }) => (
          <li key={name} class={`${state} ${partOf(name)}`}>
            <b title={note}>{name}</b>
            {at !== undefined && (
              <time dateTime={new Date(at).toISOString()} title={momentText(at)}>
                {clockText(at)}
              </time>
            )}
            {tookMs !== undefined && <span class="took">{tookText(tookMs)}</span>}
            {state === "now" && (
              <span class="took">
                {waitingWord(name, run)} <NowLength since={reached?.at} />
                {name === "output" && bytes > 0 && `, ${bytesText(bytes)}`}
              </span>
            )}
            {state === "missing" && <span class="took">never</span>}
          </li>
        ))}
      </ol>
    </section>
  );
}

/** The times have whole milliseconds: a step within one took no "0 ms". */
function tookText(ms: number): string {
  return ms < 1 ? "under 1 ms" : `+${lengthText(ms)}`;
}

/** Class of a step's colour. */
function partOf(name: string): string {
  const index = ["due", "materialized", "pushed", "accepted", "output"].indexOf(name);
  return `part${index === -1 ? 5 : index}`;
}

function waitingWord(name: string, run: Run): string {
  if (run.cancelRequestedAt) return "cancelling,";
  return name === "output" ? "running" : "waiting";
}

function NowLength({ since }: { since: number | undefined }) {
  if (since === undefined) return null;
  const seconds = Math.max(0, Math.floor((now.value - since) / 1_000));
  return <>{seconds === 0 ? "0 s" : lengthText(seconds * 1_000).replace(".0", "")}</>;
}

export function bytesText(bytes: number): string {
  if (bytes < 1_000) return `${bytes} B`;
  if (bytes < 1_000_000) return `${(bytes / 1_000).toFixed(1)} kB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}

/** All steps in a thin bar, for lists. */
export function TimelineBar({ run }: { run: Run }) {
  const steps = stepsOf(run);
  const text = steps
    .flatMap(({ name, tookMs }) => (tookMs === undefined ? [] : `${name} ${tookText(tookMs)}`))
    .join(", ");
  if (run.startedAt === undefined) return null;
  return (
    <span class={`bar ${toneOf(runWord(run.status))}`} role="img" aria-label={text} title={text}>
      <Parts steps={steps} />
      {run.finishedAt === undefined && <Going steps={steps} />}
    </span>
  );
}

/** Width by the square root, so milliseconds stay visible beside minutes. */
const widthOf = (ms: number) => String(Math.sqrt(Math.max(1, ms)));

function Parts({ steps }: { steps: readonly Step[] }) {
  return (
    <>
      {steps.map(
        ({ name, tookMs }) =>
          tookMs !== undefined && <i key={name} class={partOf(name)} style={{ flexGrow: widthOf(tookMs) }} />,
      )}
    </>
  );
}

/** The current step; grows with the clock. */
function Going({ steps }: { steps: readonly Step[] }) {
  const since = steps.findLast(({ at }) => at !== undefined)?.at;
  return since === undefined ? null : <i class="going" style={{ flexGrow: widthOf(now.value - since) }} />;
}
