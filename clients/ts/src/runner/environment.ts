import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Assignment } from "../gen/pinion/v1/device_pb.js";
import type { AttemptFiles } from "./attempt-files.ts";
import type { ExecutorConfig } from "./config.ts";

/**
 * An installation in its state directory (`identityOfDirectory`). The installation alone is not
 * enough: a daemon with a copy of the directory must not end the programs of the first daemon.
 */
export interface Place {
  installId: string;
  directory: string;
}

/** Environment of every agent of a place, for finding leftover processes after a restart. */
export function markerOfPlace({ installId, directory }: Place): Record<string, string | undefined> {
  return { PINION_INSTALL_ID: installId, PINION_STATE_MARK: directory, PINION_RUN_ID: undefined };
}

/**
 * Environment of every process of an attempt, for finding processes outside the group. Not the
 * run's id: the next attempt of the same run may already be running. Not the attempt's token: a
 * secret of the daemon.
 */
export function markerOfAttempt(installId: string, mark: string): Record<string, string> {
  return { PINION_INSTALL_ID: installId, PINION_ATTEMPT_MARK: mark };
}

/**
 * The environment of an agent: inherited variables allowed by the configuration (an API key set for
 * the daemon must not change who is billed), variables set by the configuration, and facts of the
 * run.
 */
export function environmentOf(options: {
  executor: ExecutorConfig;
  assignment: Assignment;
  /** Files exchanged between program and daemon. */
  files: Pick<AttemptFiles, "snapshotIn" | "snapshotOut" | "retryAfter" | "input">;
  place: Place;
  /** Random mark of this attempt. */
  mark: string;
  /** W3C trace context; empty: none. */
  traceparent: string;
  inherited: NodeJS.ProcessEnv;
}): Record<string, string> {
  const { executor, assignment, place, mark, inherited, traceparent } = options;
  const environment: Record<string, string> = {};
  for (const name of executor.env) {
    const value = inherited[name];
    if (value !== undefined) environment[name] = value;
  }
  Object.assign(environment, executor.setEnv);
  const { watcher, event, context, agent, turn } = assignment;
  const facts: Record<string, string | undefined> = {
    ...markerOfAttempt(place.installId, mark),
    PINION_STATE_MARK: place.directory,
    PINION_RUN_ID: assignment.workId,
    PINION_ATTEMPT: String(assignment.attempt),
    PINION_WATCHER: watcher?.slug,
    PINION_CONVERSATION_ID: context?.conversationId,
    PINION_WINDOW_START: event?.windowStart && timestampDate(event.windowStart).toISOString(),
    PINION_WINDOW_END: event?.windowEnd && timestampDate(event.windowEnd).toISOString(),
    PINION_TURN_ID: turn && assignment.workId,
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
    // The system's environment texts end at a NUL, and the start would fail.
    if (value !== undefined && value !== "") environment[name] = value.replaceAll("\0", "\ufffd");
  }
  return environment;
}

/**
 * Maximum length of an input passed as a variable, in characters; a larger input is only in its
 * file. Linux allows 128 KiB per variable, Windows 32 Ki characters for all, and programs started
 * by the program need room too.
 */
const INPUT_CHARACTERS_MAX = 16_384;

/** Linux allows at most 128 KiB per variable (MAX_ARG_STRLEN). */
const IDENTITY_CHARACTERS_MAX = 40_000;

/**
 * The agent's identity followed by its guardrails: a system prompt for programs with support for
 * one.
 */
function identityOf(assignment: Assignment): string | undefined {
  const settings = assignment.agent?.settings;
  if (settings === undefined) return undefined;
  const parts = [settings.identity, ...settings.guardrails].filter((part) => part !== "");
  return parts.join("\n\n").slice(0, IDENTITY_CHARACTERS_MAX).toWellFormed();
}
