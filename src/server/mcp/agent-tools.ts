/**
 * Tools of a run's agent: its own watcher, the watcher's earlier results, and questions to a
 * person.
 */
import type { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { z } from "zod";
import { Refusal } from "../../errors.ts";
import { ask, type QuestionBell, type QuestionRow } from "../../scheduler/questions.ts";
import type { Db } from "../../store/pg/database.ts";
import type { LiveAttempt } from "../../store/work/attempts/attempts.ts";
import * as windows from "../../store/work/runs/windows.ts";
import * as questions from "../../store/work/turns/questions.ts";
import * as watchers from "../../store/work/watchers/watchers.ts";
import { sleep } from "../../time/abort.ts";
import { newId } from "../../values/ids.ts";
import { answered } from "./result.ts";

export type AgentToolsOptions = { db: Db; bell: QuestionBell; attempt: LiveAttempt };

/** Seconds. A tool call is answered before its caller's timeout, for some callers a minute. */
const waitSecondsMax = 50;
const lookMs = 500;
const reads = { readOnlyHint: true, openWorldHint: false };

export function addAgentTools(server: McpServer, options: AgentToolsOptions): void {
  addWatcherTools(server, options);
  addQuestionTools(server, options);
}

function addWatcherTools(server: McpServer, { db, attempt }: AgentToolsOptions): void {
  const { orgId, runId, watcherId } = attempt;

  server.registerTool(
    "my_watcher",
    { description: "The standing instruction that this run is of.", annotations: reads },
    () =>
      answered(async () => {
        const { slug, name, prompt, schedule, time_zone } = await watchers.get(db, {
          orgId,
          watcher: watcherId,
        });
        return { slug, name, prompt, schedule, time_zone, run_id: runId };
      }),
  );
  server.registerTool(
    "last_result",
    { description: "What the last completed run of this watcher found.", annotations: reads },
    () =>
      answered(async () => {
        const [window] = await windows.list(db, { orgId, watcherId, limit: 1 });
        return window ? resultOf(window) : "No run of this watcher has completed yet.";
      }),
  );
  server.registerTool(
    "list_results",
    {
      description: "What completed runs of this watcher found, newest first.",
      inputSchema: { count: z.int().min(1).max(20).optional().describe("How many. Default: 5.") },
      annotations: reads,
    },
    ({ count = 5 }) =>
      answered(async () => (await windows.list(db, { orgId, watcherId, limit: count })).map(resultOf)),
  );
}

const seconds = z.int().min(0).max(waitSecondsMax).optional().describe("How long to wait now. Default: 45.");

function addQuestionTools(server: McpServer, options: AgentToolsOptions): void {
  server.registerTool(
    "ask_person",
    {
      description:
        "Asks a person who looks after this watcher, and waits a while for the answer. Without one by the deadline, the default is taken, which denies.",
      inputSchema: {
        title: z.string().min(1).max(400).describe("The question, in one line."),
        text: z.string().max(8_000).optional().describe("What one has to know to answer it. Markdown."),
        options: z
          .array(z.string().min(1).max(100))
          .min(1)
          .max(10)
          .optional()
          .describe('The answers to choose from. Default: "Yes" and "No"; an answer may carry text besides.'),
        wait_seconds: seconds,
      },
    },
    ({ title, text = "", options: labels = ["Yes", "No"], wait_seconds: waitSeconds = 45 }, { signal }) =>
      answered(async () => {
        const id = await askPerson(options, { title, text, labels });
        return wait(options, { id, seconds: waitSeconds }, signal);
      }),
  );
  server.registerTool(
    "get_answer",
    {
      description: "The answer to a question that ask_person asked, waited for a while if there is none yet.",
      inputSchema: { question_id: z.string().min(1).max(100), wait_seconds: seconds },
      annotations: reads,
    },
    ({ question_id: id, wait_seconds: waitSeconds = 45 }, { signal }) =>
      answered(() => wait(options, { id, seconds: waitSeconds }, signal)),
  );
}

/** Stores the question and rings; returns the question's id. */
async function askPerson(
  { db, bell, attempt }: AgentToolsOptions,
  { title, text, labels }: { title: string; text: string; labels: readonly string[] },
): Promise<string> {
  const { orgId, runId, deviceId, attemptToken } = attempt;
  const id = `mcp-${newId()}`;
  const choices = labels.map((label, place) => ({
    id: `option-${place + 1}`,
    label,
    kind: kindOf(label),
  }));
  const idOf = (kind: string) => choices.find((choice) => choice.kind === kind)?.id ?? "";
  const asked = await ask(
    db,
    {
      ...{ orgId, deviceId, workId: runId, attemptToken, id },
      question: {
        id,
        title,
        text,
        options: choices,
        takesText: true,
        askedAt: new Date().toISOString(),
      },
      denies: idOf("QUESTION_OPTION_KIND_DENY_ONCE"),
      allows: idOf("QUESTION_OPTION_KIND_ALLOW_ONCE"),
    },
    bell,
  );
  if (!asked) throw new Refusal("failed_precondition", "the attempt is over, or has asked too much");
  return id;
}

async function find({ db, attempt }: AgentToolsOptions, id: string): Promise<QuestionRow> {
  const { orgId, runId, attemptToken } = attempt;
  const rows = await questions.list(db, {
    orgId,
    runId,
    isOpen: false,
    limit: questions.questionsPerAttemptMax,
  });
  const row = rows.find((one) => one.id === id && one.attemptToken === attemptToken);
  if (!row) throw new Refusal("not_found", `this attempt has asked no question "${id}"`);
  return row;
}

/** The end of the question, or after so many seconds that it is open. */
async function wait(
  options: AgentToolsOptions,
  { id, seconds }: { id: string; seconds: number },
  signal: AbortSignal,
): Promise<unknown> {
  const until = performance.now() + seconds * 1_000;
  for (;;) {
    const row = await find(options, id);
    if (row.state !== "open") return endOf(row);
    if (performance.now() >= until || signal.aborted) {
      return { question_id: id, state: "open", note: "nobody has answered yet; get_answer waits on" };
    }
    await sleep(lookMs, signal);
  }
}

/** The kind of an option, by its label; the kind selects the default at the deadline. */
function kindOf(label: string): string {
  if (/^no\b/i.test(label)) return "QUESTION_OPTION_KIND_DENY_ONCE";
  if (/^yes\b/i.test(label)) return "QUESTION_OPTION_KIND_ALLOW_ONCE";
  return "QUESTION_OPTION_KIND_UNSPECIFIED";
}

function endOf({ id, state, question, optionId, text, answeredBy }: QuestionRow) {
  const { options = [] } = question as { options?: { id: string; label: string }[] };
  const answer = options.find((option) => option.id === optionId)?.label ?? "";
  return {
    question_id: id,
    state,
    answer,
    ...(text ? { text } : {}),
    ...(state === "expired" ? { note: "nobody answered by the deadline; the default was taken" } : {}),
    ...(answeredBy ? { answered_by: answeredBy } : {}),
  };
}

function resultOf(window: windows.WindowRow) {
  const { result, structured, output, is_truncated: isTruncated } = window.extractedData;
  return {
    run_id: window.runId,
    window_start: window.windowStart,
    window_end: window.windowEnd,
    ...(result === undefined ? { output } : { result }),
    ...(structured === undefined ? {} : { structured }),
    ...(isTruncated ? { is_truncated: true } : {}),
  };
}
