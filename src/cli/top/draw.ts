/** A frame of `pinion top` as lines, each at most as wide as the terminal. */
import { stripVTControlCharacters } from "node:util";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Device, Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { type Run, RunStatus } from "#gen/pinion/v1/run_pb.js";
import type { Cli } from "../cli.ts";
import { type Column, plain, table } from "../print/table.ts";
import { formatAgo } from "../print/times.ts";
import { cut, displayWidth, padded } from "../print/width.ts";
import * as words from "../print/words.ts";
import { isActive, markedId, shown, type TopState } from "./state.ts";

export type Frame = { columns: number; rows: number; now: number; url: string };

/** Rows of the fleet, at most, while the runs are in front. */
const fleetRowsMin = 4;
/** Below this width a device's and a run's less important columns are left out. */
const narrowColumns = 72;
/** Characters of a run's id; the end, because the beginning is the time. */
const idCharacters = 8;

export function draw(cli: Cli, state: TopState, frame: Frame): string[] {
  const body = frame.rows - 2;
  const middle = state.mode === "detail" ? detail(cli, state, body) : lists(cli, state, frame, body);
  const lines = [head(cli, state, frame), ...middle, foot(cli, state)];
  return lines.map((line) => fitted(line, frame.columns));
}

/** Cut to the width; a cut line loses its colours. */
function fitted(line: string, columns: number): string {
  return displayWidth(line) <= columns ? line : cut(stripVTControlCharacters(line), columns);
}

function head(cli: Cli, state: TopState, { url, columns }: Frame): string {
  const { bold, dim, green, yellow } = cli.colors;
  const online = state.devices.filter(({ liveness }) => liveness === Liveness.ONLINE).length;
  const count = (status: RunStatus) => state.runs.filter((run) => run.status === status).length;
  const parts = [
    bold("pinion"),
    ...(columns < narrowColumns ? [] : [dim(url)]),
    `${online}/${state.devices.length} devices`,
    `${count(RunStatus.RUNNING) + count(RunStatus.CLAIMED)} running`,
    `${count(RunStatus.PENDING)} waiting`,
    state.isLive ? green("live") : yellow("reconnecting"),
  ];
  return parts.join("  ");
}

function foot(cli: Cli, state: TopState): string {
  const { dim, yellow, inverse } = cli.colors;
  if (state.mode === "filter") return `/${state.filter}${inverse(" ")}`;
  if (state.mode === "confirm") return yellow(`cancel run ${state.marked.runs.slice(-idCharacters)}? y/n`);
  if (state.message !== "") return yellow(state.message);
  if (state.mode === "detail") return dim("j/k scroll  q back");
  const filter = state.filter === "" ? "/ filter" : `/${state.filter} (esc clears)`;
  return dim(
    `j/k move  enter open  c cancel  ${filter}  tab ${state.pane === "runs" ? "fleet" : "runs"}  q quit`,
  );
}

function lists(cli: Cli, state: TopState, frame: Frame, rows: number): string[] {
  const { runs, devices } = shown(state);
  const isNarrow = frame.columns < narrowColumns;
  const labels = new Map(state.devices.map(({ id, label }) => [id, plain(label)]));
  const wantedFleet = devices.length + 1;
  const most = state.pane === "fleet" ? rows - fleetRowsMin : Math.max(fleetRowsMin, Math.floor(rows / 3));
  const fleetRows = Math.min(wantedFleet, Math.max(2, most));
  const marked = markedId(state);
  const part = <Row extends { id: string }>(
    items: readonly Row[],
    columns: readonly Column<Row>[],
    options: { rows: number; isInFront: boolean; none: string },
  ) => window(cli, items, columns, { ...options, width: frame.columns, marked });
  return filled(
    [
      ...part(devices, deviceColumns(cli, isNarrow, frame.now), {
        ...{ rows: fleetRows, isInFront: state.pane === "fleet", none: "no device" },
      }),
      ...part(runs, runColumns(cli, labels, isNarrow, frame.now), {
        ...{ rows: rows - fleetRows, isInFront: state.pane === "runs", none: "no run" },
      }),
    ],
    rows,
  );
}

/** The part of a table around the marked row, with its header. */
function window<Row extends { id: string }>(
  cli: Cli,
  items: readonly Row[],
  columns: readonly Column<Row>[],
  options: { rows: number; width: number; marked: string; isInFront: boolean; none: string },
): string[] {
  const { rows, width, marked, isInFront, none } = options;
  if (items.length === 0) return [cli.colors.dim(none)];
  const place = Math.max(
    0,
    items.findIndex(({ id }) => id === marked),
  );
  const space = Math.max(1, rows - 1);
  const from = isInFront ? Math.max(0, Math.min(place - Math.floor(space / 2), items.length - space)) : 0;
  const seen = items.slice(from, from + space);
  const [header = "", ...lines] = table(seen, columns, width, { isAligned: true });
  return [
    cli.colors.dim(header),
    ...lines.map((line, index) =>
      isInFront && seen[index]?.id === marked
        ? cli.colors.inverse(padded(stripVTControlCharacters(line), width))
        : line,
    ),
  ];
}

function filled(lines: string[], rows: number): string[] {
  return [...lines.slice(0, rows), ...Array.from({ length: Math.max(0, rows - lines.length) }, () => "")];
}

function detail(cli: Cli, { detail }: TopState, rows: number): string[] {
  const seen = detail.lines.slice(detail.top, detail.top + rows - 1);
  return filled([cli.colors.bold(detail.title), ...seen], rows);
}

function deviceColumns(cli: Cli, isNarrow: boolean, now: number): Column<Device>[] {
  const columns: Column<Device>[] = [
    { header: "DEVICE", cell: ({ label }) => plain(label), isFlexible: true },
    { header: "STATE", cell: (device) => words.paintState(cli, words.liveness.word(device.liveness)) },
    { header: "SLOTS", cell: (device) => `${device.activeRuns}/${device.maxConcurrency}`, align: "right" },
    { header: "WAIT", cell: ({ pendingRuns }) => String(pendingRuns), align: "right" },
  ];
  if (isNarrow) return columns;
  return [
    ...columns,
    { header: "BEAT", cell: (device) => formatAgo(device.lastBeatAt, now) },
    { header: "DAEMON", cell: ({ appVersion }) => plain(appVersion) },
  ];
}

function runColumns(cli: Cli, labels: Map<string, string>, isNarrow: boolean, now: number): Column<Run>[] {
  const device: Column<Run> = {
    header: "DEVICE",
    cell: ({ deviceId }) => cut(labels.get(deviceId) || deviceId.slice(-idCharacters), 20),
  };
  return [
    { header: "RUN", cell: ({ id }) => id.slice(-idCharacters) },
    { header: "WATCHER", cell: (run) => plain(run.watcherSlug || run.watcherId), isFlexible: true },
    { header: "STATUS", cell: (run) => words.paintState(cli, words.runStatus.word(run.status)) },
    ...(isNarrow ? [] : [device]),
    { header: "TIME", cell: (run) => timeOf(run, now), align: "right" },
    ...(isNarrow ? [] : [{ header: "WHY", cell: (run: Run) => cut(plain(run.reason), 40) }]),
  ];
}

/** How long an active run has taken since it was due; when an ended run ended. */
function timeOf(run: Run, now: number): string {
  if (!isActive(run)) return formatAgo(run.finishedAt, now);
  const since = run.startedAt ?? run.dueAt;
  return since ? formatAgo(since, Math.max(now, timestampMs(since))).replace(" ago", "") : "";
}
