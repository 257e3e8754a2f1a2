import { create, fromJson, type JsonObject } from "@bufbuild/protobuf";
import { z } from "zod";
import { QuestionPolicySchema, QuestionResponders, QuestionSchema } from "#gen/pinion/v1/activity_pb.js";
import {
  type AnswerQuestionRequest,
  type ListQuestionsRequest,
  QuestionState,
  type RunQuestion,
  RunQuestionSchema,
} from "#gen/pinion/v1/run_pb.js";
import { refuse } from "../../errors.ts";
import * as answers from "../../scheduler/questions.ts";
import * as agentEdits from "../../store/agents/agent-edits.ts";
import * as devices from "../../store/people/devices/devices.ts";
import type { Db } from "../../store/pg/database.ts";
import * as runs from "../../store/work/runs/runs.ts";
import * as questions from "../../store/work/turns/questions.ts";
import * as turns from "../../store/work/turns/turns.ts";
import type { Principal } from "../access/principal.ts";
import { timestampOf } from "./messages/moments.ts";
import { idKey, momentKey, page, textKey } from "./page.ts";

/** Questions of agents, as people list and answer them. */

const states: Record<questions.QuestionState, QuestionState> = {
  open: QuestionState.OPEN,
  answered: QuestionState.ANSWERED,
  expired: QuestionState.EXPIRED,
  withdrawn: QuestionState.WITHDRAWN,
};

/** Fields stored by a newer version are ignored. */
const lenient = { ignoreUnknownFields: true };

function questionMessage(row: questions.QuestionRow): RunQuestion {
  const { responders } = fromJson(QuestionPolicySchema, row.policy as JsonObject, lenient);
  return create(RunQuestionSchema, {
    ...{ runId: row.runId ?? "", turnId: row.turnId ?? "" },
    ...{ watcherId: row.watcherId ?? "", deviceId: row.deviceId, attempt: row.attempt },
    watcherSlug: row.watcherSlug ?? "",
    question: fromJson(QuestionSchema, row.question as JsonObject, lenient),
    state: states[row.state],
    askedAt: timestampOf(row.askedAt),
    deadlineAt: timestampOf(row.deadlineAt),
    optionId: row.state === "open" ? "" : row.optionId,
    ...{ text: row.text, answeredBy: row.answeredBy },
    answeredAt: timestampOf(row.answeredAt),
    responders: responders || QuestionResponders.USERS,
  });
}

/** A page of the org's questions. */
export async function listQuestions(
  db: Db,
  orgId: string,
  request: ListQuestionsRequest,
  watcherId: string | undefined,
): Promise<{ questions: RunQuestion[]; nextPageToken: string }> {
  if (request.runId !== "" && !(await runs.find(db, { orgId, runId: request.runId }))) {
    refuse("not_found", `there is no run ${request.runId}`);
  }
  if (request.turnId !== "" && !(await turns.find(db, { orgId, turnId: request.turnId }))) {
    refuse("not_found", `there is no turn ${request.turnId}`);
  }
  const { rows, nextPageToken } = await page(request, {
    key: z.tuple([momentKey, idKey, textKey]),
    keyOf: (row: Awaited<ReturnType<typeof questions.list>>[number]) => [
      row.askedAtMicros,
      row.workId,
      row.id,
    ],
    fetch: (before, limit) =>
      questions.list(db, {
        ...{ orgId, limit, watcherId, isOpen: request.isOpen },
        runId: request.runId || undefined,
        turnId: request.turnId || undefined,
        before: before && { askedAtMicros: before[0], runId: before[1], id: before[2] },
      }),
  });
  return { questions: rows.map(questionMessage), nextPageToken };
}

/** A person's answer; see RunService.AnswerQuestion. */
export async function answerQuestion(
  db: Db,
  principal: Principal,
  request: AnswerQuestionRequest,
  bell: answers.QuestionBell,
): Promise<RunQuestion> {
  const { orgId, actor } = principal;
  const { questionId, optionId, text, always } = request;
  if ((request.runId === "") === (request.turnId === "")) {
    refuse("invalid_argument", "run_id: set either this or turn_id", { field: "run_id" });
  }
  if (always && !principal.scopes.has("admin")) {
    refuse("permission_denied", "always: changes the agent for everybody, which is for admins of the org", {
      field: "always",
    });
  }
  const asker = await askerOf(db, orgId, request);
  const row = await answers.answer(
    db,
    { orgId, workId: asker.id, questionId, optionId, text, actor },
    {
      bell,
      async mayAnswer(question) {
        await requireResponder(db, principal, question);
        requireAllowOnce(principal, question, optionId);
      },
      async within(tx, question) {
        if (always) await approveRule(tx, { orgId, actor, agentId: asker.agentId }, question);
      },
    },
  );
  return questionMessage(row);
}

/** The run or turn whose agent asks. Refuses with `not_found`. */
async function askerOf(
  db: Db,
  orgId: string,
  { runId, turnId }: AnswerQuestionRequest,
): Promise<{ id: string; agentId: string }> {
  if (runId !== "") {
    return (await runs.find(db, { orgId, runId })) ?? refuse("not_found", `there is no run ${runId}`);
  }
  return (await turns.find(db, { orgId, turnId })) ?? refuse("not_found", `there is no turn ${turnId}`);
}

async function requireResponder(db: Db, principal: Principal, row: questions.QuestionRow): Promise<void> {
  const { responders } = fromJson(QuestionPolicySchema, row.policy as JsonObject, lenient);
  if (responders === QuestionResponders.ADMINS && !principal.scopes.has("admin")) {
    refuse("permission_denied", "the watcher lets owners and admins of the org answer alone");
  }
  if (responders === QuestionResponders.DEVICE_OWNER) {
    const device = await devices.find(db, { orgId: row.orgId, deviceId: row.deviceId });
    if (!principal.userId || device?.owner_id !== principal.userId) {
      refuse("permission_denied", "the watcher lets the owner of the device answer alone");
    }
  }
}

/** An agent may itself remember an option that permits for good, whatever `always` says. */
function requireAllowOnce(principal: Principal, row: questions.QuestionRow, optionId: string): void {
  const chosen = answers.optionsOf(row).find(({ id }) => id === optionId);
  if (chosen?.kind !== "QUESTION_OPTION_KIND_ALLOW_ALWAYS" || principal.scopes.has("admin")) return;
  const once = answers
    .optionsOf(row)
    .filter(({ kind }) => kind === "QUESTION_OPTION_KIND_ALLOW_ONCE")
    .map(({ id }) => id);
  const instead = once.length > 0 ? `; "${once[0]}" permits it this once` : "";
  refuse(
    "permission_denied",
    `option_id: "${optionId}" permits it for good, which is for admins of the org${instead}`,
    { field: "option_id" },
  );
}

function requireRule({ question }: questions.QuestionRow): string {
  const rule = question.toolRule;
  if (typeof rule === "string" && rule !== "") return rule;
  refuse("failed_precondition", "always: the question names no rule that could be approved for good", {
    field: "always",
  });
}

/** Adds the question's rule to the agent's pre-approved tools, as an edit with its event. */
async function approveRule(
  tx: Db,
  edit: { orgId: string; actor: string; agentId: string },
  row: questions.QuestionRow,
): Promise<void> {
  const rule = requireRule(row);
  await agentEdits.update(tx, {
    ...edit,
    expectedVersion: 0,
    isDryRun: false,
    change(current) {
      const { preApprovedTools = [] } = current.settings as { preApprovedTools?: string[] };
      if (preApprovedTools.includes(rule)) return current;
      return { ...current, settings: { ...current.settings, preApprovedTools: [...preApprovedTools, rule] } };
    },
  });
}
