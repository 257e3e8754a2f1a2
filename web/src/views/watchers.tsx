import { timestampMs } from "@bufbuild/protobuf/wkt";
import { useEffect, useMemo } from "preact/hooks";
import { type Watcher, WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import { watchers as api } from "../data/api.ts";
import { devices, labelOf } from "../data/devices.ts";
import { watchers } from "../data/watchers.ts";
import { openDialog } from "../parts/dialog.tsx";
import { Empty, ListState } from "../parts/empty.tsx";
import { FilterBox } from "../parts/filter.tsx";
import { Nothing } from "../parts/nothing.tsx";
import { type Column, Rows } from "../parts/rows.tsx";
import { Sparkline } from "../parts/sparkline.tsx";
import { Status } from "../parts/status.tsx";
import { Ago } from "../parts/time.tsx";
import { attempt } from "../parts/toasts.tsx";
import { goTo, linkTo, route, setQuery } from "../route.ts";
import { scheduleText } from "../schedule-words.ts";
import { isSameClock, slotText, slotThereText, viewerZone } from "../times.ts";
import { runWord, skipWord, watcherWord } from "../words.ts";
import { WatcherDialog } from "./watcher-form.tsx";

export function WatchersView() {
  useEffect(() => watchers.show(), []);
  const text = route.value.query.get("q") ?? "";
  const all = watchers.items.value;
  // The filter also searches device labels.
  const labels = devices.items.value;
  const shown = useMemo(() => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return words.length === 0
      ? all
      : all.filter((watcher) => words.every((word) => textOf(watcher).includes(word)));
  }, [all, labels, text]);
  const create = () => openDialog(<WatcherDialog />);

  if (all.length === 0 && watchers.state.value !== "ready") return <ListState of={watchers} />;
  if (all.length === 0) {
    return (
      <Empty title="No watcher yet">
        <p>A watcher is a standing instruction: what to do, when, and on which device.</p>
        <button type="button" class="primary" onClick={create}>
          Create a watcher
        </button>
      </Empty>
    );
  }
  return (
    <>
      <div class="tools">
        <h1 class="unseen">Watchers</h1>
        <FilterBox value={text} hint="Filter watchers" onInput={(value) => setQuery({ q: value })} />
        <span class="muted">times in {viewerZone}, and in the watcher’s zone where it differs</span>
        <button type="button" class="primary end" onClick={create}>
          Create a watcher
        </button>
      </div>
      <Rows
        label="Watchers"
        class="watchers"
        items={shown}
        keyOf={(watcher) => watcher.id}
        columns={columns}
      />
      {shown.length === 0 && <Empty title="No watcher matches" />}
    </>
  );
}

function textOf(watcher: Watcher): string {
  const { slug, id, spec, status } = watcher;
  const device = spec?.deviceId ? labelOf(spec.deviceId) : "";
  return [slug, id, spec?.name, spec?.agentId, spec?.schedule, watcherWord(status), device]
    .join(" ")
    .toLowerCase();
}

const columns: Column<Watcher>[] = [
  {
    name: "name",
    title: "Watcher",
    cell: (watcher, isActive) => (
      <>
        <div class="line">
          <a href={linkTo("watchers", watcher.slug)} tabIndex={isActive ? 0 : -1}>
            {watcher.spec?.name || watcher.slug}
          </a>
          <Status word={statusWord(watcher)} />
        </div>
        <div class="line">
          <code>{watcher.slug}</code>
          <span class="muted">{executorOf(watcher)}</span>
        </div>
        {watcher.noExecutorReason !== "" && (
          <div class="line bad-text" title={watcher.noExecutorReason}>
            {watcher.noExecutorReason}
          </div>
        )}
        {watcher.status === WatcherStatus.PAUSED && watcher.pausedReason ? (
          <div class="line muted" title={watcher.pausedReason}>
            {watcher.pausedReason}
          </div>
        ) : (
          watcher.consecutiveFailures > 1 && (
            <div class="line bad-text">{watcher.consecutiveFailures} failures in a row</div>
          )
        )}
      </>
    ),
  },
  {
    name: "schedule",
    title: "Schedule",
    cell: (watcher) => (
      <>
        <div class="line clamp" title={scheduleText(watcher.spec?.schedule ?? "")}>
          {scheduleText(watcher.spec?.schedule ?? "")}
        </div>
        {watcher.spec?.schedule && (
          <div class="line">
            <code>{watcher.spec.schedule}</code> <span class="muted">{watcher.spec.timeZone || "UTC"}</span>
          </div>
        )}
      </>
    ),
  },
  { name: "next", title: "Next three", cell: (watcher) => <NextSlots watcher={watcher} /> },
  {
    name: "last",
    title: "Last result",
    cell: (watcher, isActive) => <LastResult watcher={watcher} isActive={isActive} />,
  },
  {
    name: "recent",
    title: "Last 30 runs",
    cell: (watcher) => <Sparkline runs={watcher.recentRuns} />,
  },
  {
    name: "actions",
    title: "Actions",
    cell: (watcher, isActive) => <Actions watcher={watcher} isActive={isActive} />,
  },
];

/** An active watcher without an executor continues by itself when an executor returns. */
function statusWord({ status, noExecutorReason }: Watcher): string {
  const isWithout = noExecutorReason !== "" && status === WatcherStatus.ACTIVE;
  return watcherWord(isWithout ? WatcherStatus.NO_EXECUTOR : status);
}

function executorOf({ spec, status }: Watcher): string {
  if (spec?.deviceId) return `on ${labelOf(spec.deviceId)}`;
  if (spec?.selector) return `where ${spec.selector}`;
  return status === WatcherStatus.NO_EXECUTOR ? "its device was deleted" : "any fleet worker";
}

function NextSlots({ watcher }: { watcher: Watcher }) {
  const zone = watcher.spec?.timeZone || "UTC";
  if (watcher.nextSlots.length === 0) {
    return <span class="muted">{whyNoSlot(watcher)}</span>;
  }
  return (
    <ol class="slots-list">
      {watcher.nextSlots.map((slot) => {
        const at = timestampMs(slot);
        return (
          <li key={at}>
            <time dateTime={new Date(at).toISOString()}>{slotText(at)}</time>
            {!isSameClock(at, zone) && (
              <small title={zone}>
                {" "}
                {slotThereText(at, zone)} {cityOf(zone)}
              </small>
            )}
          </li>
        );
      })}
    </ol>
  );
}

function whyNoSlot({ spec, status }: Watcher): string {
  if (!spec?.schedule) return "when it is triggered";
  if (status === WatcherStatus.RESTING) return "it has fired, and rests";
  return status === WatcherStatus.PAUSED ? "not while it is paused" : "never again";
}

/** City of a zone: "Europe/Berlin" is too long for a table. */
const cityOf = (zone: string) => zone.split("/").at(-1)!.replaceAll("_", " ");

function LastResult({ watcher, isActive }: { watcher: Watcher; isActive: boolean }) {
  if (watcher.activeRunId) {
    return (
      <a href={linkTo("runs", watcher.activeRunId)} tabIndex={isActive ? 0 : -1}>
        <span class="status busy">
          <i aria-hidden="true" />
          active run
        </span>
      </a>
    );
  }
  const last = watcher.recentRuns[0];
  if (!last) return <Nothing />;
  return (
    <a href={linkTo("runs", last.id)} tabIndex={isActive ? 0 : -1}>
      <Status word={runWord(last.status)} />
      <small>
        {" "}
        {skipWord(last.skipReason)} <Ago at={last.finishedAt ?? last.dueAt} />
      </small>
    </a>
  );
}

function Actions({ watcher, isActive }: { watcher: Watcher; isActive: boolean }) {
  const tabIndex = isActive ? 0 : -1;
  const name = watcher.spec?.name || watcher.slug;
  const isPaused = watcher.status === WatcherStatus.PAUSED;
  return (
    <>
      <button
        type="button"
        class="quiet"
        tabIndex={tabIndex}
        aria-label={`Trigger ${name}`}
        onClick={() => trigger(watcher)}
      >
        Trigger
      </button>
      <button
        type="button"
        class="quiet"
        tabIndex={tabIndex}
        aria-label={`${isPaused ? "Resume" : "Pause"} ${name}`}
        onClick={() => (isPaused ? resume(watcher) : pause(watcher))}
      >
        {isPaused ? "Resume" : "Pause"}
      </button>
      <button
        type="button"
        class="quiet"
        tabIndex={tabIndex}
        aria-label={`Edit ${name}`}
        onClick={() => openDialog(<WatcherDialog watcher={watcher} />)}
      >
        Edit
      </button>
    </>
  );
}

async function trigger({ id, slug }: Watcher): Promise<void> {
  await attempt(async () => {
    const { run, alreadyQueued } = await api.triggerWatcher({ watcherId: id });
    if (run) goTo("runs", run.id);
    return alreadyQueued ? `${slug} has an active run already: this one.` : `${slug} was triggered.`;
  });
}

async function pause({ id, slug }: Watcher): Promise<void> {
  await attempt(async () => {
    await api.pauseWatcher({ watcherId: id, reason: "paused on the web page" });
    watchers.touch(id);
    return `${slug} is paused. It can still be triggered.`;
  });
}

async function resume({ id, slug }: Watcher): Promise<void> {
  await attempt(async () => {
    await api.resumeWatcher({ watcherId: id });
    watchers.touch(id);
    return `${slug} fires again.`;
  });
}
