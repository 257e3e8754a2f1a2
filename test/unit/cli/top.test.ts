import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import pc from "picocolors";
import { expect, test } from "vitest";
import { DeviceSchema, Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { RunSchema, RunStatus } from "#gen/pinion/v1/run_pb.js";
import type { Cli } from "../../../src/cli/cli.ts";
import { displayWidth } from "../../../src/cli/print/width.ts";
import { draw } from "../../../src/cli/top/draw.ts";
import { keysOf } from "../../../src/cli/top/keys.ts";
import { emptyState, press, type TopState } from "../../../src/cli/top/state.ts";

const now = Date.parse("2026-03-01T09:00:00Z");
const cli = { colors: pc.createColors(false) } as Cli;

function fleetOf(devices: number, runs: number): TopState {
  return {
    ...emptyState,
    isLive: true,
    devices: Array.from({ length: devices }, (_, n) =>
      create(DeviceSchema, {
        id: `device-${n}`,
        label: `box-${n}`,
        liveness: Liveness.ONLINE,
        maxConcurrency: 2,
      }),
    ),
    runs: Array.from({ length: runs }, (_, n) =>
      create(RunSchema, {
        id: `0198c1de-8a52-7c57-b0d5-0000000${10_000 + n}`,
        watcherSlug: `watcher-${n}`,
        deviceId: `device-${n % Math.max(1, devices)}`,
        status: n === 0 ? RunStatus.RUNNING : RunStatus.COMPLETED,
        startedAt: timestampFromMs(now - 5_000),
        finishedAt: timestampFromMs(now - 60_000),
        reason: "a reason that is rather long, in order to be cut on every screen that people have",
      }),
    ),
  };
}

const keys = (state: TopState, ...pressed: string[]) =>
  pressed.reduce((at, key) => press(at.state, key), { state } as ReturnType<typeof press>);

test.each([40, 60, 80, 200])("a frame of %s columns has its height, and no line is wider", (columns) => {
  for (const rows of [8, 24, 60]) {
    for (const state of [fleetOf(3, 5), fleetOf(500, 300), fleetOf(0, 0)]) {
      const lines = draw(cli, state, { columns, rows, now, url: "https://pinion.example.org" });
      expect(lines).toHaveLength(rows);
      for (const line of lines) expect(displayWidth(line), line).toBeLessThanOrEqual(columns);
    }
  }
});

test("the mark stays on its row when a new run comes in above, and stays in sight", () => {
  const { state } = keys(fleetOf(2, 100), ...Array.from({ length: 60 }, () => "j"));
  const marked = state.marked.runs;
  const first = create(RunSchema, { id: "0198c1de-8a52-7c57-b0d5-999999999999", watcherSlug: "new" });
  const later = { ...state, runs: [first, ...state.runs] };
  expect(later.marked.runs).toBe(marked);
  const lines = draw(cli, later, { columns: 100, rows: 24, now, url: "" });
  expect(lines.join("\n")).toContain("watcher-60");
  expect(keys(later, "k").state.marked.runs).toBe(later.runs[60]!.id);
});

test("a cancel needs a yes, an active run, and the list of runs", () => {
  const state = fleetOf(1, 3);
  const asked = keys(state, "c");
  expect(asked.state.mode).toBe("confirm");
  expect(keys(asked.state, "y").effect).toEqual({ kind: "cancel", runId: state.runs[0]!.id });
  for (const other of ["n", "enter", "escape", "q"]) {
    expect(keys(asked.state, other)).toMatchObject({
      state: { mode: "list", message: "nothing was cancelled" },
    });
    expect(keys(asked.state, other).effect).toBeUndefined();
  }
  expect(keys(state, "j", "c").state).toMatchObject({
    mode: "list",
    message: "the run is completed already",
  });
  expect(keys(state, "tab", "c").state.mode).toBe("list");
});

test("a filter narrows both lists by names, states and ids, and escape clears it", () => {
  const { state } = keys(fleetOf(3, 30), "/", ..."running", "enter");
  const text = draw(cli, state, { columns: 100, rows: 24, now, url: "" }).join("\n");
  expect(text).toContain("watcher-0");
  expect(text).not.toContain("watcher-1 ");
  expect(keys(state, "escape").state.filter).toBe("");
  // While a filter is typed, letters are letters.
  expect(keys(fleetOf(1, 1), "/", "q", "c").state).toMatchObject({ filter: "qc", mode: "filter" });
});

test("foreign texts cannot leave their line or colour the screen", () => {
  const state = fleetOf(1, 1);
  const hostile = create(RunSchema, {
    ...state.runs[0]!,
    reason: "\u001b[2J\u001b]0;x\u0007\nsecond\rthird",
  });
  for (const line of draw(cli, { ...state, runs: [hostile] }, { columns: 120, rows: 12, now, url: "" })) {
    for (const control of ["\n", "\r", "\u0007"]) expect(line).not.toContain(control);
    expect(line).not.toContain("[2J");
  }
});

test("keys come as names, sequences whole, and unknown sequences not at all", () => {
  expect(keysOf("jk\u001b[A\u001bOB\u001b[5~\r\u007f\u0003\u001b[1;5C\u001b")).toEqual([
    ...["j", "k", "up", "down", "pageup", "enter", "backspace", "ctrl-c", "escape"],
  ]);
});
