import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Assignment } from "../gen/pinion/v1/device_pb.js";
import type { AttemptFiles } from "./attempt-files.ts";
import type { ExecutorConfig } from "./config.ts";

/** What every agent of an installation carries in its environment, so that a leftover is found after a restart. */
export function markerOfInstallation(installId: string): Record<string, string | undefined> {
  return { PINION_INSTALL_ID: installId, PINION_RUN_ID: undefined };
}

/**
 * What every process of one attempt carries, so that one that left its process group is found again. Not the run's id:
 * the next attempt of the same run may be under way already. Not the attempt's token: that one is the daemon's secret.
 */
export function markerOfAttempt(installId: string, mark: string): Record<string, string> {
  return { PINION_INSTALL_ID: installId, PINION_ATTEMPT_MARK: mark };
}

/**
 * The environment of an agent: the inherited names that the configuration allows (an API key that happens to be set for
 * the daemon must not change who is billed), what the configuration sets, and what the run is about.
 */
export function environmentOf(options: {
  executor: ExecutorConfig;
  assignment: Assignment;
  /** By which the program and the daemon speak with each other. */
  files: Pick<AttemptFiles, "snapshotIn" | "snapshotOut" | "retryAfter" | "input">;
  installId: string;
  /** Random, made by the daemon for this attempt. */
  mark: string;
  /** W3C trace context; empty for none. */
  traceparent: string;
  inherited: NodeJS.ProcessEnv;
}): Record<string, string> {
  const { executor, assignment, installId, mark, inherited, traceparent } = options;
  const environment: Record<string, string> = {};
  for (const name of executor.env) {
    const value = inherited[name];
    if (value !== undefined) environment[name] = value;
  }
  Object.assign(environment, executor.setEnv);
  const { watcher, event, context, agent, turn } = assignment;
  const facts: Record<string, string | undefined> = {
    ...markerOfAttempt(installId, mark),
    PINION_RUN_ID: assignment.runId,
    PINION_ATTEMPT: String(assignment.attempt),
    PINION_WATCHER: watcher?.slug,
    PINION_CONVERSATION_ID: context?.conversationId,
    PINION_WINDOW_START: event?.windowStart && timestampDate(event.windowStart).toISOString(),
    PINION_WINDOW_END: event?.windowEnd && timestampDate(event.windowEnd).toISOString(),
    PINION_TURN_ID: turn && assignment.runId,
    PINION_MESSAGE_ID: turn?.messageId,
    PINION_SUBJECT_RUN_ID: turn?.subjectRunId,
    PINION_SNAPSHOT_IN: options.files.snapshotIn,
    PINION_SNAPSHOT_OUT: options.files.snapshotOut,
    PINION_WORKSPACE: assignment.workspace,
    PINION_INPUT: event && event.input.length <= INPUT_CHARACTERS_MAX ? event.input : undefined,
    PINION_INPUT_FILE: options.files.input,
    PINION_RETRY_AFTER_FILE: options.files.retryAfter,
    PINION_AGENT: agent?.id,
    PINION_AGENT_IDENTITY: identityOf(assignment),
    TRACEPARENT: traceparent,
  };
  for (const [name, value] of Object.entries(facts)) {
    // A NUL would end the text for the system, and make the start fail.
    if (value !== undefined && value !== "") environment[name] = value.replaceAll("\0", "\ufffd");
  }
  return environment;
}

/**
 * A larger input is in its file alone: Linux takes 128 KiB in one variable, Windows 32 Ki characters in all of them, and a program
 * started by the program has to find room as well.
 */
const INPUT_CHARACTERS_MAX = 16_384;

/** Linux takes at most 128 KiB in one variable (MAX_ARG_STRLEN). */
const IDENTITY_CHARACTERS_MAX = 40_000;

/** The agent's identity followed by its guardrails: a system prompt for programs that take one. */
function identityOf(assignment: Assignment): string | undefined {
  const settings = assignment.agent?.settings;
  if (settings === undefined) return undefined;
  const parts = [settings.identity, ...settings.guardrails].filter((part) => part !== "");
  return parts.join("\n\n").slice(0, IDENTITY_CHARACTERS_MAX).toWellFormed();
}
