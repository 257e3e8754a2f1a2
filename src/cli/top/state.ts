/** What `pinion top` shows, and how each key changes it. Pure: the effects are the caller's. */
import type { Device } from "#gen/pinion/v1/fleet_pb.js";
import { type Run, RunStatus } from "#gen/pinion/v1/run_pb.js";
import * as words from "../print/words.ts";

export type Pane = "runs" | "fleet";
export type Mode = "list" | "filter" | "confirm" | "detail";

export type TopState = {
  devices: readonly Device[];
  /** Newest first. */
  runs: readonly Run[];
  pane: Pane;
  mode: Mode;
  /** The marked row of each pane, by id, so that a new row does not move the mark. */
  marked: Record<Pane, string>;
  filter: string;
  /** The opened run or device, as lines. */
  detail: { title: string; lines: readonly string[]; top: number };
  /** A line for the person, until the next key. */
  message: string;
  /** False while the stream of events is away. */
  isLive: boolean;
};

export type Effect =
  | { kind: "quit" }
  | { kind: "open"; pane: Pane; id: string }
  | { kind: "cancel"; runId: string };

export const emptyState: TopState = {
  devices: [],
  runs: [],
  pane: "runs",
  mode: "list",
  marked: { runs: "", fleet: "" },
  filter: "",
  detail: { title: "", lines: [], top: 0 },
  message: "",
  isLive: false,
};

const filterCharactersMax = 60;
/** Rows moved by a page key. */
const pageRows = 10;
const active: ReadonlySet<RunStatus> = new Set([RunStatus.PENDING, RunStatus.CLAIMED, RunStatus.RUNNING]);

export const isActive = (run: Run) => active.has(run.status);

/** The rows of a pane after the filter. */
export function shown(state: TopState): { runs: readonly Run[]; devices: readonly Device[] } {
  const wanted = state.filter.toLowerCase();
  if (wanted === "") return { runs: state.runs, devices: state.devices };
  const labels = new Map(state.devices.map(({ id, label }) => [id, label]));
  const fits = (...texts: string[]) => texts.some((text) => text.toLowerCase().includes(wanted));
  return {
    runs: state.runs.filter((run) =>
      fits(run.id, run.watcherSlug, words.runStatus.word(run.status), labels.get(run.deviceId) ?? ""),
    ),
    devices: state.devices.filter((device) =>
      fits(device.id, device.label, words.liveness.word(device.liveness), ...device.labels),
    ),
  };
}

export function idsOf(state: TopState): string[] {
  const { runs, devices } = shown(state);
  return (state.pane === "runs" ? runs : devices).map(({ id }) => id);
}

/** The marked row, or the first. */
export function markedId(state: TopState): string {
  const ids = idsOf(state);
  const marked = state.marked[state.pane];
  return ids.includes(marked) ? marked : (ids[0] ?? "");
}

/** The state after a key, and what the key asks for. Keys are names, or single characters. */
export function press(state: TopState, key: string): { state: TopState; effect?: Effect } {
  if (key === "ctrl-c") return { state, effect: { kind: "quit" } };
  const clean = { ...state, message: "" };
  switch (state.mode) {
    case "filter":
      return { state: typed(clean, key) };
    case "confirm":
      return confirmed(clean, key);
    case "detail":
      return inDetail(clean, key);
    case "list":
      return inList(clean, key);
  }
}

function inList(state: TopState, key: string): { state: TopState; effect?: Effect } {
  const id = markedId(state);
  switch (key) {
    case "q":
      return { state, effect: { kind: "quit" } };
    case "escape":
      return { state: { ...state, filter: "" } };
    case "/":
      return { state: { ...state, mode: "filter" } };
    case "tab":
      return { state: { ...state, pane: state.pane === "runs" ? "fleet" : "runs" } };
    case "enter":
      return id === "" ? { state } : { state, effect: { kind: "open", pane: state.pane, id } };
    case "c":
      return { state: asked(state, id) };
    default:
      return { state: moved(state, steps[key] ?? 0) };
  }
}

const steps: Record<string, number> = {
  ...{ j: 1, down: 1, k: -1, up: -1, pagedown: pageRows, pageup: -pageRows },
  ...{ g: -Infinity, home: -Infinity, G: Infinity, end: Infinity },
};

function moved(state: TopState, by: number): TopState {
  const ids = idsOf(state);
  if (by === 0 || ids.length === 0) return state;
  const place = Math.min(ids.length - 1, Math.max(0, ids.indexOf(markedId(state)) + by));
  return { ...state, marked: { ...state.marked, [state.pane]: ids[place] } };
}

/** The question before a cancel. */
function asked(state: TopState, id: string): TopState {
  const run = state.pane === "runs" ? state.runs.find((run) => run.id === id) : undefined;
  if (!run) return { ...state, message: "c cancels a run: mark one in the list of runs" };
  if (!isActive(run)) return { ...state, message: `the run is ${words.runStatus.word(run.status)} already` };
  return { ...state, mode: "confirm", marked: { ...state.marked, runs: id } };
}

function confirmed(state: TopState, key: string): { state: TopState; effect?: Effect } {
  const list: TopState = { ...state, mode: "list" };
  if (key !== "y") return { state: { ...list, message: "nothing was cancelled" } };
  return { state: list, effect: { kind: "cancel", runId: state.marked.runs } };
}

function typed(state: TopState, key: string): TopState {
  if (key === "enter") return { ...state, mode: "list" };
  if (key === "escape") return { ...state, mode: "list", filter: "" };
  if (key === "backspace") return { ...state, filter: state.filter.slice(0, -1) };
  if ([...key].length !== 1) return state;
  return { ...state, filter: (state.filter + key).slice(0, filterCharactersMax) };
}

function inDetail(state: TopState, key: string): { state: TopState; effect?: Effect } {
  if (["q", "escape", "enter", "left"].includes(key)) return { state: { ...state, mode: "list" } };
  const last = Math.max(0, state.detail.lines.length - 1);
  const top = Math.min(last, Math.max(0, state.detail.top + (steps[key] ?? 0)));
  return { state: { ...state, detail: { ...state.detail, top } } };
}
