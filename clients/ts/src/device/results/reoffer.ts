import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import {
  type Assignment,
  AssignmentKind,
  type Completion,
  ReofferSchema,
  TurnReofferSchema,
} from "../../gen/pinion/v1/device_pb.js";
import { truncateUtf8 } from "./completion.ts";

/** Form of the ids of watchers, runs, turns and attempts. */
export const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The beginning of a message in bytes, for people who read a turn that the server lost. */
const REOFFERED_INPUT_BYTES_MAX = 65_536;

/**
 * Data about a completion's run or turn, for offering the result again to a database without them.
 */
export function reofferOf(assignment: Assignment): Pick<Completion, "reoffer" | "turnReoffer"> {
  return { ...turnReofferOf(assignment), ...runReofferOf(assignment) };
}

/** Data about the turn for offering the reply again; empty for a run. */
function turnReofferOf({ kind, turn, agent, attempt }: Assignment): Pick<Completion, "turnReoffer"> {
  if (kind !== AssignmentKind.TURN || !turn || !agent || attempt < 1) return {};
  const { conversationId, messageId, usesSnapshot } = turn;
  const turnReoffer = create(TurnReofferSchema, {
    ...{ agentId: agent.id, conversationId, messageId, usesSnapshot, attempt },
    input: truncateUtf8(turn.input, REOFFERED_INPUT_BYTES_MAX).text,
    inputSha256: createHash("sha256").update(turn.input).digest(),
  });
  return { turnReoffer };
}

/** Data about the run for offering the result again; empty for a turn. */
function runReofferOf({ kind, watcher, event, attempt }: Assignment): Pick<Completion, "reoffer"> {
  if (kind !== AssignmentKind.WATCHER_RUN || !watcher || !event?.windowStart || !event.windowEnd) return {};
  if (!UUID.test(watcher.id) || attempt < 1) return {};
  const reoffer = create(ReofferSchema, {
    ...{ watcherId: watcher.id, attempt, source: event.source },
    ...(event.scheduledFor ? { scheduledFor: event.scheduledFor } : {}),
    ...{ windowStart: event.windowStart, windowEnd: event.windowEnd },
  });
  return { reoffer };
}
