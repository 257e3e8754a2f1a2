/** A watcher: its latest result, earlier results, versions, coming runs, and costs. */
import { fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { type Run, UsageGroup, type Window } from "#gen/pinion/v1/run_pb.js";
import { type Watcher, WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import { watchers as api, may, runs } from "../data/api.ts";
import { now } from "../data/clock.ts";
import { barsOf, countRuns, ranges } from "../data/counts.ts";
import { labelOf } from "../data/devices.ts";
import type { Happening } from "../data/live.ts";
import { useReading } from "../data/reading.ts";
import { watchers } from "../data/watchers.ts";
import { excerptOf, textOf } from "../data/windows.ts";
import { Bars } from "../parts/bars.tsx";
import { Copy } from "../parts/copy.tsx";
import { DataTree } from "../parts/data-tree.tsx";
import { closeDialog, confirm, Dialog, DialogEnd, openDialog } from "../parts/dialog.tsx";
import { Diff } from "../parts/diff.tsx";
import { Empty } from "../parts/empty.tsx";
import { Markdown } from "../parts/markdown.tsx";
import { Status } from "../parts/status.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { attempt } from "../parts/toasts.tsx";
import { VersionList } from "../parts/versions.tsx";
import { goTo, linkTo, route, setQuery } from "../route.ts";
import { scheduleText } from "../schedule-words.ts";
import { dayMs, slotText } from "../times.ts";
import { dollarsText } from "../usage-words.ts";
import { runWord, skipWord, toneOf, watcherWord } from "../words.ts";
import { Candidates } from "./candidates.tsx";
import { costBars } from "./home.tsx";
import { Flow } from "./watcher-flow.tsx";
import { WatcherDialog } from "./watcher-form.tsx";

const windowsShown = 30;
const slotsShown = 120;
const slotsToCome = 20;
/** Up to this many slots a day, the days stand in columns. */
const sparseSlotsMax = 4;
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

const concerns = (watcher: Watcher) => (event: Happening) =>
  event.watcherId === watcher.id && /^run\.(completed|failed|timeout|cancelled|skipped)/.test(event.kind);

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

function TriggerDialog({ watcher }: { watcher: Watcher }) {
  const text = useSignal("");
  const error = useSignal("");
  const usesInput = /\{\{\s*input\b/.test(watcher.spec?.prompt ?? "");
  const start = async (event: Event) => {
    event.preventDefault();
    let input: unknown;
    if (text.value.trim() !== "") {
      try {
        input = JSON.parse(text.value);
      } catch {
        // Text other than JSON is sent as a string.
        input = text.value;
      }
    }
    closeDialog();
    await attempt(async () => {
      const { run, alreadyQueued } = await api.triggerWatcher({
        watcherId: watcher.id,
        ...(input === undefined ? {} : { input: fromJson(ValueSchema, input as JsonValue) }),
      });
      if (run) goTo("runs", run.id);
      return alreadyQueued
        ? `${watcher.slug} has an active run already: this one.`
        : `${watcher.slug} was triggered.`;
    });
  };
  return (
    <Dialog title={`Trigger ${watcher.spec?.name || watcher.slug}`} class="narrow">
      <form onSubmit={start}>
        <p>One run, now. The schedule stays as it is.</p>
        <label class="field">
          <span>Input, as JSON or text{usesInput ? "" : " (the prompt does not refer to any)"}</span>
          <textarea
            rows={4}
            class="mono"
            value={text.value}
            onInput={(event) => {
              text.value = event.currentTarget.value;
            }}
          />
        </label>
        <DialogEnd action="Start it" error={error.value} />
      </form>
    </Dialog>
  );
}

function BackfillDialog({ watcher }: { watcher: Watcher }) {
  const days = useSignal(1);
  const act = async (event: Event) => {
    event.preventDefault();
    closeDialog();
    await attempt(async () => {
      const end = now.value;
      const { slotsAccepted, slotsPresent } = await api.backfillWatcher({
        watcherId: watcher.id,
        start: timestampFromMs(end - days.value * dayMs),
        end: timestampFromMs(end),
      });
      return `${slotsAccepted} slots will run, one after another; ${slotsPresent} had run already.`;
    });
  };
  return (
    <Dialog title={`Backfill ${watcher.slug}`} class="narrow">
      <form onSubmit={act}>
        <p>Runs the slots of past days that have no run: after a pause, or before the watcher was there.</p>
        <label class="field">
          <span>Days back from now</span>
          <input
            type="number"
            min="1"
            max="366"
            value={days.value}
            onInput={(event) => {
              days.value = Number(event.currentTarget.value);
            }}
          />
        </label>
        <DialogEnd action="Backfill" />
      </form>
    </Dialog>
  );
}

function Results({ watcher }: { watcher: Watcher }) {
  const reading = useReading(
    (signal) => runs.listWindows({ watcherId: watcher.id, pageSize: windowsShown }, { signal }),
    [watcher.id],
    concerns(watcher),
  );
  const { query } = route.value;
  const windows = reading.value.value?.windows;
  if (!windows) {
    return (
      <section class="sheet" aria-label="Result">
        <ReadingState error={reading.error.value} again={reading.again} />
      </section>
    );
  }
  if (windows.length === 0) {
    return (
      <section class="sheet" aria-label="Result">
        <h2>No result yet</h2>
        <p class="muted">The result of each completed run is kept here, the newest first.</p>
      </section>
    );
  }
  const shown = windows.find(({ id }) => id === query.get("result")) ?? windows[0]!;
  const before = windows.find(({ id }) => id === query.get("before"));
  return (
    <>
      <section class="sheet result" aria-label="Result">
        <h2>
          {shown === windows[0] ? "Latest result" : "Result"}{" "}
          <small>
            <Ago at={shown.createdAt} /> · <a href={linkTo("runs", shown.runId)}>its run</a>
          </small>
          {!before && <Copy text={textOf(shown)} what="the result" />}
        </h2>
        {before ? (
          <>
            <p class="muted">
              Against the result of <Ago at={before.createdAt} />.{" "}
              <button type="button" class="quiet" onClick={() => setQuery({ before: "" })}>
                Show it alone
              </button>
            </p>
            <Diff before={textOf(before)} after={textOf(shown)} label="What differs" />
          </>
        ) : (
          <Found window={shown} />
        )}
      </section>
      <section class="sheet" aria-label="Results before">
        <h2>
          Results{" "}
          <small>{windows.length === windowsShown ? `the newest ${windowsShown}` : windows.length}</small>
        </h2>
        <Table
          label="Results"
          items={windows}
          keyOf={({ id }) => id}
          columns={[
            {
              title: "When",
              cell: (window) => (
                <button
                  type="button"
                  class="quiet"
                  aria-pressed={window === shown}
                  onClick={() => setQuery({ result: window.id, before: "" })}
                >
                  {slotText(timestampMs(window.createdAt!))}
                </button>
              ),
            },
            {
              title: "It begins",
              class: "wide-cell",
              cell: (window) => (window.outputHidden ? <span class="muted">hidden</span> : excerptOf(window)),
            },
            {
              title: "",
              class: "end",
              cell: (window) =>
                window === shown ? (
                  <span class="muted">shown</span>
                ) : (
                  <button
                    type="button"
                    class="quiet"
                    aria-label={`Compare with ${slotText(timestampMs(window.createdAt!))}`}
                    onClick={() => setQuery({ result: shown.id, before: window.id })}
                  >
                    Compare
                  </button>
                ),
            },
          ]}
        />
      </section>
    </>
  );
}

function Found({ window }: { window: Window }) {
  if (window.outputHidden) {
    return <p class="muted">Its device’s owner has not let you read what runs say there.</p>;
  }
  return (
    <>
      {window.result !== "" ? (
        <Markdown text={window.result} />
      ) : window.structured === undefined ? (
        <pre class="printed" role="region" aria-label="What it printed" tabIndex={0}>
          {textOf(window)}
        </pre>
      ) : null}
      {window.structured !== undefined && (
        <DataTree value={toJson(ValueSchema, window.structured)} name="Data" />
      )}
    </>
  );
}

type Cell = { key: string; tone: string; text: string; link?: string };

/** A cell for each slot, past and coming. */
function Slots({ watcher }: { watcher: Watcher }) {
  const past = useReading(
    (signal) => runs.listRuns({ watcherId: watcher.id, pageSize: slotsShown }, { signal }),
    [watcher.id],
    (event) => event.watcherId === watcher.id && event.kind.startsWith("run."),
  );
  const coming = useReading(
    async (signal) =>
      watcher.spec?.schedule && watcher.status === WatcherStatus.ACTIVE
        ? (await api.previewSchedule({ watcherId: watcher.id, count: slotsToCome }, { signal })).slots
        : [],
    [watcher.id, watcher.version, watcher.status],
  );
  const found = past.value.value?.runs;
  if (!found) return null;
  const cells: Cell[] = [
    ...found.toReversed().map(cellOf),
    ...(coming.value.value ?? []).map((slot) => {
      const at = timestampMs(slot);
      return { key: String(at), tone: "coming", text: `${slotText(at)}: to come` };
    }),
  ];
  const days = Map.groupBy(cells, ({ text }) => text.replace(/ \d\d:\d\d.*$/, ""));
  const isSparse = [...days.values()].every((slots) => slots.length <= sparseSlotsMax);
  return (
    <section class="sheet" aria-label="Slots">
      <h2>
        Slots{" "}
        <small>
          the last {found.length}, and what is to come ·{" "}
          <a href={linkTo("runs", "", { watcher: watcher.id })}>all its runs</a>
        </small>
      </h2>
      <ol class={`calendar ${isSparse ? "sparse" : ""}`} tabIndex={0} aria-label="Slots by day">
        {[...days].map(([day, slots]) => (
          <li key={day}>
            <span>{day}</span>
            <div>
              {slots.map(({ key, tone, text, link }) =>
                link ? (
                  <a key={key} class={`cell ${tone}`} href={link} title={text}>
                    <span class="unseen">{text}</span>
                  </a>
                ) : (
                  <i key={key} class={`cell ${tone}`} role="img" title={text} aria-label={text} />
                ),
              )}
            </div>
          </li>
        ))}
      </ol>
    </section>
  );
}

function cellOf(run: Run): Cell {
  const at = timestampMs(run.scheduledFor ?? run.dueAt!);
  const why = [runWord(run.status), skipWord(run.skipReason)].filter(Boolean).join(", ");
  return {
    key: run.id,
    tone: toneOf(runWord(run.status)),
    text: `${slotText(at)}: ${why}`,
    link: linkTo("runs", run.id),
  };
}

function About({ watcher }: { watcher: Watcher }) {
  const { spec } = watcher;
  const counted = useReading(
    (signal) => countRuns(ranges[2]!, { watcherId: watcher.id }, signal),
    [watcher.id],
    concerns(watcher),
  );
  return (
    <section class="sheet" aria-label="About">
      <h2>{scheduleText(spec?.schedule ?? "")}</h2>
      <dl>
        {spec?.schedule && (
          <div>
            <dt>schedule</dt>
            <dd>
              <code>{spec.schedule}</code> {spec.timeZone || "UTC"}
            </dd>
          </div>
        )}
        <div>
          <dt>next</dt>
          <dd>
            {watcher.nextSlots[0] ? slotText(timestampMs(watcher.nextSlots[0])) : "when it is triggered"}
          </dd>
        </div>
        <div>
          <dt>device</dt>
          <dd>
            {spec?.deviceId ? (
              <a href={linkTo("fleet", spec.deviceId)}>{labelOf(spec.deviceId)}</a>
            ) : watcher.spec?.selector ? (
              "any that matches its selector"
            ) : (
              "any fleet worker"
            )}
          </dd>
        </div>
        <div>
          <dt>agent</dt>
          <dd>
            {spec?.agentId ? (
              <a href={linkTo("agents", spec.agentId)}>{spec.agentId}</a>
            ) : (
              "the org’s default"
            )}
          </dd>
        </div>
        {spec?.agentKind && (
          <div>
            <dt>executor</dt>
            <dd>{spec.agentKind}</dd>
          </div>
        )}
      </dl>
      {counted.value.value && (
        <>
          <h3>Runs of 30 days</h3>
          <Bars label="Runs of 30 days by how they ended" bars={barsOf(ranges[2]!, counted.value.value)} />
        </>
      )}
    </section>
  );
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
    concerns(watcher),
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
