import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Completion } from "#gen/pinion/v1/device_pb.js";
import { RunSource } from "#gen/pinion/v1/run_pb.js";
import { storableText } from "../../../store/pg/values/storable.ts";
import type { ForgottenAttempt } from "../../../store/work/runs/restorations.ts";
import type { ForgottenTurn } from "../../../store/work/turns/turn-restorations.ts";
import { isMoment } from "../messages/moments.ts";
import type { SessionServices } from "../session/session-services.ts";

/**
 * Restores the run or turn of a completion that is offered again, which the database may have lost
 * in a failover. Returns the id under which to report the completion; undefined if the completion
 * brings none.
 */
export async function restoreForgotten(
  services: Pick<SessionServices<unknown>, "restore" | "restoreTurn">,
  device: { orgId: string; deviceId: string },
  completion: Completion,
): Promise<string | undefined> {
  const run = forgottenOf(device, completion);
  if (run) return (await services.restore(run)) ?? run.runId;
  const turn = forgottenTurnOf(device, completion);
  if (turn) await services.restoreTurn(turn);
  return turn?.turnId;
}

/** The source of a run, of a slot or not, by the source its device knows. */
function sourceOf(source: RunSource, isOfSlot: boolean): ForgottenAttempt["source"] {
  if (isOfSlot) return source === RunSource.SCHEDULED ? "scheduled" : "backfill";
  if (source === RunSource.HOOK) return "hook";
  return source === RunSource.AFTER ? "after" : "manual";
}

/**
 * The run of a completion that is offered again, as known to its device; undefined for any other
 * completion.
 */
function forgottenOf(
  device: { orgId: string; deviceId: string },
  { workId, attemptToken, reoffer }: Completion,
): ForgottenAttempt | undefined {
  if (!reoffer) return undefined;
  const { watcherId, attempt, scheduledFor, windowStart, windowEnd } = reoffer;
  if (!windowStart || !windowEnd) return undefined;
  const moments = [windowStart, windowEnd, ...(scheduledFor ? [scheduledFor] : [])];
  // The database has no such moment, and no run had it.
  if (moments.some((moment) => moment.seconds < 0n || !isMoment(moment))) return undefined;
  return {
    ...{ orgId: device.orgId, deviceId: device.deviceId, runId: workId, attemptToken, attempt },
    watcherId: watcherId.toLowerCase(),
    source: sourceOf(reoffer.source, scheduledFor !== undefined),
    scheduledFor: scheduledFor ? timestampDate(scheduledFor) : null,
    windowStart: timestampDate(windowStart),
    windowEnd: timestampDate(windowEnd),
  };
}

/**
 * The turn of a completion that is offered again, as known to its worker; undefined for any other
 * completion.
 */
function forgottenTurnOf(
  device: { orgId: string; deviceId: string },
  { workId: turnId, attemptToken, turnReoffer }: Completion,
): ForgottenTurn | undefined {
  if (!turnReoffer) return undefined;
  const { agentId, conversationId, messageId, input, inputSha256, attempt, usesSnapshot } = turnReoffer;
  return {
    ...{ orgId: device.orgId, deviceId: device.deviceId, turnId, attemptToken, attempt },
    ...{ agentId, conversationId, messageId, inputSha256, isGated: usesSnapshot },
    input: storableText(input),
  };
}
