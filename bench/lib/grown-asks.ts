import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Clients } from "@pinion/client";
import { AttentionReason } from "#gen/pinion/v1/activity_pb.js";
import { DeliveryState } from "#gen/pinion/v1/destination_pb.js";
import { Os } from "#gen/pinion/v1/device_pb.js";
import { Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { BulkKind, RunStatus, UsageGroup } from "#gen/pinion/v1/run_pb.js";
import { TurnStatus } from "#gen/pinion/v1/turn_pb.js";
import { days } from "./grow.ts";

/**
 * What the people of a big org read: lists, pages by token, filters that match little, and
 * summaries.
 */

/** Rows of the big org that the questions name. */
export type Facts = {
  hot: string[];
  idle: string[];
  unrun: string[];
  devices: string[];
  newRuns: string[];
  oldRuns: string[];
  reported: string[];
  waiting: string[];
  conversations: string[];
  turns: string[];
  hook: string;
  firstSeq: string;
  middleSeq: string;
};

export type Ask = (clients: Clients, facts: Facts, nth: number) => Promise<unknown>;

const dayMs = 86_400_000;
const ago = (ms: number) => timestampFromMs(Date.now() - ms);
const of = <T>(rows: readonly T[], nth: number): T => rows[nth % rows.length]!;
/** A token of a page in the middle of the list, made as the server makes it. */
const tokenOf = (list: string, key: unknown) =>
  Buffer.from(JSON.stringify([list, key])).toString("base64url");
const idAt = (ms: number) => {
  const digits = Math.round(ms).toString(16).padStart(12, "0");
  return `${digits.slice(0, 8)}-${digits.slice(8)}-7000-8000-000000000000`;
};
/** A page of runs, or of rows with ids by time, from some days ago. */
const pageAgo = (list: string, nth: number) => tokenOf(list, [idAt(Date.now() - (3 + (nth % 20)) * dayMs)]);

const runLists: Record<string, Ask> = {
  runs: ({ runs }) => runs.listRuns({ pageSize: 100 }),
  "runs, a page of days ago": ({ runs }, _, n) =>
    runs.listRuns({ pageSize: 100, pageToken: pageAgo("ListRuns", n) }),
  "runs of a busy watcher": ({ runs }, f, n) => runs.listRuns({ watcherId: of(f.hot, n) }),
  "failed runs of a busy watcher": ({ runs }, f, n) =>
    runs.listRuns({ watcherId: of(f.hot, n), statuses: [RunStatus.FAILED] }),
  "failed and completed runs of a busy watcher, of a day long ago": ({ runs }, f, n) =>
    runs.listRuns({
      watcherId: of(f.hot, n),
      statuses: [RunStatus.FAILED, RunStatus.COMPLETED],
      since: ago(21 * dayMs),
      until: ago(20 * dayMs),
    }),
  "runs of a busy watcher wanting attention": ({ runs }, f, n) =>
    runs.listRuns({ watcherId: of(f.hot, n), wantsAttention: true }),
  "runs of a watcher that seldom runs": ({ runs }, f, n) => runs.listRuns({ watcherId: of(f.idle, n) }),
  "cancelled runs of a watcher that seldom runs": ({ runs }, f, n) =>
    runs.listRuns({ watcherId: of(f.idle, n), statuses: [RunStatus.CANCELLED] }),
  "runs of a watcher that never ran": ({ runs }, f, n) => runs.listRuns({ watcherId: of(f.unrun, n) }),
  "runs of a device": ({ runs }, f, n) => runs.listRuns({ deviceId: of(f.devices, n) }),
  "failed runs of a device": ({ runs }, f, n) =>
    runs.listRuns({ deviceId: of(f.devices, n), statuses: [RunStatus.FAILED] }),
  "runs of a device and of another's watcher": ({ runs }, f, n) =>
    runs.listRuns({ deviceId: of(f.devices, n), watcherId: of(f.hot, n) }),
  "runs of no device": ({ runs }) => runs.listRuns({ deviceId: "00000000-0000-4000-8000-000000000000" }),
  "failed runs": ({ runs }) => runs.listRuns({ statuses: [RunStatus.FAILED] }),
  "failed runs, a page of days ago": ({ runs }, _, n) =>
    runs.listRuns({ statuses: [RunStatus.FAILED], pageToken: pageAgo("ListRuns", n) }),
  "skipped or cancelled runs": ({ runs }) =>
    runs.listRuns({ statuses: [RunStatus.SKIPPED, RunStatus.CANCELLED], pageSize: 100 }),
  "completed runs": ({ runs }) => runs.listRuns({ statuses: [RunStatus.COMPLETED] }),
  "waiting runs": ({ runs }) => runs.listRuns({ statuses: [RunStatus.PENDING] }),
  "running runs (none)": ({ runs }) => runs.listRuns({ statuses: [RunStatus.RUNNING] }),
  "runs wanting attention": ({ runs }) => runs.listRuns({ wantsAttention: true, pageSize: 100 }),
  "runs with a reason that none has": ({ runs }) =>
    runs.listRuns({ attention: [AttentionReason.QUESTION_EXPIRED] }),
  "runs on devices with a label": ({ runs }) => runs.listRuns({ labels: ["site:7"] }),
  "runs on devices with a rare label": ({ runs }) => runs.listRuns({ labels: ["rare:yes"] }),
  "runs on devices with a label that none has": ({ runs }) => runs.listRuns({ labels: ["none:such"] }),
  "failed runs on devices with a rare label": ({ runs }) =>
    runs.listRuns({ labels: ["rare:yes"], statuses: [RunStatus.FAILED] }),
  "runs since an hour": ({ runs }) => runs.listRuns({ since: ago(3_600_000), pageSize: 100 }),
  "runs of a day long ago": ({ runs }, _, n) =>
    runs.listRuns({ since: ago((10 + (n % 15)) * dayMs), until: ago((9 + (n % 15)) * dayMs) }),
  "runs until weeks ago": ({ runs }) => runs.listRuns({ until: ago(20 * dayMs) }),
  "failed runs until weeks ago": ({ runs }) =>
    runs.listRuns({ until: ago(20 * dayMs), statuses: [RunStatus.FAILED] }),
  "runs before all": ({ runs }) => runs.listRuns({ until: ago(400 * dayMs) }),
};

const singleRuns: Record<string, Ask> = {
  "a run": ({ runs }, f, n) => runs.getRun({ runId: of(f.newRuns, n) }),
  "a run of weeks ago": ({ runs }, f, n) => runs.getRun({ runId: of(f.oldRuns, n) }),
  "an explanation": ({ runs }, f, n) => runs.explainRun({ runId: of(f.oldRuns, n) }),
  "an explanation of a waiting run": ({ runs }, f, n) => runs.explainRun({ runId: of(f.waiting, n) }),
  "a transcript": ({ runs }, f, n) => runs.getTranscript({ runId: of(f.reported, n) }),
  "a run's result": ({ runs }, f, n) => runs.listWindows({ runId: of(f.oldRuns, n) }),
  "a run's events": ({ events }, f, n) => events.listEvents({ runId: of(f.oldRuns, n) }),
  "results of a busy watcher": ({ runs }, f, n) => runs.listWindows({ watcherId: of(f.hot, n) }),
  "results of it, a page of days ago": ({ runs }, f, n) =>
    runs.listWindows({ watcherId: of(f.hot, n), pageToken: pageAgo("ListWindows", n) }),
  "results of a watcher that never ran": ({ runs }, f, n) => runs.listWindows({ watcherId: of(f.unrun, n) }),
};

const summaries: Record<string, Ask> = {
  "counts of a day": ({ runs }) => runs.summarizeRuns({}),
  "counts of a week": ({ runs }) =>
    runs.summarizeRuns({ start: ago(7 * dayMs), span: durationFromMs(6 * 3_600_000) }),
  "counts of a month": ({ runs }) =>
    runs.summarizeRuns({ start: ago(days * dayMs), span: durationFromMs(dayMs) }),
  "counts of a month of a busy watcher": ({ runs }, f, n) =>
    runs.summarizeRuns({ start: ago(days * dayMs), span: durationFromMs(dayMs), watcherId: of(f.hot, n) }),
  "counts of a month of a device": ({ runs }, f, n) =>
    runs.summarizeRuns({ start: ago(days * dayMs), span: durationFromMs(dayMs), deviceId: of(f.devices, n) }),
  "usage of a month by day": ({ runs }) => runs.summarizeUsage({ groupBy: UsageGroup.DAY }),
  "usage of a month by watcher": ({ runs }) => runs.summarizeUsage({ groupBy: UsageGroup.WATCHER }),
  "usage of a month of a watcher": ({ runs }, f, n) =>
    runs.summarizeUsage({ groupBy: UsageGroup.DAY, watcherId: of(f.hot, n) }),
  "a search by a word that many have": ({ runs }) => runs.searchRuns({ query: "nothing new" }),
  "a search by a word that none has": ({ runs }) => runs.searchRuns({ query: "zebra" }),
  "a search by the beginning of an id": ({ runs }, f, n) =>
    runs.searchRuns({ query: of(f.oldRuns, n).slice(0, 13) }),
  "a search by the end of an id": ({ runs }, f, n) => runs.searchRuns({ query: of(f.oldRuns, n).slice(-8) }),
  "what a repetition of failed runs would match": ({ runs }) =>
    runs.startBulkOperation({
      kind: BulkKind.RETRY,
      dryRun: true,
      filter: { statuses: [RunStatus.FAILED], since: ago(dayMs) },
    }),
  "what a cancellation would match": ({ runs }) =>
    runs.startBulkOperation({
      kind: BulkKind.CANCEL,
      dryRun: true,
      filter: { statuses: [RunStatus.PENDING] },
    }),
  "bulk operations": ({ runs }) => runs.listBulkOperations({}),
};

const watcherLists: Record<string, Ask> = {
  watchers: ({ watchers }) => watchers.listWatchers({ pageSize: 100 }),
  "watchers, a page in the middle, with runs and slots": ({ watchers }, _, n) =>
    watchers.listWatchers({
      pageSize: 50,
      pageToken: tokenOf("ListWatchers", [`grown-${(n % 9) + 1}`]),
      includeRecentRuns: true,
      includeNextSlots: true,
    }),
  "watchers of a device": ({ watchers }, f, n) => watchers.listWatchers({ deviceId: of(f.devices, n) }),
  "watchers of no device": ({ watchers }) =>
    watchers.listWatchers({ deviceId: "00000000-0000-4000-8000-000000000000" }),
  "a watcher": ({ watchers }, f, n) =>
    watchers.getWatcher({ watcherId: of(f.hot, n), includeRecentRuns: true, includeNextSlots: true }),
  "a watcher's revisions": ({ watchers }, f, n) => watchers.listWatcherRevisions({ watcherId: of(f.hot, n) }),
};

const fleetLists: Record<string, Ask> = {
  devices: ({ fleet }) => fleet.listDevices({ pageSize: 100 }),
  "devices, a page in the middle, with their last runs": ({ fleet }, _, n) =>
    fleet.listDevices({
      pageSize: 100,
      includeLastRun: true,
      pageToken: tokenOf("ListDevices", { label: `machine ${(n % 9) + 1}`, id: idAt(0) }),
    }),
  "devices that are online": ({ fleet }) => fleet.listDevices({ liveness: [Liveness.ONLINE], pageSize: 500 }),
  "devices that were never there": ({ fleet }) => fleet.listDevices({ liveness: [Liveness.NEVER] }),
  "devices by a part of their name": ({ fleet }, _, n) => fleet.listDevices({ labelContains: `9${n % 10}7` }),
  "devices with a rare label": ({ fleet }) => fleet.listDevices({ labels: ["rare:yes"] }),
  "devices with a label that none has": ({ fleet }) => fleet.listDevices({ labels: ["none:such"] }),
  "devices of a system that none has": ({ fleet }) => fleet.listDevices({ operatingSystems: [Os.ANDROID] }),
  "devices by a selector": ({ fleet }) =>
    fleet.listDevices({ selector: 'os == "linux" && "site:7" in labels' }),
  "fleet workers (none)": ({ fleet }) => fleet.listDevices({ isWorker: true }),
  "a device": ({ fleet }, f, n) => fleet.getDevice({ deviceId: of(f.devices, n) }),
  grants: ({ fleet }) => fleet.listGrants({ pageSize: 200 }),
  "grants of a device": ({ fleet }, f, n) => fleet.listGrants({ deviceId: of(f.devices, n) }),
};

const otherLists: Record<string, Ask> = {
  events: ({ events }) => events.listEvents({ pageSize: 100 }),
  "events, a page of days ago": ({ events }, f) =>
    events.listEvents({ pageSize: 100, pageToken: tokenOf("ListEvents", [Number(f.middleSeq)]) }),
  "events of a rare kind": ({ events }) => events.listEvents({ kinds: ["token.created"] }),
  "events of a kind that there are none of": ({ events }) => events.listEvents({ kinds: ["org.updated"] }),
  "events of two kinds of every run": ({ events }) =>
    events.listEvents({ kinds: ["run.completed", "run.created"] }),
  "events of all kinds of runs": ({ events }) => events.listEvents({ kinds: ["run."] }),
  "events of rare kinds, a page of days ago": ({ events }, f) =>
    events.listEvents({
      kinds: ["watcher.", "token."],
      pageToken: tokenOf("ListEvents", [Number(f.middleSeq)]),
    }),
  "200 events of a stream from an old cursor": ({ events }, f) => firstEvents(events, f.firstSeq),
  questions: ({ runs }) => runs.listQuestions({}),
  "open questions (none)": ({ runs }) => runs.listQuestions({ isOpen: true }),
  "questions of a watcher": ({ runs }, f, n) => runs.listQuestions({ watcherId: of(f.hot, n) }),
  "questions of a run": ({ runs }, f, n) => runs.listQuestions({ runId: of(f.oldRuns, n) }),
  conversations: ({ turns }) => turns.listConversations({ pageSize: 200 }),
  "conversations of an agent": ({ turns }) => turns.listConversations({ agentId: "bench" }),
  "conversations of no agent": ({ turns }) => turns.listConversations({ agentId: "nobody" }),
  "a conversation": ({ turns }, f, n) => turns.getConversation({ conversationId: of(f.conversations, n) }),
  turns: ({ turns }) => turns.listTurns({}),
  "turns, a page of days ago": ({ turns }, _, n) => turns.listTurns({ pageToken: pageAgo("ListTurns", n) }),
  "turns of a conversation": ({ turns }, f, n) => turns.listTurns({ conversationId: of(f.conversations, n) }),
  "failed turns": ({ turns }) => turns.listTurns({ statuses: [TurnStatus.FAILED] }),
  "cancelled turns (none)": ({ turns }) => turns.listTurns({ statuses: [TurnStatus.CANCELLED] }),
  "turns of no agent": ({ turns }) => turns.listTurns({ agentId: "nobody" }),
  "a turn": ({ turns }, f, n) => turns.getTurn({ turnId: of(f.turns, n) }),
  destinations: ({ destinations }) => destinations.listDestinations({}),
  deliveries: ({ destinations }) => destinations.listDeliveries({}),
  "deliveries of a destination": ({ destinations }) =>
    destinations.listDeliveries({ destinationId: "hook-1" }),
  "deliveries of a destination, dead": ({ destinations }) =>
    destinations.listDeliveries({ destinationId: "hook-1", state: DeliveryState.DEAD }),
  "dead deliveries": ({ destinations }) => destinations.listDeliveries({ state: DeliveryState.DEAD }),
  "waiting deliveries (none)": ({ destinations }) =>
    destinations.listDeliveries({ state: DeliveryState.PENDING }),
  "deliveries of a run": ({ destinations }, f, n) => destinations.listDeliveries({ runId: of(f.oldRuns, n) }),
  hooks: ({ hooks }) => hooks.listHooks({ pageSize: 100 }),
  "deliveries of a hook": ({ hooks }, f) => hooks.listHookDeliveries({ hookId: f.hook }),
  agents: ({ agents }) => agents.listAgents({ pageSize: 200 }),
  platforms: ({ agents }) => agents.listPlatforms({ pageSize: 200 }),
  members: ({ orgs }) => orgs.listMembers({ pageSize: 200 }),
  tokens: ({ tokens }) => tokens.listTokens({ pageSize: 500 }),
  "signed-in browsers": ({ signIns }) => signIns.listSignIns({ pageSize: 200 }),
};

/** What `pinion top` reads at each change. */
const top: Record<string, Ask> = {
  "what `pinion top` reads": ({ fleet, runs }) =>
    Promise.all([fleet.listDevices({ pageSize: 500 }), runs.listRuns({ pageSize: 100 })]),
};

async function firstEvents(events: Clients["events"], afterCursor: string): Promise<void> {
  const stop = new AbortController();
  let read = 0;
  try {
    for await (const { update } of events.watchEvents({ afterCursor }, { signal: stop.signal })) {
      if (update.case === "event" && ++read >= 200) break;
    }
  } finally {
    stop.abort();
  }
}

/** The asks by group; no two have one name. */
export const groups = { runLists, singleRuns, summaries, watcherLists, fleetLists, otherLists, top };
