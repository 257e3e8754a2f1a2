import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import { TranscriptSchema } from "#gen/pinion/v1/activity_pb.js";
import {
  type ExplainRunResponseSchema,
  type Run,
  type RunService,
  UsageGroup,
  type WatchRunRequest,
  type WatchRunResponse,
  WatchRunResponseSchema,
} from "#gen/pinion/v1/run_pb.js";
import { Refusal, refuse } from "../../errors.ts";
import type { Doorbell } from "../../scheduler/doorbell.ts";
import { cancelRun } from "../../scheduler/endings/cancels.ts";
import { explainPlacement } from "../../scheduler/placing/explain-placement.ts";
import type { QuestionBell } from "../../scheduler/questions.ts";
import { retry } from "../../scheduler/starts/triggers.ts";
import * as devices from "../../store/people/devices/devices.ts";
import * as workers from "../../store/people/devices/workers.ts";
import * as clock from "../../store/pg/clock.ts";
import type { Db } from "../../store/pg/database.ts";
import * as lateResults from "../../store/work/attempts/late-results.ts";
import type { FailurePolicy } from "../../store/work/attempts/settlements.ts";
import * as reports from "../../store/work/runs/reports.ts";
import * as runs from "../../store/work/runs/runs.ts";
import * as starts from "../../store/work/runs/starts.ts";
import * as windows from "../../store/work/runs/windows.ts";
import * as usage from "../../store/work/service/usage.ts";
import * as questions from "../../store/work/turns/questions.ts";
import * as watchers from "../../store/work/watchers/watchers.ts";
import { principalOf } from "../access/principal.ts";
import type { Feed } from "../cluster/feed.ts";
import type { OutputChunk } from "../cluster/output.ts";
import { activityOf, activityStream, transcriptOf } from "../device/messages/activity.ts";
import { attentionNames, runStatuses } from "../enums.ts";
import { bulkRpcs } from "./bulks.ts";
import { explain } from "./explain.ts";
import { explainChain } from "./explain-chain.ts";
import { findLate } from "./explain-late.ts";
import { startFields } from "./messages/input-message.ts";
import { dateOf, spanOf } from "./messages/moments.ts";
import { lateResultMessage, runMessage, windowMessage } from "./messages/run-message.ts";
import { idKey, page } from "./page.ts";
import { answerQuestion, listQuestions } from "./questions.ts";
import { searchRuns, summarizeRuns } from "./run-search.ts";
import { outputFields, watching } from "./watching.ts";

const windowsPageSizeDefault = 20;
interface Deps {
  db: Db;
  feed: Feed;
  doorbell: Doorbell & QuestionBell;
  policy: FailurePolicy;
  ttlMs: number;
  pokeBulks: () => void;
}

type Served = ServiceImpl<typeof RunService>;

export function runService(deps: Deps): Served {
  return {
    ...runRpcs(deps),
    ...resultRpcs(deps),
    ...summaryRpcs(deps),
    ...questionRpcs(deps),
    ...bulkRpcs(deps),

    explainRun: ({ runId }, context) => explainRun(deps, { orgId: principalOf(context).orgId, runId }),
  };
}

async function get(db: Db, run: { orgId: string; runId: string }): Promise<runs.RunRow> {
  const found = await runs.find(db, run);
  if (found) return found;
  const waiting = await starts.findWaiting(db, run);
  if (!waiting) refuse("not_found", `there is no run ${run.runId}`);
  refuse(
    "failed_precondition",
    `run ${run.runId} of watcher "${waiting.watcherSlug}" is not there yet: it waits for the end of run ${waiting.activeRunId ?? "before it"}`,
  );
}

async function messageOf(db: Db, row: runs.RunRow): Promise<Run> {
  const [message] = await runMessages(db, row.orgId, [row]);
  return message ?? runMessage(row);
}

/** Adds the input and origin of a run without a slot. */
async function messageWithStart(db: Db, row: runs.RunRow): Promise<Run> {
  const message = await messageOf(db, row);
  if (row.source === "scheduled" || row.source === "backfill") return message;
  const start = await starts.findShown(db, { orgId: row.orgId, runId: row.id });
  return start ? Object.assign(message, startFields(start)) : message;
}

/** The id of the watcher in a list's filter; undefined without a filter. */
async function idOfWatcher(db: Db, orgId: string, watcher: string): Promise<string | undefined> {
  return watcher === "" ? undefined : (await watchers.get(db, { orgId, watcher })).id;
}

function runRpcs(deps: Deps): Pick<Served, "getRun" | "listRuns" | "cancelRun" | "retryRun" | "watchRun"> {
  const { db, doorbell, policy } = deps;
  const retrying = { doorbell, ...(policy.quotas ? { quotas: policy.quotas } : {}) };

  return {
    async getRun({ runId }, context) {
      const { orgId } = principalOf(context);
      const run = await messageWithStart(db, await get(db, { orgId, runId }));
      const late = await lateResults.list(db, { orgId, id: runId });
      return { run, lateResults: late.map(lateResultMessage) };
    },

    async listRuns(request, context) {
      const { orgId } = principalOf(context);
      const wanted = new Set(request.statuses);
      const statuses = Object.entries(runStatuses).flatMap(([name, status]) =>
        wanted.has(status) ? [name] : [],
      );
      const watcherId = await idOfWatcher(db, orgId, request.watcherId);
      const { since, until } = spanOf(request, "");
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([idKey]),
        keyOf: (row: runs.RunRow) => [row.id],
        fetch: (before, limit) =>
          runs.list(db, {
            orgId,
            limit,
            watcherId,
            statuses,
            beforeId: before?.[0],
            deviceId: request.deviceId || undefined,
            wantsAttention: request.wantsAttention,
            attention: request.attention.flatMap((reason) => attentionNames[reason] ?? []),
            ...{ labels: request.labels, since, until },
          }),
      });
      return { runs: await runMessages(db, orgId, rows), nextPageToken };
    },

    async cancelRun({ runId, reason }, context) {
      const { orgId, actor } = principalOf(context);
      const isLive = await cancelRun(
        db,
        { orgId, runId },
        { reason: reason || `cancelled by ${actor}`, policy, doorbell },
      );
      const run = await get(db, { orgId, runId });
      if (!isLive) refuse("failed_precondition", `run ${runId} has ended already: ${run.status}`);
      return { run: await messageOf(db, run) };
    },

    async retryRun({ runId, requestId }, context) {
      const { orgId, actor } = principalOf(context);
      return { run: runMessage(await retry(db, { orgId, runId, actor, requestId }, retrying)) };
    },

    watchRun: (request, context) => watch(deps, request, context),
  };
}

/** The run with the facts that explain its state, and its place in a chain. */
async function explainRun(
  { db, ttlMs }: Deps,
  { orgId, runId }: { orgId: string; runId: string },
): Promise<MessageInitShape<typeof ExplainRunResponseSchema>> {
  const run = await get(db, { orgId, runId });
  const { deviceId } = run;
  const device = deviceId
    ? await devices.get(db, { orgId, deviceId, ttlMs }).catch(unlessNotFound)
    : undefined;
  const onDevice = deviceId ? await runs.countOnDevice(db, { orgId, deviceId }) : { active: 0, pending: 0 };
  const fleet =
    run.status === "pending" && !deviceId
      ? await workers.findFleet(db, { orgId, agentKind: run.agentKind, ttlMs })
      : undefined;
  const placement =
    run.status === "pending" ? await explainPlacement(db, { orgId, runId, ttlMs }) : undefined;
  const late = await findLate(db, { orgId, runId: run.id });
  const now = await clock.now(db);
  const chain = await explainChain(db, run);
  return {
    run: await messageWithStart(db, run),
    ...explain({ run, device, onDevice, fleet, placement, late, ttlMs, now }),
    candidates: (placement?.candidates ?? []).map(({ reason, ...device }) => ({
      ...device,
      takes: reason === null,
      reason: reason ?? "",
    })),
    chain,
  };
}

/** The results of runs. */
function resultRpcs(deps: Deps): Pick<Served, "listWindows" | "getTranscript"> {
  const { db } = deps;

  return {
    async listWindows(request, context) {
      const { orgId } = principalOf(context);
      const watcherId = await idOfWatcher(db, orgId, request.watcherId);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([idKey]),
        keyOf: (row: windows.WindowRow) => [row.id],
        sizeDefault: windowsPageSizeDefault,
        fetch: (before, limit) =>
          windows.list(db, {
            orgId,
            limit,
            watcherId,
            runId: request.runId || undefined,
            beforeId: before?.[0],
          }),
      });
      const found = await reports.findAll(db, { orgId, runIds: rows.map((row) => row.runId) });
      return { windows: rows.map((row) => windowMessage(row, found.get(row.runId))), nextPageToken };
    },

    async getTranscript({ runId }, context) {
      const { orgId } = principalOf(context);
      await get(db, { orgId, runId });
      const bytes = await reports.findTranscript(db, { orgId, runId });
      return { transcript: bytes ? transcriptOf(bytes) : create(TranscriptSchema) };
    },
  };
}

function summaryRpcs(deps: Deps): Pick<Served, "summarizeUsage" | "summarizeRuns" | "searchRuns"> {
  const { db } = deps;

  return {
    async summarizeUsage(request, context) {
      const { orgId } = principalOf(context);
      const end = request.end ? dateOf(request.end, "end") : await clock.now(db);
      const start = request.start ? dateOf(request.start, "start") : new Date(end.getTime() - usageSpanMs);
      if (start >= end) refuse("invalid_argument", "end: must be after start", { field: "end" });
      const sums = await usage.summarize(db, {
        ...{ orgId, start, end, groupBy: usageGroups[request.groupBy] },
        watcherId: await idOfWatcher(db, orgId, request.watcherId),
        agentId: request.agentId || undefined,
        deviceId: request.deviceId || undefined,
      });
      return { sums };
    },

    async summarizeRuns(request, context) {
      const { orgId } = principalOf(context);
      return summarizeRuns(db, orgId, request, await idOfWatcher(db, orgId, request.watcherId));
    },

    searchRuns: ({ query }, context) => searchRuns(db, principalOf(context), query),
  };
}

function questionRpcs(deps: Deps): Pick<Served, "listQuestions" | "answerQuestion"> {
  const { db } = deps;

  return {
    async listQuestions(request, context) {
      const { orgId } = principalOf(context);
      return listQuestions(db, orgId, request, await idOfWatcher(db, orgId, request.watcherId));
    },

    async answerQuestion(request, context) {
      return { question: await answerQuestion(db, principalOf(context), request, deps.doorbell) };
    },
  };
}

const usageSpanMs = 30 * 86_400_000;

const usageGroups: Record<UsageGroup, usage.UsageGroup> = {
  [UsageGroup.UNSPECIFIED]: "",
  [UsageGroup.WATCHER]: "watcher",
  [UsageGroup.AGENT]: "agent",
  [UsageGroup.DEVICE]: "device",
  [UsageGroup.DAY]: "day",
};

/** Runs with the reports of their agents. */
async function runMessages(db: Db, orgId: string, rows: readonly runs.RunRow[]): Promise<Run[]> {
  const ended = rows.filter((row) => row.finishedAt !== null && row.status !== "skipped");
  const ends = ended.map((row) => row.finishedAt);
  const found = await reports.findAll(db, { orgId, runIds: ended.map((row) => row.id), ends });
  const live = rows.filter((row) => row.status === "running" || row.status === "claimed");
  const open = await questions.countOpen(db, { orgId, runIds: live.map((row) => row.id) });
  return rows.map((row) =>
    runMessage(row, { report: found.get(row.id), openQuestions: open.get(row.id) ?? 0 }),
  );
}

/** The run now, at every change, and its output; ends after the run's end was shown. */
function watch(
  { db, feed }: { db: Db; feed: Feed },
  { runId }: WatchRunRequest,
  context: HandlerContext,
): AsyncGenerator<WatchRunResponse> {
  const { orgId } = principalOf(context);
  return watching({
    feed,
    work: { orgId, workId: runId },
    signal: context.signal,
    isEndAlone: false,
    async look() {
      const row = await runs.find(db, { orgId, runId });
      if (!row) refuse("not_found", `there is no run ${runId}`);
      const [run] = await runMessages(db, orgId, [row]);
      const openQuestions = run?.openQuestions;
      return {
        isEnded: row.finishedAt !== null,
        text: JSON.stringify({ ...row, openQuestions, lastBeatAt: null }),
        update: updateOf({ case: "run", value: run ?? runMessage(row) }),
      };
    },
    outputOf: outputUpdates,
    keepalive: () => updateOf({ case: "keepalive", value: {} }),
  });
}

const updateOf = (update: MessageInitShape<typeof WatchRunResponseSchema>["update"]) =>
  create(WatchRunResponseSchema, { update });

/** The device was deleted; any other failure passes on. */
function unlessNotFound(error: unknown): undefined {
  if (error instanceof Refusal && error.reason === "not_found") return undefined;
  throw error;
}

function outputUpdates(chunk: OutputChunk): WatchRunResponse[] {
  const { deviceId } = chunk;
  if (chunk.stream !== activityStream)
    return [updateOf({ case: "output", value: { ...outputFields(chunk), deviceId } })];
  const activity = activityOf(chunk.data);
  const value = activity && { activity, attempt: chunk.attempt, deviceId };
  return value ? [updateOf({ case: "activity", value })] : [];
}
