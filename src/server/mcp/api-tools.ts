/** Tools of people and services: each is a call of the API with the caller's own token. */
import { fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import type { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { z } from "zod";
import {
  RunQuestionSchema,
  RunSchema,
  type RunService,
  type Window,
  WindowSchema,
} from "#gen/pinion/v1/run_pb.js";
import { type Watcher, type WatcherService, WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import { answered } from "./result.ts";

export type Api = { watchers: Client<typeof WatcherService>; runs: Client<typeof RunService> };

const watcher = z.string().min(1).max(100).describe("The watcher, by slug or id.");
const reads = { readOnlyHint: true, openWorldHint: false };
const writes = { readOnlyHint: false, destructiveHint: false, openWorldHint: true };

const newWatcher = {
  name: z.string().min(1).max(200),
  prompt: z.string().min(1).describe("What the agent is asked to do."),
  schedule: z
    .string()
    .max(200)
    .optional()
    .describe('Cron, "@every 90m" or "@at …"; none: only when triggered.'),
  time_zone: z.string().max(64).optional().describe('IANA zone, such as "Europe/Berlin". Default: UTC.'),
  slug: z.string().max(63).optional().describe("Its name in commands. Default: made of the name."),
  device_id: z.string().optional().describe("The device it is pinned to, by id. Default: fleet workers."),
  agent_id: z.string().max(100).optional().describe("Default: the org's default agent."),
};
type NewWatcher = z.infer<z.ZodObject<typeof newWatcher>>;

export function addApiTools(server: McpServer, api: Api): void {
  addWatcherTools(server, api);
  addResultTools(server, api);
  addQuestionTools(server, api);
}

function addWatcherTools(server: McpServer, { watchers: api }: Api): void {
  server.registerTool(
    "list_watchers",
    {
      description: "Standing instructions of the org: what runs when, on which device.",
      inputSchema: { page_token: z.string().max(1000).optional().describe("Of the page before.") },
      annotations: reads,
    },
    ({ page_token: pageToken = "" }) =>
      answered(async () => {
        const { watchers, nextPageToken } = await api.listWatchers({ pageSize: 100, pageToken });
        return { watchers: watchers.map(watcherOf), next_page_token: nextPageToken };
      }),
  );
  server.registerTool(
    "create_watcher",
    {
      description: "Makes a standing instruction: a prompt, and when and where an agent works on it.",
      inputSchema: newWatcher,
      annotations: writes,
    },
    (asked) => answered(() => createWatcher(api, asked)),
  );
  server.registerTool(
    "trigger_watcher",
    {
      description: "Starts a run of a watcher now. With a run under way, answers that one.",
      inputSchema: { watcher, input: z.json().optional().describe("What the run is about: any JSON.") },
      annotations: writes,
    },
    ({ watcher: watcherId, input }) =>
      answered(async () => {
        const { run, alreadyQueued } = await api.triggerWatcher({
          watcherId,
          ...(input === undefined ? {} : { input: fromJson(ValueSchema, input as JsonValue) }),
        });
        return { run: toJson(RunSchema, run ?? noAnswer()), already_queued: alreadyQueued };
      }),
  );
}

function addResultTools(server: McpServer, { runs: api }: Api): void {
  server.registerTool(
    "last_result",
    {
      description: "What the last completed run of a watcher found.",
      inputSchema: { watcher },
      annotations: reads,
    },
    ({ watcher: watcherId }) =>
      answered(async () => {
        const { windows } = await api.listWindows({ watcherId, pageSize: 1 });
        return windows[0] ? resultOf(windows[0]) : "No run of this watcher has completed yet.";
      }),
  );
  server.registerTool(
    "list_results",
    {
      description: "Stored results of a watcher, newest first.",
      inputSchema: { watcher, count: z.int().min(1).max(20).optional().describe("How many. Default: 5.") },
      annotations: reads,
    },
    ({ watcher: watcherId, count = 5 }) =>
      answered(async () => {
        const { windows } = await api.listWindows({ watcherId, pageSize: count });
        return windows.map(resultOf);
      }),
  );
}

function addQuestionTools(server: McpServer, { runs: api }: Api): void {
  server.registerTool(
    "list_questions",
    { description: "What agents ask people, and nobody has answered yet.", annotations: reads },
    () =>
      answered(async () => {
        const { questions } = await api.listQuestions({ isOpen: true, pageSize: 50 });
        return questions.map((question) => toJson(RunQuestionSchema, question));
      }),
  );
  server.registerTool(
    "answer_question",
    {
      description:
        "Answers an agent's question; the first answer counts. Only for who was asked to decide it.",
      inputSchema: {
        run_id: z.uuid(),
        question_id: z.string().min(1).max(100),
        option_id: z.string().min(1).max(100),
        text: z.string().max(8192).optional(),
      },
      annotations: writes,
    },
    ({ run_id: runId, question_id: questionId, option_id: optionId, text = "" }) =>
      answered(async () => {
        const { question } = await api.answerQuestion({ runId, questionId, optionId, text });
        return toJson(RunQuestionSchema, question ?? noAnswer());
      }),
  );
}

async function createWatcher(api: Api["watchers"], asked: NewWatcher) {
  const { watcher } = await api.createWatcher({
    slug: asked.slug ?? "",
    spec: {
      ...{ name: asked.name, prompt: asked.prompt, schedule: asked.schedule ?? "" },
      timeZone: asked.time_zone ?? "",
      deviceId: asked.device_id ?? "",
      agentId: asked.agent_id ?? "",
    },
  });
  return watcherOf(watcher ?? noAnswer());
}

/** The API's answers have the message that their rpc makes. */
function noAnswer(): never {
  throw new Error("the API answered without the message");
}

function watcherOf({ id, slug, spec, status, pausedReason, activeRunId }: Watcher) {
  return {
    ...{ id, slug, name: spec?.name, schedule: spec?.schedule, time_zone: spec?.timeZone },
    ...{ device_id: spec?.deviceId, agent_id: spec?.agentId },
    status: WatcherStatus[status].toLowerCase(),
    ...(pausedReason ? { paused_reason: pausedReason } : {}),
    ...(activeRunId ? { active_run_id: activeRunId } : {}),
  };
}

function resultOf(window: Window): unknown {
  return toJson(WindowSchema, window);
}
