/** Items in need of a person: questions, failures, missed devices, budgets. */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { ComponentChildren } from "preact";
import { type Device, Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { type Run, type RunQuestion, RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import { type Watcher, WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import { runs as api } from "../data/api.ts";
import { now } from "../data/clock.ts";
import { devices, labelOf } from "../data/devices.ts";
import { endsRuns } from "../data/live.ts";
import { useReading } from "../data/reading.ts";
import { slugOf, watchers } from "../data/watchers.ts";
import { Ago } from "../parts/time.tsx";
import { linkTo } from "../route.ts";
import { dayMs } from "../times.ts";
import { attentionWord, runWord } from "../words.ts";

const shownMax = 24;
const lookedAtMax = 50;

type Need = { key: string; tone: string; word: string; text: ComponentChildren; link: string };

/** Items in need of attention; without any, advice for the next step. */
export function Needs() {
  const asked = useReading(
    (signal) => api.listQuestions({ isOpen: true, pageSize: lookedAtMax }, { signal }),
    [],
    (event) => event.kind.startsWith("run.question") || endsRuns(event),
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
  const needs: Need[] = [
    ...(asked.value.value?.questions ?? []).map(questionNeed),
    ...watchers.items.value.flatMap(watcherNeeds),
    ...(attention.value.value?.runs ?? []).filter((run) => endedSince(run, since)).map(attentionNeed),
    ...devices.items.value.filter(isMissed).map(missedNeed),
    ...devices.items.value.filter(({ configProblem }) => configProblem !== "").map(configNeed),
    ...limitNeeds((skipped.value.value?.runs ?? []).filter((run) => endedSince(run, since))),
  ];
  return (
    <section class="sheet" aria-label="What needs somebody">
      <h2>
        Needs you <small>{needs.length === 0 ? "" : needs.length}</small>
      </h2>
      {needs.length === 0 ? <AllWell /> : <NeedList needs={needs.slice(0, shownMax)} />}
      {needs.length > shownMax && <p class="muted">and {needs.length - shownMax} more</p>}
    </section>
  );
}

function NeedList({ needs }: { needs: Need[] }) {
  return (
    <ul class="needs">
      {needs.map(({ key, tone, word, text, link }) => (
        <li key={key}>
          <span class={`status ${tone}`}>
            <i aria-hidden="true" />
            {word}
          </span>
          <a href={link}>{text}</a>
        </li>
      ))}
    </ul>
  );
}

const endedSince = ({ finishedAt }: Run, since: number) =>
  finishedAt !== undefined && timestampMs(finishedAt) >= since;

function questionNeed({ runId, watcherSlug, question, deadlineAt }: RunQuestion): Need {
  return {
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
  };
}

/** A watcher without executor, a paused watcher, or a watcher with a failed last run. */
function watcherNeeds(watcher: Watcher): Need[] {
  const name = watcher.spec?.name || watcher.slug;
  const last = watcher.recentRuns[0];
  const link = linkTo("watchers", watcher.slug);
  if (watcher.status === WatcherStatus.NO_EXECUTOR) {
    return [{ key: `n${watcher.id}`, tone: "bad", word: "no executor", text: <b>{name}</b>, link }];
  }
  if (watcher.status === WatcherStatus.PAUSED) {
    const text = (
      <>
        <b>{name}</b> {watcher.pausedReason}
      </>
    );
    return [{ key: `p${watcher.id}`, tone: "wait", word: "paused", text, link }];
  }
  if (last?.status !== RunStatus.FAILED && last?.status !== RunStatus.TIMEOUT) return [];
  const text = (
    <>
      <b>{name}</b> {watcher.consecutiveFailures > 1 ? `${watcher.consecutiveFailures} times in a row, ` : ""}
      <Ago at={last.finishedAt} />
    </>
  );
  const word = runWord(last.status);
  return [{ key: `f${watcher.id}`, tone: "bad", word, text, link: linkTo("runs", last.id) }];
}

function attentionNeed(run: Run): Need {
  const text = (
    <>
      <b>{run.watcherSlug}</b> {run.attention.map(attentionWord).join(", ")}, <Ago at={run.finishedAt} />
    </>
  );
  return { key: `a${run.id}`, tone: "wait", word: "look", text, link: linkTo("runs", run.id) };
}

/** A device is missed if work waits during its absence. */
function isMissed(device: Device): boolean {
  if (device.isWorker || device.liveness !== Liveness.OFFLINE) return false;
  return device.pendingRuns > 0 || watchers.items.value.some(({ spec }) => spec?.deviceId === device.id);
}

function missedNeed(device: Device): Need {
  const text = (
    <>
      <b>{labelOf(device.id)}</b> since <Ago at={device.disconnectedAt ?? device.lastBeatAt} />
      {device.pendingRuns > 0 &&
        `, ${device.pendingRuns} ${device.pendingRuns === 1 ? "run waits" : "runs wait"}`}
    </>
  );
  return { key: `d${device.id}`, tone: "quiet", word: "offline", text, link: linkTo("fleet", device.id) };
}

function configNeed({ id }: Device): Need {
  const link = linkTo("fleet", id);
  return { key: `c${id}`, tone: "bad", word: "device.toml", text: <b>{labelOf(id)}</b>, link };
}

/** Watchers with slots skipped at a budget or a limit. */
function limitNeeds(skipped: Run[]): Need[] {
  const atLimit = skipped.filter(
    ({ skipReason }) => skipReason === SkipReason.BUDGET || skipReason === SkipReason.LIMIT,
  );
  return [...Map.groupBy(atLimit, ({ watcherId }) => watcherId)].map(([watcherId, slots]) => {
    const text = (
      <>
        <b>{slugOf(watcherId)}</b> {slots.length} {slots.length === 1 ? "slot was" : "slots were"} skipped
        today
      </>
    );
    const link = linkTo("watchers", slugOf(watcherId));
    return { key: `b${watcherId}`, tone: "wait", word: "budget", text, link };
  });
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
