import type { Device } from "#gen/pinion/v1/fleet_pb.js";
import { type Run, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { runs } from "../data/api.ts";
import { barsOf, countRuns, ranges } from "../data/counts.ts";
import { useReading } from "../data/reading.ts";
import { Bars } from "../parts/bars.tsx";
import { Status } from "../parts/status.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo } from "../route.ts";
import { runWord } from "../words.ts";

const runsShown = 15;

export function Work({ device }: { device: Device }) {
  const of = (statuses: RunStatus[]) =>
    useReading(
      (signal) => runs.listRuns({ deviceId: device.id, statuses, pageSize: runsShown }, { signal }),
      [device.id],
      ({ deviceId, kind }) => deviceId === device.id && kind.startsWith("run."),
    );
  const running = of([RunStatus.CLAIMED, RunStatus.RUNNING]);
  const waiting = of([RunStatus.PENDING]);
  const ended = of([RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.TIMEOUT, RunStatus.CANCELLED]);
  return (
    <>
      <RunsSheet
        title={`Running, ${device.activeRuns} of ${device.maxConcurrency} slots`}
        none="It is free."
        reading={running}
      />
      {(waiting.value.value?.runs.length ?? 0) > 0 && (
        <RunsSheet title={`Waiting for it, ${device.pendingRuns}`} none="" reading={waiting} />
      )}
      <RunsSheet
        title="Ended"
        none="Nothing has run here."
        reading={ended}
        all={linkTo("runs", "", { device: device.id })}
      />
    </>
  );
}

function RunsSheet(props: {
  title: string;
  none: string;
  reading: ReturnType<typeof useReading<{ runs: Run[] }>>;
  all?: string;
}) {
  const found = props.reading.value.value?.runs;
  return (
    <section class="sheet" aria-label={props.title}>
      <h2>
        {props.title}{" "}
        {props.all && (
          <small>
            <a href={props.all}>all</a>
          </small>
        )}
      </h2>
      {!found ? (
        <ReadingState error={props.reading.error.value} again={props.reading.again} />
      ) : found.length === 0 ? (
        <p class="muted">{props.none}</p>
      ) : (
        <Table
          label={props.title}
          items={found}
          keyOf={({ id }) => id}
          columns={[
            { title: "State", cell: (run) => <Status word={runWord(run.status)} /> },
            {
              title: "Watcher",
              cell: (run) => <a href={linkTo("runs", run.id)}>{run.watcherSlug || run.id.slice(-8)}</a>,
            },
            { title: "Due", cell: (run) => <Ago at={run.dueAt} /> },
            { title: "Why", class: "wide-cell", cell: (run) => run.reason },
          ]}
        />
      )}
    </section>
  );
}

export function Over({ device }: { device: Device }) {
  const range = ranges[1]!;
  const reading = useReading(
    (signal) => countRuns(range, { deviceId: device.id }, signal),
    [device.id],
    ({ deviceId, kind }) => deviceId === device.id && /^run\.(completed|failed|timeout|cancelled)/.test(kind),
  );
  if (!reading.value.value) return null;
  return (
    <section class="sheet" aria-label="Runs of 7 days">
      <h2>Runs of 7 days</h2>
      <Bars label="Runs of 7 days by how they ended" bars={barsOf(range, reading.value.value)} />
    </section>
  );
}

/** The daemon's version, beside the server's, and who upgrades the daemon. */
