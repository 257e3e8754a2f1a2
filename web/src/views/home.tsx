/** Items in need of attention first; then past runs, costs, and coming runs. */
import { durationMs, timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { useEffect } from "preact/hooks";
import { type SummarizeRunsResponse, UsageGroup } from "#gen/pinion/v1/run_pb.js";
import { runs as api } from "../data/api.ts";
import { now } from "../data/clock.ts";
import { barsOf, countRuns, rangeNamed, ranges, totalsOf } from "../data/counts.ts";
import { devices, labelOf } from "../data/devices.ts";
import { endsRuns } from "../data/live.ts";
import { useReading } from "../data/reading.ts";
import { watchers } from "../data/watchers.ts";
import { Bars } from "../parts/bars.tsx";
import { Status } from "../parts/status.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo, route, setQuery } from "../route.ts";
import { dayMs, lengthText, slotText } from "../times.ts";
import { dollarsText } from "../usage-words.ts";
import { Needs } from "./needs.tsx";

const shownMax = 8;

export function HomeView() {
  useEffect(() => {
    const hide = [devices.show(), watchers.show()];
    return () => {
      for (const each of hide) each();
    };
  }, []);
  return (
    <div class="home">
      <h1 class="unseen">Home</h1>
      <Needs />
      <Runs />
      <div class="halves">
        <Next />
        <Spend />
      </div>
    </div>
  );
}

function Runs() {
  const range = rangeNamed(route.value.query.get("range"));
  const reading = useReading((signal) => countRuns(range, {}, signal), [range.name], endsRuns);
  const counted = reading.value.value;
  return (
    <section class="sheet" aria-label="Runs over time">
      <h2>
        Runs
        <span class="end chips" role="group" aria-label="Over">
          {ranges.map(({ name, label }) => (
            <button
              key={name}
              type="button"
              aria-pressed={range.name === name}
              onClick={() => setQuery({ range: name })}
            >
              {label}
            </button>
          ))}
        </span>
      </h2>
      {counted ? (
        <>
          <p class="totals">
            {totalsOf(counted).map(({ name, runs }) => (
              <a key={name} href={linkTo("runs", "", { state: name })}>
                <Status word={name} /> {runs.toLocaleString("en")}
              </a>
            ))}
            {counted.counts.length === 0 && <span class="muted">No run ended in this time.</span>}
          </p>
          <Bars label="Runs by how they ended" bars={barsOf(range, counted)} />
          {counted.busiest.length > 0 && <Busiest counted={counted} />}
        </>
      ) : (
        <ReadingState error={reading.error.value} again={reading.again} />
      )}
    </section>
  );
}

function Busiest({ counted }: { counted: SummarizeRunsResponse }) {
  return (
    <>
      <h3>Busiest devices</h3>
      <Table
        label="Busiest devices"
        items={counted.busiest.slice(0, 5)}
        keyOf={({ deviceId }) => deviceId}
        columns={[
          {
            title: "Device",
            cell: ({ deviceId }) => <a href={linkTo("fleet", deviceId)}>{labelOf(deviceId)}</a>,
          },
          { title: "Runs", class: "number", cell: ({ runs }) => Number(runs).toLocaleString("en") },
          {
            title: "Programs ran",
            class: "number",
            cell: ({ busy }) => lengthText(busy ? durationMs(busy) : 0),
          },
        ]}
      />
    </>
  );
}

function Next() {
  const slots = watchers.items.value
    .flatMap((watcher) => watcher.nextSlots.map((slot) => ({ watcher, at: timestampMs(slot) })))
    .sort((a, b) => a.at - b.at)
    .slice(0, shownMax);
  return (
    <section class="sheet" aria-label="Next slots">
      <h2>Next</h2>
      {slots.length === 0 ? (
        <p class="muted">No watcher has a slot to come.</p>
      ) : (
        <ol class="next-slots">
          {slots.map(({ watcher, at }) => (
            <li key={`${watcher.id}${at}`}>
              <time dateTime={new Date(at).toISOString()}>{slotText(at)}</time>
              <a href={linkTo("watchers", watcher.slug)}>{watcher.spec?.name || watcher.slug}</a>
              <small>
                <Ago at={timestampFromMs(at)} />
              </small>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

const spendDays = 30;

function Spend() {
  const reading = useReading(
    (signal) =>
      api.summarizeUsage(
        { groupBy: UsageGroup.DAY, start: timestampFromMs(now.peek() - (spendDays - 1) * dayMs) },
        { signal },
      ),
    [],
    endsRuns,
  );
  const sums = reading.value.value?.sums;
  return (
    <section class="sheet" aria-label="Spend">
      <h2>
        Spend <small>{spendDays} days, by the agents’ own figures</small>
      </h2>
      {!sums ? (
        <ReadingState error={reading.error.value} again={reading.again} />
      ) : sums.length === 0 ? (
        <p class="muted">No agent has told what it used.</p>
      ) : (
        <>
          <p class="totals">
            <b>{dollarsText(sums.reduce((sum, day) => sum + Number(day.costMicros), 0))}</b>
            <span class="muted">
              {sums
                .reduce((sum, day) => sum + Number(day.inputTokens + day.outputTokens), 0)
                .toLocaleString("en")}{" "}
              tokens
            </span>
          </p>
          <Bars label="Cost by day" bars={costBars(sums, spendDays)} words={dollarsText} />
        </>
      )}
    </section>
  );
}

/** A bar for each day, also for days without runs. */
export function costBars(sums: readonly { group: string; costMicros: bigint }[], days: number) {
  const byDay = new Map(sums.map(({ group, costMicros }) => [group, Number(costMicros)]));
  return Array.from({ length: days }, (_, index) => {
    const day = new Date(now.peek() - (days - 1 - index) * dayMs).toISOString().slice(0, 10);
    const value = byDay.get(day) ?? 0;
    return {
      key: day,
      label: day,
      parts: value === 0 ? [] : [{ name: "spent", tone: "busy" as const, value }],
    };
  });
}
