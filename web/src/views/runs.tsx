import { durationMs } from "@bufbuild/protobuf/wkt";
import { computed } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { BulkKind, type Run } from "#gen/pinion/v1/run_pb.js";
import { may } from "../data/api.ts";
import { serverNow } from "../data/clock.ts";
import { deviceOptions, devices, labelOf } from "../data/devices.ts";
import { hasOlder, runs, setFilter, showOlder } from "../data/runs.ts";
import { slugOf, watchers } from "../data/watchers.ts";
import { openDialog } from "../parts/dialog.tsx";
import { Empty, ListState } from "../parts/empty.tsx";
import { lazy } from "../parts/lazy.tsx";
import { Nothing } from "../parts/nothing.tsx";
import { Picker } from "../parts/picker.tsx";
import { type Column, Rows } from "../parts/rows.tsx";
import { Status } from "../parts/status.tsx";
import { Ago, Since } from "../parts/time.tsx";
import { TimelineBar } from "../parts/timeline.tsx";
import { goTo, linkTo, route, setQuery } from "../route.ts";
import { dayMs, hourMs, lengthText } from "../times.ts";
import { attentionReasons, attentionWord, runStatuses, runWord, skipWord, sourceWord } from "../words.ts";
import type { PageBulkKind } from "./bulk.tsx";

export function RunsView() {
  const { query } = route.value;
  const [state, device, watcher, attention, label, since] = filterNames.map(
    (name) => query.get(name) ?? "",
  ) as [string, string, string, string, string, string];
  const wanted = new Set(state.split(",").filter(Boolean));
  useEffect(() => {
    const statuses = runStatuses.filter(({ name }) => wanted.has(name)).map(({ status }) => status);
    const reasons = attentionReasons.flatMap(({ name, reason }) => (name === attention ? [reason] : []));
    const isAny = attention !== "" && reasons.length === 0;
    const filter = { statuses, deviceId: device, watcherId: watcher, label, sinceMs: sinceOf(since) };
    setFilter({ ...filter, attention: isAny ? "any" : reasons });
  }, [state, device, watcher, attention, label, since]);
  useEffect(() => runs.show(), []);
  useEffect(() => devices.show(), []);
  const startBulk = (kind: PageBulkKind) => {
    const statuses = runStatuses.filter(({ name }) => wanted.has(name)).map(({ status }) => status);
    const filter = { statuses, deviceId: device, watcherId: watcher, label, sinceMs: sinceOf(since) };
    openDialog(<BulkDialog kind={kind} filter={filter} />);
  };

  const items = runs.items.value;
  const isFiltered = state + device + watcher + attention + label + since !== "";
  return (
    <>
      <div class="tools">
        <h1 class="unseen">Runs</h1>
        <StateChips wanted={wanted} />
        <Pickers {...{ device, watcher, attention, label, since }} />
        {may("write") && <BulkButtons isDisabled={attention !== ""} start={startBulk} />}
      </div>
      {items.length > 0 ? (
        <Rows
          label="Runs"
          class="runs"
          items={items}
          keyOf={(run) => run.id}
          columns={columns}
          open={(run) => goTo("runs", run.id)}
          onEnd={showOlder}
          hasMore={hasOlder.value}
        />
      ) : (
        <NoRuns isFiltered={isFiltered} />
      )}
    </>
  );
}

function Pickers(props: Record<"device" | "watcher" | "attention" | "label" | "since", string>) {
  const pickers = [
    { name: "device", label: "Device", none: "any device", options: deviceOptions.value },
    {
      name: "watcher",
      label: "Watcher",
      none: "any watcher",
      options: watchers.items.value.map(({ id, slug }) => ({ value: id, label: slug })),
    },
    { name: "attention", label: "Attention", none: "any attention", options: attentionOptions },
    { name: "label", label: "Label", none: "any label", options: labelOptions.value },
    { name: "since", label: "Since", none: "any time", options: sinceOptions },
  ] as const;
  return (
    <>
      {pickers.map(({ name, ...picker }) => (
        <Picker
          key={name}
          {...picker}
          value={props[name]}
          onChange={(value) => setQuery({ [name]: value })}
        />
      ))}
    </>
  );
}

/** A button for each state of runs; several may be pressed. */
function StateChips({ wanted }: { wanted: ReadonlySet<string> }) {
  const toggle = (name: string) => {
    const next = new Set(wanted);
    if (!next.delete(name)) next.add(name);
    setQuery({ state: [...next].join(",") });
  };
  return (
    <div class="chips" role="group" aria-label="State">
      <button
        type="button"
        aria-pressed={wanted.size === 0}
        onClick={() => setQuery({ state: "" })}
        data-filter
      >
        all
      </button>
      {runStatuses.map(({ name }) => (
        <button key={name} type="button" aria-pressed={wanted.has(name)} onClick={() => toggle(name)}>
          <Status word={name} />
        </button>
      ))}
    </div>
  );
}

function BulkButtons(props: { isDisabled: boolean; start: (kind: PageBulkKind) => void }) {
  const title = props.isDisabled ? "without the filter of attention" : undefined;
  return (
    <span class="bulk-actions">
      <button
        type="button"
        disabled={props.isDisabled}
        title={title}
        onClick={() => props.start(BulkKind.RETRY)}
      >
        Retry all…
      </button>
      <button
        type="button"
        disabled={props.isDisabled}
        title={title}
        onClick={() => props.start(BulkKind.CANCEL)}
      >
        Cancel all…
      </button>
    </span>
  );
}

function NoRuns({ isFiltered }: { isFiltered: boolean }) {
  if (runs.state.value !== "ready") return <ListState of={runs} />;
  if (isFiltered) {
    return (
      <Empty title="No run matches">
        <p>Nothing is in this state, or from this watcher, device and time.</p>
        <button
          type="button"
          onClick={() => setQuery(Object.fromEntries(filterNames.map((name) => [name, ""])))}
        >
          Show all runs
        </button>
      </Empty>
    );
  }
  return (
    <Empty title="No run yet">
      <p>A run is one execution of a watcher. They appear here the moment they are due.</p>
      {devices.items.value.length === 0 ? (
        <a class="button primary" href={linkTo("fleet")}>
          Add a device first
        </a>
      ) : watchers.items.value.length === 0 ? (
        <a class="button primary" href={linkTo("watchers")}>
          Create a watcher first
        </a>
      ) : (
        <a class="button primary" href={linkTo("watchers")}>
          To the watchers, to trigger one
        </a>
      )}
    </Empty>
  );
}

const filterNames = ["state", "device", "watcher", "attention", "label", "since"] as const;

const sinceOptions = [
  { value: "1h", label: "the last hour", ms: hourMs },
  { value: "24h", label: "the last day", ms: dayMs },
  { value: "7d", label: "the last 7 days", ms: 7 * dayMs },
  { value: "30d", label: "the last 30 days", ms: 30 * dayMs },
];

/** The moment of a choice; undefined: from the beginning. */
function sinceOf(since: string): number | undefined {
  const found = sinceOptions.find(({ value }) => value === since);
  return found && serverNow() - found.ms;
}

/** The labels of the devices, by name. */
const labelOptions = computed(() => {
  const labels = devices.items.value.flatMap((device) => [...device.labels, ...device.reportedLabels]);
  return [...new Set(labels)].sort().map((label) => ({ value: label, label }));
});

const BulkDialog = lazy(async () => (await import("./bulk.tsx")).default);

const attentionOptions = [
  { value: "any", label: "to look at, for any reason" },
  ...attentionReasons.map(({ name, label }) => ({ value: name, label })),
];

const columns: Column<Run>[] = [
  {
    name: "state",
    title: "State",
    cell: (run) => (
      <>
        <Status word={runWord(run.status)} />
        {run.attention.length > 0 && (
          <span class="wants-look" title={run.attention.map(attentionWord).join(", ")}>
            look
          </span>
        )}
      </>
    ),
  },
  {
    name: "name",
    title: "Run",
    cell: (run, isActive) => (
      <>
        <a href={linkTo("runs", run.id)} tabIndex={isActive ? 0 : -1}>
          {run.watcherSlug || slugOf(run.watcherId)}
        </a>{" "}
        <code title={run.id}>{run.id.slice(-8)}</code>
      </>
    ),
  },
  { name: "device", title: "Device", cell: (run) => (run.deviceId ? labelOf(run.deviceId) : <Nothing />) },
  { name: "source", title: "Source", cell: (run) => sourceWord(run.source) },
  { name: "due", title: "Due", cell: (run) => <Ago at={run.dueAt} /> },
  { name: "way", title: "Due → stored", cell: (run) => <TimelineBar run={run} /> },
  { name: "took", title: "Took", cell: (run) => <Took run={run} /> },
  {
    name: "reason",
    title: "Why",
    cell: (run) => {
      const text = [skipWord(run.skipReason), run.reason].filter(Boolean).join(": ");
      return <span title={text}>{text}</span>;
    },
  },
];

function Took({ run }: { run: Run }) {
  if (run.duration) return <>{lengthText(durationMs(run.duration))}</>;
  if (run.startedAt && !run.finishedAt) return <Since at={run.startedAt} />;
  return <Nothing />;
}
