/**
 * A watcher's requests to its agent beside the prompt, between the store's JSON and the fields of a
 * spec.
 */
import { create, fromJson, type JsonObject, toJson } from "@bufbuild/protobuf";
import { ContinueMode } from "#gen/pinion/v1/activity_pb.js";
import { type WatcherSpec, WatcherSpecSchema } from "#gen/pinion/v1/watcher_pb.js";

/** `WatcherValues.agentWork` as fields of a spec. Keys of a newer version are passed over. */
export function agentWorkMessage(agentWork: unknown): AgentWork {
  const { workspace, runBudget, dayBudget, questions, continueMode, afterCondition, redact, notify } =
    fromJson(WatcherSpecSchema, agentWork as JsonObject, { ignoreUnknownFields: true });
  return {
    workspace,
    continueMode,
    afterCondition,
    redact,
    notify,
    ...(runBudget ? { runBudget } : {}),
    ...(dayBudget ? { dayBudget } : {}),
    ...(questions ? { questions } : {}),
  };
}

type AgentWork = Pick<WatcherSpec, "workspace" | "continueMode" | "afterCondition" | "redact" | "notify"> &
  Partial<Pick<WatcherSpec, "runBudget" | "dayBudget" | "questions">>;

/** The fields of a spec as `WatcherValues.agentWork`; unset fields are absent. */
export function agentWorkOf(spec: WatcherSpec): JsonObject {
  const { workspace, runBudget, dayBudget, questions, continueMode, afterCondition, redact, notify } = spec;
  const work = create(WatcherSpecSchema, {
    workspace,
    continueMode: continueMode === ContinueMode.FRESH ? ContinueMode.UNSPECIFIED : continueMode,
    notify,
    ...(runBudget ? { runBudget } : {}),
    ...(dayBudget ? { dayBudget } : {}),
    ...(questions ? { questions } : {}),
    afterCondition,
    redact,
  });
  return toJson(WatcherSpecSchema, work) as JsonObject;
}
