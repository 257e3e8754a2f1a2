import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { UsageGroup } from "#gen/pinion/v1/run_pb.js";
import { type Watcher, WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import { watchers as api, may, runs } from "../data/api.ts";
import { now } from "../data/clock.ts";
import { barsOf, countRuns, rangeNamed } from "../data/counts.ts";
import { labelOf } from "../data/devices.ts";
import { useReading } from "../data/reading.ts";
import { watchers } from "../data/watchers.ts";
import { Bars } from "../parts/bars.tsx";
import { confirm, openDialog } from "../parts/dialog.tsx";
import { Diff } from "../parts/diff.tsx";
import { Empty } from "../parts/empty.tsx";
import { FactList } from "../parts/fact-list.tsx";
import { Status } from "../parts/status.tsx";
import { ReadingState } from "../parts/table.tsx";
import { attempt } from "../parts/toasts.tsx";
import { VersionList } from "../parts/versions.tsx";
import { goTo, linkTo } from "../route.ts";
import { scheduleText } from "../schedule-words.ts";
import { dayMs, slotText } from "../times.ts";
import { dollarsText } from "../usage-words.ts";
import { watcherWord } from "../words.ts";
import { Candidates } from "./candidates.tsx";
import { costBars } from "./home.tsx";
import { Flow } from "./watcher-flow.tsx";
import { WatcherDialog } from "./watcher-form.tsx";
import { endsRunOf, Results } from "./watcher-results.tsx";
import { Slots } from "./watcher-slots.tsx";
import { BackfillDialog, TriggerDialog } from "./watcher-starts.tsx";

const costDays = 30;

export function WatcherView({ id }: { id: string }) {
  const reading = useReading(
    async () =>
      (await api.getWatcher({ watcherId: id, includeRecentRuns: true, includeNextSlots: true })).watcher!,
    [id],
    ({ watcherId }) =>
      watcherId !== "" && watcherId === watchers.items.value.find(({ slug }) => slug === id)?.id,
  );
  useEffect(() => watchers.show(), []);
  // The list receives changes live; the separate read is for watchers missing in the list.
  const watcher = watchers.items.value.find((one) => one.slug === id || one.id === id) ?? reading.value.value;
  if (!watcher) {
    if (reading.error.value === "") return <ReadingState error="" again={reading.again} />;
    return (
      <Empty title="This watcher cannot be shown">
        <p>{reading.error.value}</p>
        <a class="button" href={linkTo("watchers")}>
          All watchers
        </a>
      </Empty>
    );
  }
  return (
    <article class="page">
      <Head watcher={watcher} />
      <div class="panes">
        <div class="found">
          <Results watcher={watcher} />
          <Slots watcher={watcher} />
        </div>
        <div class="side">
          <About watcher={watcher} />
          {watcher.spec?.selector && <Candidates watcher={watcher} />}
          <Flow watcher={watcher} />
          <Versions watcher={watcher} />
          <Costs watcher={watcher} />
        </div>
      </div>
    </article>
  );
}

function Head({ watcher }: { watcher: Watcher }) {
  const isPaused = watcher.status === WatcherStatus.PAUSED;
  const { id: watcherId, slug } = watcher;
  const act = (done: string, call: () => Promise<unknown>) =>
    attempt(async () => {
      await call();
      watchers.touch(watcherId);
      return done;
    });
  return (
    <header class="head">
      <div>
        <a class="back" href={linkTo("watchers")}>
          Watchers
        </a>
        <h1>
          {watcher.spec?.name || slug} <Status word={watcherWord(watcher.status)} />
        </h1>
        <p class="muted">
          <code>{slug}</code> {watcher.pausedReason}
        </p>
      </div>
      {may("write") && (
        <div class="buttons">
          <button type="button" onClick={() => openDialog(<WatcherDialog watcher={watcher} />)}>
            Edit
          </button>
          <button type="button" onClick={() => openDialog(<BackfillDialog watcher={watcher} />)}>
            Backfill
          </button>
          <button
            type="button"
            onClick={() =>
              isPaused
                ? act(`${slug} fires again.`, () => api.resumeWatcher({ watcherId }))
                : act(`${slug} is paused.`, () =>
                    api.pauseWatcher({ watcherId, reason: "paused on the web page" }),
                  )
            }
          >
            {isPaused ? "Resume" : "Pause"}
          </button>
          <button type="button" class="danger" onClick={() => askDelete(watcher)}>
            Delete
          </button>
          <button
            type="button"
            class="primary"
            onClick={() => openDialog(<TriggerDialog watcher={watcher} />)}
          >
            Trigger
          </button>
        </div>
      )}
    </header>
  );
}

function askDelete({ id, slug }: Watcher): void {
  confirm({
    title: `Delete ${slug}?`,
    text: "Its schedule ends, and runs that wait are cancelled. Results stay as long as runs are kept.",
    action: "Delete the watcher",
    async act() {
      await api.deleteWatcher({ watcherId: id });
      watchers.remove(id);
      goTo("watchers");
      return `${slug} is deleted.`;
    },
  });
}

function About({ watcher }: { watcher: Watcher }) {
  const counted = useReading(
    (signal) => countRuns(monthRange, { watcherId: watcher.id }, signal),
    [watcher.id],
    endsRunOf(watcher),
  );
  return (
    <section class="sheet" aria-label="About">
      <h2>{scheduleText(watcher.spec?.schedule ?? "")}</h2>
      <FactList facts={factsOf(watcher)} />
      {counted.value.value && (
        <>
          <h3>Runs of 30 days</h3>
          <Bars label="Runs of 30 days by how they ended" bars={barsOf(monthRange, counted.value.value)} />
        </>
      )}
    </section>
  );
}

const monthRange = rangeNamed("month");

function factsOf({ spec, nextSlots: [next] }: Watcher): [name: string, value: ComponentChildren][] {
  const { schedule = "", timeZone = "", deviceId = "", agentId = "", agentKind = "" } = spec ?? {};
  const anywhere = spec?.selector ? "any that matches its selector" : "any fleet worker";
  const zoned = (
    <>
      <code>{schedule}</code> {timeZone || "UTC"}
    </>
  );
  return [
    ...(schedule === "" ? [] : ([["schedule", zoned]] as [string, ComponentChildren][])),
    ["next", next ? slotText(timestampMs(next)) : "when it is triggered"],
    ["device", deviceId ? <a href={linkTo("fleet", deviceId)}>{labelOf(deviceId)}</a> : anywhere],
    ["agent", agentId ? <a href={linkTo("agents", agentId)}>{agentId}</a> : "the org’s default"],
    ...(agentKind === "" ? [] : ([["executor", agentKind]] as [string, ComponentChildren][])),
  ];
}

function Versions({ watcher }: { watcher: Watcher }) {
  const reading = useReading(
    (signal) => api.listWatcherRevisions({ watcherId: watcher.id }, { signal }),
    [watcher.id, watcher.version],
  );
  const shown = useSignal<number | undefined>(undefined);
  const revisions = reading.value.value?.revisions ?? [];
  const [newest] = revisions;
  const chosen = revisions.find(({ version }) => version === shown.value);
  const before = chosen && revisions[revisions.indexOf(chosen) + 1];
  return (
    <section class="sheet" aria-label="Prompt">
      <h2>
        Prompt <small>version {watcher.version}</small>
      </h2>
      {chosen && before ? (
        <Diff before={before.prompt} after={chosen.prompt} label={`What version ${chosen.version} changed`} />
      ) : (
        <pre class="prompt" role="region" aria-label="The prompt" tabIndex={0}>
          {(chosen ?? newest)?.prompt ?? watcher.spec?.prompt}
        </pre>
      )}
      {revisions.length > 1 && <VersionList revisions={revisions} shown={shown} />}
    </section>
  );
}

function Costs({ watcher }: { watcher: Watcher }) {
  const reading = useReading(
    (signal) =>
      runs.summarizeUsage(
        {
          watcherId: watcher.id,
          groupBy: UsageGroup.DAY,
          start: timestampFromMs(now.peek() - (costDays - 1) * dayMs),
        },
        { signal },
      ),
    [watcher.id],
    endsRunOf(watcher),
  );
  const sums = reading.value.value?.sums ?? [];
  if (sums.length === 0) return null;
  return (
    <section class="sheet" aria-label="Cost">
      <h2>
        Cost{" "}
        <small>{dollarsText(sums.reduce((sum, day) => sum + Number(day.costMicros), 0))} in 30 days</small>
      </h2>
      <Bars label="Cost by day" bars={costBars(sums, costDays)} words={dollarsText} />
    </section>
  );
}
