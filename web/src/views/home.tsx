/** Items in need of attention first; then past runs, costs, and coming runs. */
import { durationMs, timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { RunStatus, SkipReason, UsageGroup } from "#gen/pinion/v1/run_pb.js";
import { WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import { runs as api } from "../data/api.ts";
import { now } from "../data/clock.ts";
import { barsOf, countRuns, rangeNamed, ranges, totalsOf } from "../data/counts.ts";
import { devices, labelOf } from "../data/devices.ts";
import type { Happening } from "../data/live.ts";
import { useReading } from "../data/reading.ts";
import { slugOf, watchers } from "../data/watchers.ts";
import { Bars } from "../parts/bars.tsx";
import { Status } from "../parts/status.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo, route, setQuery } from "../route.ts";
import { dayMs, lengthText, slotText } from "../times.ts";
import { dollarsText } from "../usage-words.ts";
import { attentionWord, runWord } from "../words.ts";

const shownMax = 8;
const lookedAtMax = 50;

const endsRuns = ({ kind }: Happening) => /^run\.(completed|failed|timeout|cancelled|skipped)/.test(kind);

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

type Need = { key: string; tone: string; word: string; text: ComponentChildren; link: string; at?: number };

function Needs() {
  const asked = useReading(
    (signal) => api.listQuestions({ isOpen: true, pageSize: lookedAtMax }, { signal }),
    [],
    ({ kind }) => kind.startsWith("run.question") || endsRuns({ kind } as Happening),
  );
  const attention = useReading(
    (signal) => api.listRuns({ wantsAttention: true, pageSize: lookedAtMax }, { signal }),
    [],
    endsRuns,
  );
  const skipped = useReading(
    (signal) => api.listRuns({ statuses: [RunStatus.SKIPPED], pageSize: lookedAtMax }, { signal }),
    [],
    ({ kind }) => kind.startsWith("run.skipped"),
  );
  const since = now.value - dayMs;
  const needs: Need[] = [];
  for (const { runId, watcherSlug, question, deadlineAt } of asked.value.value?.questions ?? []) {
    needs.push({
      key: `q${runId}${question?.id}`,
      tone: "busy",
      word: "asks",
      text: (
        <>
          <b>{watcherSlug}</b> {question?.title || "asks something"}
          {deadlineAt && (
            <small>
              , answered by itself <Ago at={deadlineAt} />
            </small>
          )}
        </>
      ),
      link: linkTo("runs", runId),
    });
  }
  for (const watcher of watchers.items.value) {
    const name = watcher.spec?.name || watcher.slug;
    const last = watcher.recentRuns[0];
    const link = linkTo("watchers", watcher.slug);
    if (watcher.status === WatcherStatus.NO_EXECUTOR) {
      needs.push({ key: `n${watcher.id}`, tone: "bad", word: "no executor", text: <b>{name}</b>, link });
    } else if (watcher.status === WatcherStatus.PAUSED) {
      const text = (
        <>
          <b>{name}</b> {watcher.pausedReason}
        </>
      );
      needs.push({ key: `p${watcher.id}`, tone: "wait", word: "paused", text, link });
    } else if (last && (last.status === RunStatus.FAILED || last.status === RunStatus.TIMEOUT)) {
      const text = (
        <>
          <b>{name}</b>{" "}
          {watcher.consecutiveFailures > 1 ? `${watcher.consecutiveFailures} times in a row, ` : ""}
          <Ago at={last.finishedAt} />
        </>
      );
      needs.push({
        key: `f${watcher.id}`,
        tone: "bad",
        word: runWord(last.status),
        text,
        link: linkTo("runs", last.id),
      });
    }
  }
  for (const run of attention.value.value?.runs ?? []) {
    if (!run.finishedAt || timestampMs(run.finishedAt) < since) continue;
    const text = (
      <>
        <b>{run.watcherSlug}</b> {run.attention.map(attentionWord).join(", ")}, <Ago at={run.finishedAt} />
      </>
    );
    needs.push({ key: `a${run.id}`, tone: "wait", word: "look", text, link: linkTo("runs", run.id) });
  }
  for (const device of devices.items.value) {
    const pinned = watchers.items.value.filter((watcher) => watcher.spec?.deviceId === device.id).length;
    const isMissed = device.liveness === Liveness.OFFLINE && (device.pendingRuns > 0 || pinned > 0);
    if (!isMissed || device.isWorker) continue;
    const text = (
      <>
        <b>{labelOf(device.id)}</b> since <Ago at={device.disconnectedAt ?? device.lastBeatAt} />
        {device.pendingRuns > 0 &&
          `, ${device.pendingRuns} ${device.pendingRuns === 1 ? "run waits" : "runs wait"}`}
      </>
    );
    needs.push({
      key: `d${device.id}`,
      tone: "quiet",
      word: "offline",
      text,
      link: linkTo("fleet", device.id),
    });
  }
  for (const device of devices.items.value) {
    if (device.configProblem === "") continue;
    needs.push({
      key: `c${device.id}`,
      tone: "bad",
      word: "device.toml",
      text: <b>{labelOf(device.id)}</b>,
      link: linkTo("fleet", device.id),
    });
  }
  const atLimit = Map.groupBy(
    (skipped.value.value?.runs ?? []).filter(
      (run) =>
        (run.skipReason === SkipReason.BUDGET || run.skipReason === SkipReason.LIMIT) &&
        run.finishedAt &&
        timestampMs(run.finishedAt) >= since,
    ),
    ({ watcherId }) => watcherId,
  );
  for (const [watcherId, slots] of atLimit) {
    const text = (
      <>
        <b>{slugOf(watcherId)}</b> {slots.length} {slots.length === 1 ? "slot was" : "slots were"} skipped
        today
      </>
    );
    needs.push({
      key: `b${watcherId}`,
      tone: "wait",
      word: "budget",
      text,
      link: linkTo("watchers", slugOf(watcherId)),
    });
  }
  return (
    <section class="sheet" aria-label="What needs somebody">
      <h2>
        Needs you <small>{needs.length === 0 ? "" : needs.length}</small>
      </h2>
      {needs.length === 0 ? (
        <AllWell />
      ) : (
        <ul class="needs">
          {needs.slice(0, 3 * shownMax).map(({ key, tone, word, text, link }) => (
            <li key={key}>
              <span class={`status ${tone}`}>
                <i aria-hidden="true" />
                {word}
              </span>
              <a href={link}>{text}</a>
            </li>
          ))}
        </ul>
      )}
      {needs.length > 3 * shownMax && <p class="muted">and {needs.length - 3 * shownMax} more</p>}
    </section>
  );
}

/** Shown without problems: advice for the next step, perhaps for an empty org. */
function AllWell() {
  if (devices.state.value !== "ready" || watchers.state.value !== "ready") {
    return (
      <p class="muted" role="status">
        Reading…
      </p>
    );
  }
  if (devices.items.value.length === 0) {
    return (
      <p>
        No device yet. A device is a machine that runs the daemon: <a href={linkTo("fleet")}>add one</a>.
      </p>
    );
  }
  if (watchers.items.value.length === 0) {
    return (
      <p>
        No watcher yet. A watcher says what to do, when, and where:{" "}
        <a href={linkTo("watchers")}>create one</a>.
      </p>
    );
  }
  return <p class="good-text">Nothing. Everything that is due runs, and nobody waits for an answer.</p>;
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
          {counted.busiest.length > 0 && (
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
          )}
        </>
      ) : (
        <ReadingState error={reading.error.value} again={reading.again} />
      )}
    </section>
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
