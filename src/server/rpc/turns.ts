import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  type ListTurnsRequest,
  type StartTurnRequest,
  type Turn,
  type TurnService,
  type WatchTurnRequest,
  type WatchTurnResponse,
  WatchTurnResponseSchema,
} from "#gen/pinion/v1/turn_pb.js";
import { refuse } from "../../errors.ts";
import type { Doorbell } from "../../scheduler/doorbell.ts";
import { cancelTurn } from "../../scheduler/endings/cancels.ts";
import * as devices from "../../store/people/devices/devices.ts";
import { findDefaultAgentId } from "../../store/people/orgs/default-agents.ts";
import type { Db } from "../../store/pg/database.ts";
import { storableText } from "../../store/pg/values/storable.ts";
import * as lateResults from "../../store/work/attempts/late-results.ts";
import * as reports from "../../store/work/runs/reports.ts";
import * as runs from "../../store/work/runs/runs.ts";
import type { NewTurn } from "../../store/work/turns/arming.ts";
import * as conversations from "../../store/work/turns/conversations.ts";
import * as questions from "../../store/work/turns/questions.ts";
import * as turns from "../../store/work/turns/turns.ts";
import { principalOf } from "../access/principal.ts";
import type { Feed } from "../cluster/feed.ts";
import type { OutputChunk } from "../cluster/output.ts";
import { activityOf, activityStream } from "../device/messages/activity.ts";
import { lateResultMessage } from "./messages/run-message.ts";
import { conversationMessage, turnMessage, turnStatuses } from "./messages/turn-message.ts";
import { idKey, page, textKey } from "./page.ts";
import { conversationOf } from "./turn-conversation.ts";
import { createTurnStarts } from "./turn-starts.ts";
import { outputFields, watching } from "./watching.ts";

/** As documented in the .proto. */
const timeoutMsDefault = 600_000;
const startTimeoutMsDefault = 600_000;
type Deps = { db: Db; feed: Feed; doorbell: Doorbell };

type Served = ServiceImpl<typeof TurnService>;

export function turnService(deps: Deps): Served {
  return { ...turnRpcs(deps), ...conversationRpcs(deps) };
}

async function get(db: Db, turn: { orgId: string; turnId: string }): Promise<turns.TurnRow> {
  return (await turns.find(db, turn)) ?? refuse("not_found", `there is no turn ${turn.turnId}`);
}

function turnRpcs(
  deps: Deps,
): Pick<Served, "startTurn" | "getTurn" | "watchTurn" | "listTurns" | "cancelTurn"> {
  const { db, doorbell } = deps;
  const starts = createTurnStarts({ db });

  return {
    async startTurn(request, context) {
      const { orgId } = principalOf(context);
      const turn = await requested(db, orgId, request);
      const armed = await starts.start(turn);
      if (!armed.isNew) {
        return { turn: turnMessage(await get(db, { orgId, turnId: armed.turnId })), alreadyStarted: true };
      }
      doorbell.turnStarted({ orgId, ...armed });
      return { turn: turnMessage(turns.startedRow(turn, armed)), alreadyStarted: false };
    },

    async getTurn({ turnId }, context) {
      const { orgId } = principalOf(context);
      const turn = await messageOf(db, await get(db, { orgId, turnId }));
      const late = await lateResults.list(db, { orgId, id: turnId });
      return { turn, lateResults: late.map(lateResultMessage) };
    },

    watchTurn: (request, context) => watch(deps, request, context),

    listTurns: (request, context) => list(db, principalOf(context).orgId, request),

    async cancelTurn({ turnId, reason }, context) {
      const { orgId, actor } = principalOf(context);
      const isLive = await cancelTurn(
        db,
        { orgId, turnId },
        { reason: reason || `cancelled by ${actor}`, doorbell },
      );
      const turn = await get(db, { orgId, turnId });
      if (!isLive) refuse("failed_precondition", `turn ${turnId} has ended already: ${turn.status}`);
      return { turn: turnMessage(turn) };
    },
  };
}

async function list(db: Db, orgId: string, request: ListTurnsRequest) {
  const wanted = new Set(request.statuses);
  const statuses = Object.entries(turnStatuses).flatMap(([name, status]) =>
    wanted.has(status) ? [name] : [],
  );
  const { rows, nextPageToken } = await page(request, {
    key: z.tuple([idKey]),
    keyOf: (row: turns.TurnRow) => [row.id],
    fetch: (before, limit) =>
      turns.list(db, {
        orgId,
        limit,
        statuses,
        beforeId: before?.[0],
        agentId: request.agentId || undefined,
        conversationId: request.conversationId || undefined,
      }),
  });
  return { turns: rows.map((row) => turnMessage(row)), nextPageToken };
}

function conversationRpcs({
  db,
  feed,
  doorbell,
}: Deps): Pick<Served, "getConversation" | "listConversations" | "deleteConversation"> {
  return {
    async getConversation({ conversationId, includeSnapshot }, context) {
      const { orgId } = principalOf(context);
      const { snapshot, ...row } = await conversations.get(db, {
        orgId,
        conversationId,
        withSnapshot: includeSnapshot,
      });
      return { conversation: conversationMessage(row), ...(snapshot ? { snapshot } : {}) };
    },

    async listConversations(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([textKey]),
        keyOf: (row: conversations.ConversationRow) => [row.id],
        fetch: (after, limit) =>
          conversations.list(db, {
            orgId,
            limit,
            afterId: after?.[0],
            agentId: request.agentId || undefined,
          }),
      });
      return { conversations: rows.map(conversationMessage), nextPageToken };
    },

    async deleteConversation({ conversationId }, context) {
      const { orgId, actor } = principalOf(context);
      const live = await conversations.remove(db, { orgId, conversationId, actor });
      if (live) {
        doorbell.turnStarted({ orgId, ...live });
        refuse(
          "failed_precondition",
          `turn ${live.turnId} of the conversation has not ended; wait for it or cancel it first`,
        );
      }
      feed.eventsAppended(orgId);
      return {};
    },
  };
}

/**
 * The requested turn. Refuses with `not_found` what the request names and the org does not have.
 */
async function requested(db: Db, orgId: string, request: StartTurnRequest): Promise<NewTurn> {
  const resumed = request.resumeRunId === "" ? undefined : await requireResumable(db, orgId, request);
  const agentId =
    request.agentId ||
    resumed?.agentId ||
    ((await findDefaultAgentId(db, { orgId })) ??
      refuse("not_found", "the org has no default agent; name one", { field: "agent_id" }));
  const { conversationId, isGated, run } = conversationOf(resumed?.request ?? request, { orgId, agentId });
  const resume = resumed && {
    ...resumed.resume,
    sessionId:
      (await turns.findSession(db, { orgId, agentId, conversationId, deviceId: resumed.resume.deviceId })) ??
      resumed.resume.sessionId,
  };
  if (run) await requireRun(db, { orgId, agentId, ...run });
  return {
    orgId,
    agentId,
    conversationId,
    isGated,
    messageId: storableText(request.messageId),
    runId: run?.runId ?? null,
    resume,
    agentKind: storableText(request.agentKind || (resumed?.agentKind ?? "")),
    input: storableText(request.input),
    timeoutMs: request.timeout ? durationMs(request.timeout) : timeoutMsDefault,
    startTimeoutMs: request.startTimeout ? durationMs(request.startTimeout) : startTimeoutMsDefault,
  };
}

/**
 * The run whose session a turn continues. Without a conversation in the request, the turn joins the
 * run's conversation. Refuses with `not_found` for a missing run, and with `failed_precondition` if
 * the run left no session or its device is gone.
 */
async function requireResumable(db: Db, orgId: string, request: StartTurnRequest) {
  const runId = request.resumeRunId.toLowerCase();
  const field = "resume_run_id";
  const run =
    (await runs.find(db, { orgId, runId })) ?? refuse("not_found", `there is no run ${runId}`, { field });
  const report = (await reports.findAll(db, { orgId, runIds: [runId] })).get(runId);
  const { deviceId } = run;
  if (!report || report.sessionId === "") {
    const why = run.finishedAt ? "its executor keeps none" : "it has not ended";
    refuse("failed_precondition", `run ${runId} left no session to go on in: ${why}`, { field });
  }
  if (!deviceId || !(await devices.find(db, { orgId, deviceId }))) {
    refuse("failed_precondition", `the device of run ${runId} is gone, and its session with it`, { field });
  }
  const isNamed = request.conversationId !== "" || request.userId !== "" || request.watcherId !== "";
  return {
    ...{ agentId: run.agentId, agentKind: run.agentKind },
    request: isNamed ? request : { ...request, watcherId: run.watcherId, runId },
    resume: { sessionId: report.sessionId, runId, deviceId },
  };
}

/** The run is the org's, and, where the conversation says so, the watcher's and the agent's. */
async function requireRun(
  db: Db,
  named: { orgId: string; agentId: string; runId: string; watcherId: string | undefined },
): Promise<void> {
  const run = await runs.find(db, named);
  if (!run) refuse("not_found", `there is no run ${named.runId}`, { field: "run_id" });
  if (named.watcherId !== undefined && (run.watcherId !== named.watcherId || run.agentId !== named.agentId)) {
    refuse(
      "not_found",
      `there is no run ${run.id} of watcher ${named.watcherId} and agent "${named.agentId}"`,
    );
  }
}

/** The turn now, at every change, and its output; its end comes once, as the last message. */
function watch(
  { db, feed }: Deps,
  { turnId, afterSequence }: WatchTurnRequest,
  context: HandlerContext,
): AsyncGenerator<WatchTurnResponse> {
  const { orgId } = principalOf(context);
  return watching({
    feed,
    work: { orgId, workId: turnId.toLowerCase() },
    signal: context.signal,
    afterSequence,
    isEndAlone: true,
    async look() {
      const row = await turns.find(db, { orgId, turnId });
      if (!row) refuse("not_found", `there is no turn ${turnId}`);
      const isEnded = row.finishedAt !== null;
      const value = await messageOf(db, row);
      return {
        isEnded,
        text: JSON.stringify({ ...row, lastBeatAt: null, deadlineAt: null, asks: value.openQuestions }),
        update: updateOf({ case: isEnded ? "ended" : "turn", value }),
      };
    },
    outputOf: outputUpdates,
    keepalive: () => updateOf({ case: "keepalive", value: {} }),
  });
}

const updateOf = (update: MessageInitShape<typeof WatchTurnResponseSchema>["update"]) =>
  create(WatchTurnResponseSchema, { update });

/** A turn with the number of its agent's open questions. */
async function messageOf(db: Db, row: turns.TurnRow): Promise<Turn> {
  if (row.status !== "running" && row.status !== "claimed") return turnMessage(row);
  const open = await questions.countOpen(db, { orgId: row.orgId, runIds: [row.id] });
  return turnMessage(row, open.get(row.id) ?? 0);
}

function outputUpdates(chunk: OutputChunk): WatchTurnResponse[] {
  if (chunk.stream !== activityStream) return [updateOf({ case: "output", value: outputFields(chunk) })];
  const value = activityOf(chunk.data);
  return value ? [updateOf({ case: "activity", value })] : [];
}
